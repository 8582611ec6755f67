"""The bundled data: hand-checked prices, and what must hold of every row."""

import datetime as dt
import gzip
import importlib.resources
import json
import os
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bedrock_budget.core.price_facts import TOKEN_KINDS
from bedrock_budget.core.pricing import Price
from bedrock_budget.core.served import DEFAULT, Served
from bedrock_budget.core.worst_case import PRIORITY_PCT, UNKNOWN_OUTPUT_TOKENS, UNKNOWN_WINDOW_TOKENS, Limits
from bedrock_budget.prices import PriceTable, build, bundled
from bedrock_budget.prices.second_opinion import NO_REASON

TODAY = dt.date(2026, 11, 21)
RECORDED = Path(__file__).parents[3] / "shared" / "recorded" / "bedrock-traffic.jsonl.gz"

FOLDER = importlib.resources.files("bedrock_budget.prices")
DATA: dict[str, Any] = json.loads(FOLDER.joinpath("bundled.json").read_text(encoding="utf-8"))
SUPPLEMENT: dict[str, Any] = json.loads(FOLDER.joinpath("supplement.json").read_text(encoding="utf-8"))
ROWS = [(model, row) for model, entry in DATA["models"].items() for row in entry.get("rows", ())]

_FIGURES = (*TOKEN_KINDS, "pico_usd", "note")

# List prices, checked by hand: USD micros per 1M tokens. None: whatever it is.
SPOT: list[tuple[str, int, int, int | None, int | None, int | None]] = [
    ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 3_300_000, 16_500_000, 330_000, 4_125_000, 6_600_000),
    ("anthropic.claude-sonnet-4-5-20250929-v1:0", 3_300_000, 16_500_000, 330_000, 4_125_000, 6_600_000),
    ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", 3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000),
    ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", 3_600_000, 18_000_000, 360_000, 4_500_000, 7_200_000),
    ("anthropic.claude-haiku-4-5-20251001-v1:0", 1_100_000, 5_500_000, 110_000, 1_375_000, 2_200_000),
    ("eu.anthropic.claude-haiku-4-5-20251001-v1:0", 1_100_000, 5_500_000, 110_000, 1_375_000, 2_200_000),
    ("global.anthropic.claude-haiku-4-5-20251001-v1:0", 1_000_000, 5_000_000, 100_000, 1_250_000, 2_000_000),
    ("us.anthropic.claude-opus-5-5", 4_400_000, 22_000_000, 220_000, 5_500_000, 8_800_000),
    ("anthropic.claude-opus-4-8", 5_500_000, 27_500_000, 550_000, 6_875_000, 11_000_000),
    ("us.anthropic.claude-sonnet-4-20250514-v1:0", 3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000),
    ("global.anthropic.claude-fable-5-2", 8_000_000, 40_000_000, 200_000, 10_000_000, 16_000_000),
    ("jp.anthropic.claude-fable-5-2", 8_800_000, 44_000_000, 220_000, 11_000_000, 17_600_000),
    # no cache price is listed: read as input, writes at 1.25 x and 2 x input
    ("anthropic.claude-3-haiku-20240307-v1:0", 250_000, 1_250_000, 250_000, 312_500, 500_000),
    ("us.anthropic.claude-3-sonnet-20240229-v1:0", 3_000_000, 15_000_000, 3_000_000, None, None),
    ("anthropic.claude-v2", 8_000_000, 24_000_000, None, None, None),
    ("anthropic.claude-v2:1:200k", 8_000_000, 24_000_000, None, None, None),
    ("anthropic.claude-instant-v1", 800_000, 2_400_000, None, None, None),
    # a read price but no write price is listed: writes at the input price
    ("amazon.nova-pro-v1:0", 800_000, 3_200_000, 200_000, 800_000, 800_000),
    ("eu.amazon.nova-pro-v1:0", 1_050_000, 4_200_000, 262_500, None, None),
    ("amazon.nova-lite-v1:0:300k", 60_000, 240_000, 15_000, None, None),
    ("amazon.nova-micro-v1:0", 35_000, 140_000, 8_750, 35_000, 35_000),
    ("us.amazon.nova-premier-v1:0", 2_500_000, 12_500_000, 625_000, None, None),
    ("us.amazon.nova-2-lite-v1:0", 330_000, 2_750_000, 82_500, None, None),
    ("amazon.nova-2-lite-v1:0", 330_000, 2_750_000, 82_500, None, None),
    ("global.amazon.nova-2-lite-v1:0", 300_000, 2_500_000, 75_000, None, None),
    ("amazon.titan-text-express-v1", 200_000, 600_000, None, None, None),
    ("amazon.titan-embed-text-v2:0", 20_000, 0, None, None, None),
    ("amazon.titan-embed-text-v1:2:8k", 100_000, 0, None, None, None),
    ("meta.llama2-13b-chat-v1", 750_000, 1_000_000, None, None, None),
    ("us.meta.llama3-3-70b-instruct-v1:0", 720_000, 720_000, None, None, None),
    ("us.meta.llama4-maverick-17b-instruct-v1:0", 240_000, 970_000, None, None, None),
    ("mistral.mistral-large-2402-v1:0", 4_000_000, 12_000_000, None, None, None),
    ("cohere.command-text-v14", 1_000_000, 2_000_000, None, None, None),
    ("cohere.command-r-v1:0", 500_000, 1_500_000, None, None, None),
    ("cohere.command-r-plus-v1:0", 3_000_000, 15_000_000, None, None, None),
    ("us.cohere.embed-v4:0", 120_000, 0, None, None, None),
    ("ai21.jamba-1-5-mini-v1:0", 200_000, 400_000, None, None, None),
    ("us.deepseek.r1-v1:0", 1_350_000, 5_400_000, None, None, None),
    ("qwen.qwen3-32b-v1:0", 150_000, 600_000, None, None, None),
    ("openai.gpt-oss-120b-1:0", 150_000, 600_000, None, None, None),
    ("us.openai.gpt-5.6-sol", 4_400_000, 22_000_000, 440_000, 5_500_000, None),
    # served through profiles only
    ("openai.gpt-5.5", 5_500_000, 33_000_000, 550_000, None, None),
]


@pytest.mark.parametrize("spot", SPOT, ids=lambda spot: spot[0])
def test_spot_prices(spot: tuple[str, int, int, int | None, int | None, int | None]) -> None:
    model_id, *expected = spot
    found = bundled().find(model_id, region="us-east-1", on=TODAY)
    assert found is not None
    price = found.price
    got = [price.input, price.output, price.cache_read, price.cache_write_5m, price.cache_write_1h]
    assert [value for value, wanted in zip(got, expected, strict=True) if wanted is not None] == [
        wanted for wanted in expected if wanted is not None
    ]


def test_a_price_cut_keeps_the_days_before_it() -> None:
    def price(day: int) -> int:
        found = bundled().find("us.openai.gpt-5.6-sol", region=None, on=dt.date(2026, 8, day))
        assert found is not None
        return found.price.output

    assert [price(17), price(20), price(21)] == [33_000_000, 33_000_000, 22_000_000]


def test_past_usage_has_a_price() -> None:
    found = bundled().find("amazon.titan-text-express-v1", region=None, on=dt.date(2023, 9, 28))
    assert found is not None
    found = bundled().find("anthropic.claude-3-haiku-20240307-v1:0", region=None, on=dt.date(2024, 3, 7))
    assert found is not None
    assert found.effective_from == dt.date(2024, 3, 7)


def test_what_is_not_priced_by_the_token_has_no_price() -> None:
    for model_id in ("amazon.nova-canvas-v1:0", "cohere.rerank-v3-5:0", "amazon.nova-2-sonic-v1:0"):
        assert bundled().find(model_id, region=None, on=TODAY) is None


@pytest.mark.parametrize(
    ("model_id", "kind", "detail", "usd"),
    [
        ("amazon.nova-canvas-v1:0", "image", "", "0.06"),
        ("amazon.nova-canvas-v1:0", "image", "1024x1024/50-steps", "0.06"),
        ("us.stability.stable-creative-upscale-v1:0", "image", "", "0.6"),
        ("cohere.rerank-v3-5:0", "search_unit", "", "0.002"),
        ("amazon.rerank-v1:0", "search_unit", "", "0.001"),
        ("amazon.titan-embed-image-v1", "input_image", "", "0.00006"),
        ("us.twelvelabs.pegasus-1-2-v1:0", "input_video_second", "", "0.00049"),
        ("amazon.nova-2-multimodal-embeddings-v1:0", "input_audio_second", "", "0.00014"),
        ("amazon.bedrock-guardrails", "guardrail_text_unit", "contentPolicyUnits", "0.00015"),
        ("amazon.bedrock-guardrails", "guardrail_image_unit", "contentPolicyImageUnits", "0.00075"),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", "server_tool_request", "web_search", "0.01"),
    ],
)
def test_spot_unit_prices(model_id: str, kind: str, detail: str, usd: str) -> None:
    units = bundled().units(model_id, region="us-east-1", on=TODAY)
    found = {(unit.kind, unit.detail): unit.pico_usd for unit in units}
    assert found[kind, detail] == int(Decimal(usd).scaleb(12))


@pytest.mark.parametrize(
    ("model_id", "served", "prompt", "rates"),
    [
        ("amazon.nova-pro-v1:0", Served("flex"), 9, (400_000, 1_600_000)),
        ("amazon.nova-pro-v1:0", Served("batch"), 9, (400_000, 1_600_000)),
        ("amazon.nova-pro-v1:0", Served("priority"), 9, (1_400_000, 5_600_000)),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", DEFAULT, 200_000, (3_300_000, 16_500_000)),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", DEFAULT, 200_001, (6_600_000, 24_750_000)),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", DEFAULT, 200_001, (6_600_000, 24_750_000)),
        ("global.anthropic.claude-haiku-5-5", DEFAULT, 100_001, (500_000, 2_500_000)),
    ],
)
def test_spot_prices_by_how_a_call_was_served(
    model_id: str, served: Served, prompt: int, rates: tuple[int, int]
) -> None:
    found = bundled().find(model_id, region="us-east-1", on=TODAY)
    assert found is not None
    quote = found.prices.served(served, prompt)
    assert (quote.price.input, quote.price.output) == rates
    assert quote.listed


@pytest.mark.parametrize(
    ("region", "rate"), [("us-east-1", 150_000), ("eu-west-2", 230_000), ("ap-northeast-1", 180_000)]
)
def test_regional_prices(region: str, rate: int) -> None:
    found = bundled().find("qwen.qwen3-next-80b-a3b", region=region, on=TODAY)
    assert found is not None
    assert found.price.input == rate


def sources() -> tuple[Path, Path]:
    """Where the wheels of the sources are, by ``$PRICE_SOURCES``."""
    folder = os.environ.get("PRICE_SOURCES")
    if not folder:
        pytest.skip("$PRICE_SOURCES names no folder with the wheels of litellm and genai-prices")
    [litellm], [genai] = (list(Path(folder).glob(f"{name}-*.whl")) for name in ("litellm", "genai_prices"))
    return litellm, genai


def test_the_table_is_what_its_sources_make() -> None:
    litellm, genai = sources()
    built = build.built_from(litellm, genai, Path(str(FOLDER.joinpath("supplement.json"))))
    assert build.dump(built.table) == FOLDER.joinpath("bundled.json").read_text(encoding="utf-8")
    assert len(built.missed) <= len(built.measured) * 5 // 100
    assert len(built.measured) >= 600
    assert [one for one in built.disagreements if one.reason == NO_REASON] == []
    assert len(built.disagreements) >= 200


def test_every_row_is_sane() -> None:
    priced = 0
    for model, row in ROWS:
        profile, region = row["profile"], row.get("when", {}).get("region")
        model_id = model if profile is None else f"{profile}.{model}"
        found = bundled().find(model_id, region=region, on=TODAY)
        if found is None:
            assert "pegasus" in model  # by the second of video
            continue
        priced += 1
        where = f"{model_id} {region}"
        plain = found.price
        ways = [(above, price) for rungs in found.prices.variants.values() for above, price in rungs.items()]
        for above, price in [(0, plain), *ways]:
            assert 0 < price.cache_read <= price.input, where
            assert price.input <= price.cache_write_5m <= price.cache_write_1h, where
            assert price.output > 0 or "embed" in model, where
            assert 10_000 <= price.input <= 250_000_000, where
            assert price.output <= 1_000_000_000, where
            assert not above or price.input >= plain.input, where
    assert priced >= 900


def test_rows_of_a_model_are_distinct_and_in_order() -> None:
    for model, entry in DATA["models"].items():
        for kind in ("rows", "units"):
            keys = [json.dumps({**row, **dict.fromkeys(_FIGURES, 0)}, sort_keys=True) for row in entry.get(kind, ())]
            assert len(keys) == len(set(keys)), model
            places = [row["profile"] or "" for row in entry.get(kind, ())]
            assert places == sorted(places), model
    assert list(DATA["models"]) == sorted(DATA["models"])


def test_every_source_is_described() -> None:
    assert {row["source"] for _, row in ROWS} == set(DATA["sources"])
    for entry in DATA["models"].values():
        assert {unit["source"] for unit in entry.get("units", ())} <= set(DATA["sources"])


def test_global_is_never_dearer_than_any_other_way() -> None:
    for model in bundled().models():
        cheapest = bundled().find(f"global.{model}", region=None, on=TODAY)
        if cheapest is None:
            assert bundled().units(model, region=None, on=TODAY)
            continue
        for profile in (None, "us", "eu", "apac", "jp", "au", "in", "us-gov"):
            found = bundled().find(f"{profile}.{model}" if profile else model, region=None, on=TODAY)
            assert found is not None
            assert found.price.input >= cheapest.price.input, (model, profile)
            assert found.price.output >= cheapest.price.output, (model, profile)


def test_claude_from_4_5_costs_a_tenth_more_in_region_than_globally() -> None:
    checked = 0
    for model in bundled().models():
        bare = bundled().find(model, region=None, on=TODAY)
        worldwide = bundled().find(f"global.{model}", region=None, on=TODAY)
        if not model.startswith("anthropic.") or not bare or not worldwide or worldwide.profile != "global":
            continue
        if model == "anthropic.claude-sonnet-4-20250514-v1:0":
            assert bare.price == worldwide.price
            continue
        for name in Price.__slots__:
            assert getattr(bare.price, name) * 10 == getattr(worldwide.price, name) * 11, (model, name)
        checked += 1
    assert checked >= 15


@pytest.mark.parametrize(
    "family",
    [
        "ai21.",
        "amazon.nova-",
        "amazon.titan-embed-",
        "amazon.titan-text-",
        "anthropic.claude-",
        "cohere.command-r",
        "cohere.embed-",
        "deepseek.",
        "google.",
        "meta.llama2-",
        "meta.llama3-",
        "meta.llama4-",
        "minimax.",
        "mistral.",
        "moonshot.",
        "moonshotai.",
        "nvidia.",
        "openai.gpt-oss-",
        "qwen.",
        "writer.",
        "xai.",
        "zai.",
    ],
)
def test_every_family_is_there(family: str) -> None:
    assert any(model.startswith(family) for model in bundled().models())


def test_the_supplement_is_in_the_table() -> None:
    for model, entry in SUPPLEMENT["models"].items():
        for given in entry["rows"]:
            rows = DATA["models"][model]["rows"]
            assert any(given.items() <= row.items() for row in rows), (model, given)
    assert DATA["aliases"] == SUPPLEMENT["aliases"]
    assert not DATA["models"].keys() & SUPPLEMENT["drop"].keys()


def test_the_file_is_as_the_builder_writes_it() -> None:
    assert FOLDER.joinpath("bundled.json").read_text(encoding="utf-8") == build.dump(DATA)


def test_the_table_loads_fast() -> None:
    text = FOLDER.joinpath("bundled.json").read_text(encoding="utf-8")
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        PriceTable.from_json(json.loads(text), lazily=True)
        best = min(best, time.perf_counter() - start)
    assert best < 0.010


def test_recorded_models_have_prices() -> None:
    if not RECORDED.exists():
        pytest.skip("the recorded traffic is not here")
    with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
        served = {record["model_id"] for record in map(json.loads, lines) if record["status"] == 200}
    unpriced = {model_id for model_id in served if bundled().find(model_id, region=None, on=TODAY) is None}
    assert len(served) >= 60
    for model_id in unpriced:
        assert ":application-inference-profile/" in model_id or ":sagemaker:" in model_id or "rerank" in model_id


@pytest.mark.parametrize(
    ("model_id", "limits"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Limits(200_000, 64_000, 200_000, 200, 150)),
        ("global.anthropic.claude-haiku-5-5", Limits(1_000_000, 128_000, 100_000, 500, 500)),
        ("us.openai.gpt-5.5", Limits(1_050_000, 128_000, 272_000, 200, 150)),
        ("amazon.nova-pro-v1:0", Limits(300_000, 10_000, priority_pct=175)),
        ("anthropic.claude-v2:1", Limits(200_000, 8_191)),
        ("amazon.titan-embed-text-v2:0", Limits(8_192, 0)),
        ("cohere.embed-english-v3:0", Limits(512, 0)),  # by its alias
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefghijkl", None),
    ],
)
def test_hand_checked_limits(model_id: str, limits: Limits | None) -> None:
    assert bundled().limits(model_id) == limits


def test_what_is_assumed_of_unknown_models_is_as_much_as_any_has() -> None:
    known = {model: limits for model in bundled().models() if (limits := bundled().limits(model))}
    assert len(known) >= 120
    wider = {m for m, limits in known.items() if (limits.context_window_tokens or 0) > UNKNOWN_WINDOW_TOKENS}
    assert wider == {"meta.llama4-scout-17b-instruct-v1:0"}
    assert max(limits.max_output_tokens or 0 for limits in known.values()) <= UNKNOWN_OUTPUT_TOKENS
    assert max(limits.priority_pct for limits in known.values()) <= PRIORITY_PCT
    for limits in known.values():
        assert limits.context_window_tokens != 0
        assert min(limits.long_context_input_pct, limits.long_context_output_pct, limits.priority_pct) >= 100

"""The builder: exact conversion, what it takes, corrects and leaves out, and the same bytes for the same inputs."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.price_facts import TOKEN_KINDS
from bedrock_budget.prices import build
from bedrock_budget.prices.litellm_map import Refused, pico_usd

SUPPLEMENT: dict[str, Any] = {
    "sources": {
        "litellm": {"name": "map", "version": "1", "licence": "MIT", "retrieved": "2026-02-01"},
        "hand": {"name": "hand", "version": "1", "licence": "none", "retrieved": "2026-03-01"},
    }
}


def entry(usd_in: str | None, usd_out: str | None, read: str | None = None, **more: Any) -> dict[str, Any]:
    """An entry of the price map, as read from JSON; prices in USD per 1M tokens."""
    prices = {"input_cost_per_token": usd_in, "output_cost_per_token": usd_out, "cache_read_input_token_cost": read}
    found: dict[str, Any] = {"litellm_provider": "bedrock", "mode": "chat"}
    found |= {name: Decimal(usd).scaleb(-6) for name, usd in prices.items() if usd is not None}
    return found | more


def writes(usd_5m: str, usd_1h: str | None = None) -> dict[str, Decimal]:
    found = {"cache_creation_input_token_cost": Decimal(usd_5m).scaleb(-6)}
    if usd_1h:
        found["cache_creation_input_token_cost_above_1hr"] = Decimal(usd_1h).scaleb(-6)
    return found


def made(litellm: dict[str, Any], **supplement: Any) -> build.Built:
    return build.build(litellm, {**SUPPLEMENT, **supplement}, litellm_sha256="0" * 64)


def rows(litellm: dict[str, Any], model: str, **supplement: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made(litellm, **supplement).table["models"][model]["rows"]
    return found


def prices(row: dict[str, Any]) -> list[int]:
    return [row[name] for name in TOKEN_KINDS if name in row]


@given(st.integers(min_value=0, max_value=10**15))
def test_conversion_is_exact(micros: int) -> None:
    assert pico_usd(Decimal(micros).scaleb(-12)) == micros


@pytest.mark.parametrize(
    ("text", "micros"),
    [("3.3E-6", 3_300_000), ("8.75E-9", 8_750), ("0.000004125", 4_125_000), ("0.0", 0), ("1e-12", 1)],
)
def test_conversion_of_map_texts(text: str, micros: int) -> None:
    assert pico_usd(Decimal(text)) == micros


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Decimal("1.00000000000001E-6"), "not a whole number of pico"),
        (Decimal("1E-13"), "not a whole number of pico"),
        (Decimal("-1E-6"), "negative"),
        (Decimal("NaN"), "not a price"),
        (Decimal("Infinity"), "not a price"),
        (1e-6, "not a price"),
        (True, "not a price"),
        ("1E-6", "not a price"),
    ],
)
def test_no_price_is_rounded_or_guessed(value: object, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        pico_usd(value)


def test_all_cache_prices_are_listed() -> None:
    [row] = rows({"acme.m": entry("3", "15", "0.3", **writes("3.75", "6"))}, "acme.m")
    assert prices(row) == [3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000]
    assert "note" not in row
    assert (row["profile"], row["source"]) == (None, "litellm")


def test_what_is_not_listed_is_not_in_the_table() -> None:
    [row] = rows({"acme.m": entry("0.8", "3.2", "0.2")}, "acme.m")
    assert prices(row) == [800_000, 3_200_000, 200_000]
    [row] = rows({"acme.m": entry("0.25", "1.25")}, "acme.m")
    assert prices(row) == [250_000, 1_250_000]


def test_tiers_long_prompts_and_regions_are_rows_of_their_own() -> None:
    more = per_million(
        input_cost_per_token_flex="1",
        output_cost_per_token_flex="7.5",
        input_cost_per_token_batches="1.1",
        cache_read_input_token_cost_priority="0.5",
        input_cost_per_token_above_200k_tokens="6",
        cache_creation_input_token_cost_above_1hr_above_200k_tokens="12",
        output_cost_per_token_above_272k_tokens_ultrafast="99",
    )
    found = rows({"acme.m": entry("3", "15", **more), "bedrock/eu-west-2/acme.m": entry("4", "16")}, "acme.m")
    assert [(row.get("when"), prices(row)) for row in found] == [
        (None, [3_000_000, 15_000_000]),
        ({"input_above": 200_000}, [6_000_000, 12_000_000]),
        ({"tier": "batch"}, [1_100_000]),
        ({"tier": "flex"}, [1_000_000, 7_500_000]),
        ({"tier": "priority"}, [500_000]),
        ({"tier": "ultrafast", "input_above": 272_000}, [99_000_000]),
        ({"region": "eu-west-2"}, [4_000_000, 16_000_000]),
    ]


def units(litellm: dict[str, Any], model: str) -> list[tuple[Any, ...]]:
    found = made(litellm).table["models"][model]["units"]
    return [(unit["kind"], unit.get("detail"), unit["pico_usd"]) for unit in found]


def test_other_units() -> None:
    image = {"litellm_provider": "bedrock", "mode": "image_generation", "output_cost_per_image": Decimal("0.04")}
    sizes = dict.fromkeys(("acme.i", "512-x-512/50-steps/acme.i", "max-x-max/max-steps/bedrock/acme.i"), image)
    assert units(sizes, "acme.i") == [
        ("image", None, 4 * 10**10),
        ("image", "512x512/50-steps", 4 * 10**10),
        ("image", "max/max-steps", 4 * 10**10),
    ]
    rerank = entry("0.0", "0.0", mode="rerank", input_cost_per_query=Decimal("0.002"))
    assert units({"acme.r": rerank}, "acme.r") == [("search_unit", None, 2 * 10**9)]
    media = {
        "input_cost_per_query": Decimal("0.00007"),
        "input_cost_per_video_per_second": Decimal("0.0007"),
        "input_cost_per_audio_per_second": Decimal("0.00014"),
        "input_cost_per_image": Decimal("0.0001"),
    }
    embed = made({"acme.e": entry(None, "0.0", mode="embedding", **media)}).table["models"]["acme.e"]
    assert "rows" not in embed
    assert [unit["kind"] for unit in embed["units"]] == [
        *("input_audio_second", "input_image", "input_video_second", "request")
    ]
    sizes_of_search = ("low", "medium", "high")
    search = {f"search_context_size_{size}": Decimal("0.01") for size in sizes_of_search}
    chat = entry("1", "2", search_context_cost_per_query=search)
    assert units({"acme.c": chat}, "acme.c") == [("server_tool_request", "web_search", 10**10)]
    search["search_context_size_high"] = Decimal("0.02")
    assert units({"acme.c": chat}, "acme.c")[0] == ("server_tool_request", "web_search/high", 2 * 10**10)
    policies = {"contentPolicyUnits": Decimal("0.00015"), "contentPolicyImageUnits": Decimal("0.00075"), "w": 0}
    guardrails = {"litellm_provider": "bedrock", "mode": "guardrail", "guardrail_cost_per_unit": policies}
    assert units({"bedrock/guardrails": guardrails}, "amazon.bedrock-guardrails") == [
        ("guardrail_image_unit", "contentPolicyImageUnits", 75 * 10**7),
        ("guardrail_text_unit", "contentPolicyUnits", 15 * 10**7),
        ("guardrail_text_unit", "w", 0),
    ]


def test_ids_of_the_mantle_endpoint_count_where_the_runtime_has_none() -> None:
    both = {
        "acme.m": entry("1", "2"),
        "bedrock_mantle/acme.m": entry("3", "4"),
        "bedrock_mantle/eu-west-1/acme.m": entry("5", "6"),
        "bedrock_mantle/acme.short": entry("7", "8"),
    }
    given = {"acme.short": "acme.m"}
    assert [prices(row)[0] for row in rows(both, "acme.m", aliases=given)] == [1_000_000, 5_000_000]
    assert prices(rows(both, "acme.short")[0]) == [7_000_000, 8_000_000]


def test_coverage_counts_models_that_have_a_price() -> None:
    built = made(
        {
            "acme.m": entry("1", "2"),
            "bedrock/us-east-1/6-month-commitment/acme.m": {**entry(None, None), "input_cost_per_second": 1},
            "bedrock/*/1-month-commitment/acme.n": {**entry(None, None), "input_cost_per_second": 1},
            "us.acme.m": entry("1", None),
            "bedrock/claude_platform/claude": entry("1", "2"),
            "bedrock/guardrails": entry(None, None, mode="guardrail"),
        }
    )
    assert len(built.measured) == 5
    assert [key for key, _ in built.missed] == ["bedrock/*/1-month-commitment/acme.n", "bedrock/claude_platform/claude"]


@pytest.mark.parametrize("output", [None, "0.0"])
def test_embeddings_have_no_output(output: str | None) -> None:
    [row] = rows({"acme.embed": entry("0.02", output, mode="embedding")}, "acme.embed")
    assert prices(row)[:2] == [20_000, 0]


@pytest.mark.parametrize(
    ("model_id", "since"),
    [
        ("acme.claude-20250929-v1:0", "2025-09-29"),
        ("acme.claude-20250929", "2025-09-29"),
        ("acme.claude-20251399-v1:0", "2023-09-28"),
        ("acme.qwen-2507-v1:0", "2023-09-28"),
        ("acme.m", "2023-09-28"),
    ],
)
def test_the_first_day_of_a_price(model_id: str, since: str) -> None:
    [row] = rows({f"us.{model_id}": entry("1", "2")}, model_id)
    assert row["from"] == since


def test_in_region_is_not_sold_at_the_global_price() -> None:
    both = {
        "acme.m": entry("3", "15", "0.3", **writes("3.75", "6")),
        "us.acme.m": entry("3.3", "16.5", "0.33", **writes("4.125", "6.6")),
        "global.acme.m": entry("3", "15", "0.3", **writes("3.75", "6")),
    }
    bare, worldwide, us = rows(both, "acme.m")
    assert [row["profile"] for row in (bare, worldwide, us)] == [None, "global", "us"]
    assert prices(bare) == prices(us) == [3_300_000, 16_500_000, 330_000, 4_125_000, 6_600_000]
    assert prices(worldwide)[0] == 3_000_000
    assert "1.10 x" in bare["note"]
    assert "note" not in us


def test_all_that_the_bare_id_costs_is_corrected() -> None:
    def tiers(factor: str) -> dict[str, Any]:
        return per_million(input_cost_per_token_flex=factor, input_cost_per_token_above_200k_tokens="9")

    search = {"search_context_cost_per_query": {"search_context_size_low": Decimal("0.01")}}
    both = {"acme.m": entry("1", "2", **tiers("0.5"), **search), "us.acme.m": entry("1.1", "2.2", **tiers("0.55"))}
    found = [row for row in rows(both, "acme.m") if row["profile"] is None]
    assert [prices(row)[0] for row in found] == [1_100_000, 9_000_000, 550_000]
    assert units(both, "acme.m") == [("server_tool_request", "web_search", 10**10)]


@pytest.mark.parametrize("us", [("1", "2"), ("1.3", "2.6"), ("1.1", "2")])
def test_other_differences_are_left_alone(us: tuple[str, str]) -> None:
    bare, _ = rows({"acme.m": entry("1", "2"), "us.acme.m": entry(*us)}, "acme.m")
    assert prices(bare)[:2] == [1_000_000, 2_000_000]
    assert "note" not in bare


@pytest.mark.parametrize(
    ("model_id", "found", "reason"),
    [
        ("bedrock/us-east-1/1-month-commitment/acme.m", entry("1", "2"), "provisioned throughput"),
        ("bedrock/claude_platform/claude-opus-5", entry("1", "2"), "another service"),
        ("acme.m@20251001", entry("1", "2"), "not a Bedrock model id"),
        ("claude-sonnet", entry("1", "2"), "not a Bedrock model id"),
        ("acme.m", entry("1", "2", mode="realtime"), "mode realtime"),
        ("acme.m", entry(None, None, mode="image_generation"), "no price of anything"),
        ("acme.m", entry(None, None), "no price for input tokens"),
        ("acme.m", entry(None, "2"), "no price for input tokens"),
        ("acme.m", entry("0", "2"), "no price for input tokens"),
        ("acme.m", entry("1", None), "no price for output tokens"),
        ("acme.m", entry("1", "0"), "no price for output tokens"),
        ("acme.m", entry(None, "0", mode="embedding"), "no price of anything"),
        ("acme.m", entry("1", "2.0000001"), "not a whole number of pico-USD"),
        ("acme.m", entry("1", "2", "0.00000005"), "not a whole number of pico-USD"),
        ("acme.m", entry("1", "2", **writes("-1")), "negative"),
    ],
)
def test_what_is_left_out_is_reported(model_id: str, found: dict[str, Any], reason: str) -> None:
    built = made({model_id: found, "acme.fine": entry("1", "2")})
    assert list(built.table["models"]) == ["acme.fine"]
    [(name, why)] = built.left_out
    assert name == model_id
    assert reason in why


def test_other_providers_and_comments_are_not_mentioned() -> None:
    built = made({"gpt": {**entry("1", "2"), "litellm_provider": "openai"}, "sample_spec": {}, "comment": "text"})
    assert built.table["models"] == {}
    assert built.left_out == []


def test_the_supplement_adds_corrects_dates_and_drops() -> None:
    hand = {"source": "hand", "output": 20}
    built = made(
        {"acme.m": entry("1", "2"), "us.acme.m": entry("4", "5"), "acme.wrong": entry("1", "2")},
        models={
            "acme.m": {
                "rows": [
                    {**hand, "profile": None, "input": 10, "note": "corrected"},
                    {**hand, "profile": "us", "input": 12, "from": "2026-01-01", "cache_read": 3},
                ]
            },
            "acme.retired-20240307": {"rows": [{**hand, "profile": None, "input": 10, "cache_write_1h": 70}]},
        },
        effective={"us.acme.m": "2026-01-15"},
        drop={"acme.wrong": "no such model"},
        aliases={"acme.retired": "acme.retired-20240307"},
    )
    models = built.table["models"]
    assert [(r["profile"], r["from"], r["source"], prices(r), r.get("note")) for r in models["acme.m"]["rows"]] == [
        (None, "2023-09-28", "hand", [10, 20], "corrected"),
        ("us", "2026-01-01", "hand", [12, 20, 3], None),
        ("us", "2026-01-15", "litellm", [4_000_000, 5_000_000], None),
    ]
    [retired] = models["acme.retired-20240307"]["rows"]
    assert (retired["from"], prices(retired)) == ("2024-03-07", [10, 20, 70])
    assert built.left_out == [("acme.wrong", "no such model")]
    assert built.table["aliases"] == {"acme.retired": "acme.retired-20240307"}


@pytest.mark.parametrize(
    "broken",
    [
        {"models": {"acme.m": {"rows": [{"profile": None, "source": "nobody", "input": 1, "output": 1}]}}},
        {"models": {"acme.m": {"rows": [{"profile": None, "source": "hand", "input": 1, "output": 1, "cost": 1}]}}},
        {"models": {"us.acme.m": {"rows": [{"profile": None, "source": "hand", "input": 1, "output": 1}]}}},
        {"models": {"acme.m": {"rows": [{"profile": None, "source": "hand", "input": 1}]}}},
        {"models": {"acme.m": {"rows": [{"profile": None, "source": "hand", "input": 1.5, "output": 1}]}}},
        {"models": {"acme.m": {"rows": [{"profile": None, "source": "hand", "input": 1, "output": 1, "from": "x"}]}}},
        {"aliases": {"acme.fine": "acme.fine"}},
        {"limits": {"acme.other": {"max_output_tokens": 5}}},
        {"limits": {"acme.fine": {"max_tokens": 5}}},
        {"limits": {"acme.fine": {"max_output_tokens": "5"}}},
        {"aliases": {"acme.other": "acme.unknown"}},
    ],
)
def test_a_mistake_in_the_supplement_is_an_error(broken: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        made({"acme.fine": entry("1", "2")}, **broken)


def limits(litellm: dict[str, Any], **supplement: Any) -> Any:
    return made(litellm, **supplement).table["models"]["acme.m"].get("limits")


def per_million(**usd: str) -> dict[str, Decimal]:
    return {name: Decimal(price).scaleb(-6) for name, price in usd.items()}


def test_limits_are_the_most_that_any_profile_has() -> None:
    both = {
        "acme.m": entry("1", "2", max_input_tokens=100, max_output_tokens=8),
        "us.acme.m": entry("1", "2", max_input_tokens=128, max_output_tokens=4),
    }
    assert limits(both) == {"context_window_tokens": 128, "max_output_tokens": 8}
    assert limits({"acme.m": entry("1", "2")}) is None
    assert limits({"acme.m": entry("1", None, mode="embedding", max_output_tokens=9)}) == {"max_output_tokens": 0}


def test_surcharges_are_percentages_of_the_plain_price() -> None:
    long = per_million(
        input_cost_per_token_above_200k_tokens="6",
        output_cost_per_token_above_200k_tokens="22.5",
        cache_creation_input_token_cost_above_1hr_above_200k_tokens="12.03",
        cache_read_input_token_cost_above_200k_tokens="1",  # no plain price to compare it with
        output_cost_per_token_above_200k_tokens_ultrafast="99",
    )
    assert limits({"acme.m": entry("3", "15", **writes("3.75", "6"), **long)}) == {
        "long_context_above_tokens": 200_000,
        "long_context_input_pct": 201,
        "long_context_output_pct": 150,
    }
    lower = per_million(input_cost_per_token_above_100k_tokens="3")
    both = {"acme.m": entry("3", "15", **long), "us.acme.m": entry("3", "15", **lower)}
    assert limits(both) == {
        "long_context_above_tokens": 100_000,
        "long_context_input_pct": 200,
        "long_context_output_pct": 150,
    }
    priority = per_million(input_cost_per_token_priority="1.4", output_cost_per_token_priority="5.61")
    assert limits({"acme.m": entry("0.8", "3.2", **priority)}) == {"priority_pct": 176}


def test_the_supplement_corrects_limits() -> None:
    found = {"acme.m": entry("1", "2", max_input_tokens=100, max_output_tokens=8)}
    corrected = {"acme.m": {"context_window_tokens": 50}}
    assert limits(found, limits=corrected) == {"context_window_tokens": 50, "max_output_tokens": 8}
    text = build.dump(made(found, limits=corrected).table)
    assert '"acme.m": {"limits": {"context_window_tokens": 50, "max_output_tokens": 8}, "rows": [\n' in text


def test_the_head_of_the_table() -> None:
    head = {name: value for name, value in made({}).table.items() if name != "models"}
    assert head == {
        "schema_version": 2,
        "generated": "2026-03-01",
        "currency": "USD",
        "unit": "usd_micros_per_1m_tokens",
        "sources": {**SUPPLEMENT["sources"], "litellm": {**SUPPLEMENT["sources"]["litellm"], "sha256": "0" * 64}},
        "aliases": {},
    }


def test_the_text_does_not_depend_on_the_order_of_the_inputs() -> None:
    litellm = {"acme.a": entry("1", "2"), "us.acme.a": entry("3", "4"), "acme.b": entry("5", "6")}
    first, second = made(litellm), made(dict(reversed(litellm.items())))
    assert build.dump(first.table) == build.dump(second.table)
    assert json.loads(build.dump(first.table)) == first.table
    assert sum('"profile"' in line for line in build.dump(first.table).splitlines()) == 3


def test_building_does_not_change_the_supplement() -> None:
    before = json.dumps(SUPPLEMENT)
    made({"acme.m": entry("1", "2")})
    assert json.dumps(SUPPLEMENT) == before


def arguments(folder: Path, litellm: str, supplement: object = SUPPLEMENT) -> list[str]:
    (folder / "litellm.json").write_text(litellm)
    (folder / "supplement.json").write_text(json.dumps(supplement))
    names = {"--litellm": "litellm.json", "--supplement": "supplement.json", "--out": "out.json"}
    return [part for option, name in names.items() for part in (option, str(folder / name))]


MAP = """{
  "acme.m": {"litellm_provider": "bedrock", "mode": "chat", "input_cost_per_token": 3.3e-06,
             "output_cost_per_token": 1.65e-05},
  "acme.odd": {"litellm_provider": "bedrock", "mode": "chat", "input_cost_per_token": 3.3000000001e-06,
               "output_cost_per_token": NaN}
}"""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(arguments(tmp_path, MAP)) == 0
    written = (tmp_path / "out.json").read_bytes()
    table = json.loads(written)
    assert prices(table["models"]["acme.m"]["rows"][0])[:2] == [3_300_000, 16_500_000]
    assert list(table["models"]) == ["acme.m"]
    report = capsys.readouterr().out
    assert "1 models, 1 rows" in report
    assert "left out, 0.0000033000000001 USD is not a whole number of pico-USD: 1\n  acme.odd" in report
    assert build.main(arguments(tmp_path, MAP)) == 0
    assert (tmp_path / "out.json").read_bytes() == written


@pytest.mark.parametrize(("litellm", "supplement"), [("{", SUPPLEMENT), ("{}", {})])
def test_the_command_writes_nothing_from_broken_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], litellm: str, supplement: object
) -> None:
    assert build.main(arguments(tmp_path, litellm, supplement)) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out.json").exists()


def test_the_command_names_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--litellm", str(tmp_path / "none.json"), "--out", str(tmp_path / "out.json")]) == 1
    assert "none.json" in capsys.readouterr().err

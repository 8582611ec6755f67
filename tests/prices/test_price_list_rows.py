"""Rows of the AWS Price List: what each is the price of, and what is left out by name."""

import itertools
from datetime import date
from typing import Any

import pytest
from prices.price_list_products import BEDROCK, HAIKU, MARKETPLACE, REAL, SERVICE, TITAN, edition, nova, product
from prices.price_list_server import Product

from bedrock_budget.core.price_facts import PriceFact
from bedrock_budget.prices import bundled
from bedrock_budget.prices.price_list_names import NAMES, model_named, normal
from bedrock_budget.prices.price_list_rows import KNOWN_SINCE, NotMapped, chosen, offer_row, rows_of

NOVA, GLM, HAIKU_4_5 = "amazon.nova-pro-v1:0", "zai.glm-5", "anthropic.claude-haiku-4-5-20251001-v1:0"


def long_above(model: str) -> int | None:
    return {"anthropic.claude-sonnet-4-5-20250929-v1:0": 200_000, "openai.gpt-5.6-luna": 272_000}.get(model)


def fact_of(found: Product, code: str = BEDROCK) -> PriceFact:
    (row,) = rows_of(code, found, long_above)
    return row.fact


def brief(found: Product, code: str = BEDROCK) -> tuple[Any, ...]:
    """Profile, tier, latency, threshold, kind and price."""
    fact = fact_of(found, code)
    return fact.profile, fact.tier, fact.latency, fact.above_tokens, fact.kind, fact.pico_usd


def refusal(found: Product, code: str = BEDROCK) -> NotMapped:
    with pytest.raises(NotMapped) as caught:
        rows_of(code, found, long_above)
    return caught.value


@pytest.mark.parametrize(
    ("found", "expected"),
    list(
        zip(
            REAL,
            [
                (NOVA, "ap-northeast-1", "default", "input", 960_000),
                (NOVA, "ap-northeast-1", "batch", "input", 480_000),
                (NOVA, "ap-northeast-1", "default", "cache_read", 240_000),
                (GLM, "ap-northeast-1", "flex", "input", 600_000),
                ("anthropic.claude-3-haiku-20240307-v1:0", "us-east-1", "default", "input", 250_000),
            ],
            strict=True,
        )
    ),
)
def test_real_rows(found: Product, expected: tuple[Any, ...]) -> None:
    fact = fact_of(found)
    assert (fact.model, fact.region, fact.tier, fact.kind, fact.pico_usd) == expected
    assert (fact.profile, fact.latency, fact.above_tokens, fact.detail) == (None, "standard", 0, "")
    assert fact.since == KNOWN_SINCE  # they were trimmed: the real ones carry a date


def test_real_marketplace_rows() -> None:
    facts = [fact_of(each, MARKETPLACE) for each in HAIKU]
    assert {fact.model for fact in facts} == {HAIKU_4_5}
    assert [(fact.profile, fact.kind, fact.pico_usd) for fact in facts] == [
        (None, "input", 1_100_000),
        (None, "output", 5_500_000),
        ("global", "input", 1_000_000),
        ("global", "output", 5_000_000),
        ("global", "cache_read", 100_000),
        ("global", "cache_write_5m", 1_250_000),
        ("global", "cache_write_1h", 2_000_000),
    ]


def test_titan_is_found_by_its_own_attribute_or_by_the_usage_type() -> None:
    assert fact_of(TITAN)[:1] == ("amazon.titan-embed-text-v2:0",)
    assert fact_of(TITAN).pico_usd == 20_000
    del TITAN["product"]["attributes"]["titanModel"]
    try:
        assert fact_of(TITAN).model == "amazon.titan-embed-text-v2:0"
    finally:
        TITAN["product"]["attributes"]["titanModel"] = "TitanEmbeddingsV2-Text-input"


# -- pitfalls: names


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Nova2.0Lite", "amazon.nova-2-lite-v1:0"),
        ("Claude4.5Sonnet", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("Claude Sonnet 4.5 (Amazon Bedrock Edition)", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("Claude 3.5 Sonnet v2", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("Claude 3.5 Sonnet", "anthropic.claude-3-5-sonnet-20240620-v1:0"),
        ("Llama 3.1 70B Latency Optimized", "meta.llama3-1-70b-instruct-v1:0"),
        ("R1", "deepseek.r1-v1:0"),
        ("Cohere Embed 4 Model", "cohere.embed-v4:0"),
        ("zai.glm5", "zai.glm-5"),
        ("Command R+", "cohere.command-r-plus-v1:0"),
        ("Command R", "cohere.command-r-v1:0"),
        ("Claude Sonnet", None),
        ("", None),
    ],
)
def test_names(name: str, model: str | None) -> None:
    assert model_named(name) == model


def test_no_name_stands_for_two_models_and_every_model_is_one() -> None:
    names = [(normal(name), model) for model, names in NAMES.items() for name in names]
    assert len(NAMES) > 100
    for name, model in names:
        assert model_named(name) == model, name
    assert set(NAMES) - set(bundled().models()) == set()


def test_the_usage_type_tells_no_marketplace_models_apart() -> None:
    one, other = (edition("1", "USE1_InputTokenCount-Units", name) for name in ("Claude Opus 5", "Palmyra X5"))
    assert one["product"]["attributes"]["usagetype"] == other["product"]["attributes"]["usagetype"]
    assert fact_of(one, MARKETPLACE).model == "anthropic.claude-opus-5"
    assert fact_of(other, MARKETPLACE).model == "writer.palmyra-x5-v1:0"


def test_an_unknown_name_is_unmapped_and_named() -> None:
    found = refusal(product("1", "USE1-Brandnew-input-tokens", model="Brand New 1"))
    assert not found.known
    assert found.name == "Brand New 1: no model id is known for this name"


# -- pitfalls: conditions


@pytest.mark.parametrize(
    "batch",
    [
        nova("0.0004", "USE1-NovaPro-input-tokens-batch"),
        nova("0.0004", "USE1-NovaPro-input-tokens", feature="Batch Inference"),
        nova("0.0004", "USE1-NovaPro-input-tokens", featuretype="BatchInference"),
        nova("0.0004", "USE1-NovaPro-input-tokens", service_tier="batch"),
        nova("0.0004", "USE1-NovaPro-input-tokens", inferenceType="Input tokens batch"),
    ],
)
def test_batch_may_be_said_in_any_place(batch: Product) -> None:
    assert brief(batch) == (None, "batch", "standard", 0, "input", 400_000)


@pytest.mark.parametrize(
    ("usagetype", "expected"),
    [
        ("USE1_InputTokenCount_Batch-Units", (None, "batch", "standard", 0, "input", 1_100_000)),
        ("USE1_InputTokenCount_Global_Batch-Units", ("global", "batch", "standard", 0, "input", 1_100_000)),
        ("USE1_MillionBatchInputTokens-Units", (None, "batch", "standard", 0, "input", 1_100_000)),
        ("USE1_CacheReadInputTokenCount-Units", (None, "default", "standard", 0, "cache_read", 1_100_000)),
        ("USE1_CacheWriteInputTokenCount-Units", (None, "default", "standard", 0, "cache_write_5m", 1_100_000)),
        ("USE1_CacheWrite1hInputTokenCount-Units", (None, "default", "standard", 0, "cache_write_1h", 1_100_000)),
        ("USE1_InputTokenCount_LatencyOptimized-Units", (None, "default", "optimized", 0, "input", 1_100_000)),
        ("USE1_input_tokens_global_standard-Units", ("global", "default", "standard", 0, "input", 1_100_000)),
        (
            "USE1_cache_write_tokens_1h_global_standard-Units",
            ("global", "default", "standard", 0, "cache_write_1h", 1_100_000),
        ),
        (
            "USE1_cache_write_tokens_5m_standard-Units",
            (None, "default", "standard", 0, "cache_write_5m", 1_100_000),
        ),
    ],
)
def test_marketplace_usage_types(usagetype: str, expected: tuple[Any, ...]) -> None:
    assert brief(edition("1.1", usagetype), MARKETPLACE) == expected


@pytest.mark.parametrize(
    ("usagetype", "expected"),
    [
        ("USE1-NovaPro-input-tokens-flex", (None, "flex", "standard", 0, "input", 800_000)),
        ("USE1-NovaPro-input-tokens-priority", (None, "priority", "standard", 0, "input", 800_000)),
        ("USE1-NovaPro-input-tokens-latency-optimized", (None, "default", "optimized", 0, "input", 800_000)),
        ("USE1-NovaPro-input-tokens-cross-region-global", ("global", "default", "standard", 0, "input", 800_000)),
        ("USE1-NovaPro-input-tokens-cross-region-global-batch", ("global", "batch", "standard", 0, "input", 800_000)),
        ("USE1-NovaPro-cache-read-input-token-count", (None, "default", "standard", 0, "cache_read", 800_000)),
        ("USE1-NovaPro-cache-write-1h-input-token-count", (None, "default", "standard", 0, "cache_write_1h", 800_000)),
    ],
)
def test_usage_types(usagetype: str, expected: tuple[Any, ...]) -> None:
    assert brief(nova("0.0008", usagetype)) == expected


def test_a_usage_type_may_say_everything() -> None:
    found = product("0.0001", "USE1-openai.gpt-5.6-luna-mantle-cache-write-tokens-5m-long-ctx-flex")
    assert fact_of(found).model == "openai.gpt-5.6-luna"
    assert brief(found) == (None, "flex", "standard", 272_000, "cache_write_5m", 100_000)


def test_output_may_be_called_response_in_the_description_alone() -> None:
    text = "AWS Marketplace software usage|us-east-1|Million Response Tokens Regional"
    assert brief(edition("5.5", "USE1_TokenCount-Units", description=text), MARKETPLACE)[4:] == ("output", 5_500_000)


def test_latency_optimized_may_be_part_of_the_name() -> None:
    found = product("0.00072", "USE1-x-input-tokens", model="Llama 3.1 70B Latency Optimized")
    assert brief(found) == (None, "default", "optimized", 0, "input", 720_000)


def test_long_context_needs_a_known_threshold() -> None:
    usagetype = "USE1_InputTokenCount_LongContext-Units"
    assert brief(edition("6.6", usagetype, "Claude Sonnet 4.5"), MARKETPLACE)[3] == 200_000
    assert not refusal(edition("6.6", usagetype, "Claude Opus 5"), MARKETPLACE).known
    found = product(
        "0.0066", "USE1-Claude4.5Sonnet-output-tokens-long-context-cross-region-global", model="Claude 4.5 Sonnet"
    )
    assert brief(found, SERVICE)[:5] == ("global", "default", "standard", 200_000, "output")


def test_a_tier_that_no_rule_knows_is_kept_as_it_is() -> None:
    assert brief(nova("0.002", "USE1-NovaPro-input-tokens", service_tier="ultrafast"))[1] == "ultrafast"
    assert brief(nova("0.002", "USE1-NovaPro-input-tokens", service_tier="Standard"))[1] == "default"


def test_two_tiers_in_one_row_are_not_guessed_at() -> None:
    assert not refusal(nova("0.002", "USE1-NovaPro-input-tokens-flex", feature="Batch Inference")).known


# -- pitfalls: units and money


@pytest.mark.parametrize(
    ("found", "code", "name"),
    [
        (nova("1", "USE1-NovaPro-x", unit="TextUnit"), BEDROCK, "not priced by the token: TextUnit"),
        (nova("1", "USE1-NovaPro-x", unit="image"), BEDROCK, "not priced by the token: image"),
        (nova("1", "USE1-NovaPro-x", unit="Requests"), BEDROCK, "not priced by the token: Requests"),
        (nova("1", "USE1-NovaPro-x", unit="Images Processed"), BEDROCK, "not priced by the token: Images Processed"),
        (nova("1", "USE1-NovaPro-x", unit="hour"), BEDROCK, "not priced by the token: hour"),
        (nova("1", "USE1-NovaPro-x", unit="Model-month"), BEDROCK, "not priced by the token: Model-month"),
        (
            edition("1", "APS7_Reserved_1Month_InputTPM_Geo-Units", unit="Units"),
            MARKETPLACE,
            "reserved or provisioned capacity: not a token rate",
        ),
        (
            edition("1", "USE1_InputTPM-x", unit="1KTPMHour"),
            MARKETPLACE,
            "reserved or provisioned capacity: not a token rate",
        ),
        (edition("1", "USE1_created_image-Units", unit="Units"), MARKETPLACE, "not priced by the token: Units"),
        (
            nova("1", "USE1-NovaPro-input-tokens-custom-model"),
            BEDROCK,
            "custom models: not the price of a foundation model",
        ),
        (
            product("0.0034", "USE1-NovaSonic-speech-input-tokens", model="Nova Sonic"),
            BEDROCK,
            "speech, audio or video tokens: not metered",
        ),
        (
            edition("1", "USE1_InputTokenCount-Units", "Claude 2.1 (100K)"),
            MARKETPLACE,
            "Claude 2.1 (100K) (Amazon Bedrock Edition): legacy listing",
        ),
        (nova("0.0000000000", "USE1-NovaPro-input-tokens"), BEDROCK, "Nova Pro: listed as free, which no token is"),
    ],
)
def test_what_is_no_token_price_is_skipped_by_name(found: Product, code: str, name: str) -> None:
    skipped = refusal(found, code)
    assert (skipped.name, skipped.known) == (name, True)


@pytest.mark.parametrize("unit", ["1M tokens", "Units"])
def test_marketplace_units_are_millions(unit: str) -> None:
    assert brief(edition("1.1", "USE1_InputTokenCount-Units", unit=unit), MARKETPLACE)[5] == 1_100_000


def test_an_unknown_unit_is_unmapped() -> None:
    assert not refusal(nova("1", "USE1-NovaPro-input-tokens", unit="bushels")).known
    assert not refusal(nova("1", "USE1-NovaPro-input-tokens", unit="Units")).known


def test_prices_are_exact_or_refused() -> None:
    assert fact_of(nova("0.0000000010", "USE1-NovaPro-input-tokens")).pico_usd == 1
    for price in ("0.0000000001", "a dollar", "-0.0008", "NaN", ""):
        assert not refusal(nova(price, "USE1-NovaPro-input-tokens")).known


def test_other_currencies_are_refused_by_name() -> None:
    found = refusal(product({"EUR": "0.0008"}, "EUSC1-NovaPro-input-tokens", model="Nova Pro"))
    assert found.name == "Nova Pro: priced in EUR, not in USD"


def test_dates_are_those_of_the_terms() -> None:
    assert fact_of(nova("1", "USE1-NovaPro-input-tokens", since="2026-08-01T00:00:00Z")).since == date(2026, 8, 1)


def test_a_region_may_be_in_the_usage_type_alone() -> None:
    assert fact_of(nova("1", "APS3-NovaPro-input-tokens", region=None)).region == "ap-south-1"
    assert not refusal(nova("1", "XYZ9-NovaPro-input-tokens", region=None)).known


# -- pitfalls: several rows for one thing


def test_of_twins_one_is_chosen_whatever_their_order() -> None:
    gemma = [
        product(price, usagetype, model="Gemma 3 27B", inferenceType="Input tokens", sku=sku)
        for price, usagetype, sku in [
            ("0.00023", "USE1-Gemma3-27B-input-tokens", "A"),
            ("0.00023", "USE1-google.gemma-3-27b-it-mantle-input-tokens-standard", "B"),
            ("0.00076", "USE1-google.gemma-3-27b-it-mantle-input-tokens", "C"),
            ("0.00019", "USE1-Gemma3-27B-input-tokens-x", "D"),
        ]
    ]
    for order in itertools.permutations(gemma):
        rows = [row for each in order for row in rows_of(BEDROCK, each, long_above)]
        kept, differing = chosen(rows)
        assert [(row.sku, row.fact.pico_usd) for row in kept] == [("A", 230_000)]
        assert differing == ["google.gemma-3-27b-it us-east-1 in-region default input"]


def test_twins_at_one_price_are_nothing_to_remark() -> None:
    twins = [
        nova("0.0008", "USE1-NovaPro-input-tokens"),
        nova("0.0008", "USE1-nova-pro-mantle-input-tokens-standard"),
    ]
    kept, differing = chosen([row for each in twins for row in rows_of(BEDROCK, each, long_above)])
    assert len(kept) == 1
    assert differing == []


def test_a_product_may_have_a_price_to_come() -> None:
    found = nova("0.0008", "USE1-NovaPro-input-tokens", sku="A")
    later = nova("0.0007", "USE1-NovaPro-input-tokens", sku="A", since="2026-12-01T00:00:00Z")
    found["terms"]["OnDemand"]["A.later"] = later["terms"]["OnDemand"]["A.T"]
    kept, _ = chosen(rows_of(BEDROCK, found, long_above))
    assert [(row.fact.since.isoformat(), row.fact.pico_usd) for row in kept] == [
        ("2026-01-01", 800_000),
        ("2026-12-01", 700_000),
    ]


# -- agreement offers


def test_offers_are_keyed_by_model_id() -> None:
    rate = {
        "dimension": "USE1_InputTokenCount",
        "price": "1.1",
        "description": "Million Input Tokens Regional",
        "unit": "Units",
    }
    fact = offer_row(HAIKU_4_5, rate, long_above).fact
    assert (fact.model, fact.region, fact.profile, fact.kind, fact.pico_usd) == (
        HAIKU_4_5,
        "us-east-1",
        None,
        "input",
        1_100_000,
    )
    with pytest.raises(NotMapped):
        offer_row(HAIKU_4_5, {**rate, "dimension": "XYZ9_InputTokenCount"}, long_above)
    listed = rows_of(MARKETPLACE, edition("1.2", "USE1_InputTokenCount-Units"), long_above)
    kept, _ = chosen([*listed, offer_row(HAIKU_4_5, rate, long_above)])
    assert [row.fact.source for row in kept] == ["aws-agreement-offer"]

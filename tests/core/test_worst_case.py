"""The most that a call can cost: literal figures, and no usage that fits the request costs more."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget.core import request_bounds as bounds
from bedrock_budget.core import worst_case
from bedrock_budget.core.pricing import Price, Prices, cost_pico_usd
from bedrock_budget.core.served import DEFAULT, Served
from bedrock_budget.core.usage import Usage
from bedrock_budget.core.worst_case import Limits, WorstCase, WorstOf

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PRICE = Price(3, 15, 1, 4, 6)  # USD micros per 1M tokens: small figures to check by hand
LIMITS = Limits(200_000, 64_000, 200_000, 200, 150)
WINDOW, MOST = 210_000, 67_200  # with the margin of lists
IMAGE = {"image": {"format": "png", "source": {"bytes": b"x"}}}


def converse(*blocks: Any, limit: int | None = 92, **more: Any) -> dict[str, Any]:
    config = {} if limit is None else {"inferenceConfig": {"maxTokens": limit}}  # 92: with the end of the answer 100
    return {"messages": [{"role": "user", "content": list(blocks)}], **config, **more}


def worst(request: dict[str, Any], model_id: str = CLAUDE, limits: Limits | None = LIMITS, **by_hand: int) -> int:
    return WorstCase(model_id, PRICE, limits, **by_hand).pico_usd(request)


PLAIN = 512 + 32 + 64  # of a request with one message of no block
TEXT = {"text": "x" * (1_000 - PLAIN - 64)}  # makes it 1,000


def test_text_costs_its_bytes_and_the_limit() -> None:
    assert worst(converse(TEXT)) == 1_000 * 3 + 100 * 15
    assert worst(converse(TEXT, limit=None)) == 1_000 * 3 + MOST * 15


def test_cache_markers_cost_the_write() -> None:
    for ttl, rate in (("5m", 4), ("1h", 6)):
        cost = worst(converse(TEXT, {"cachePoint": {"type": "default", "ttl": ttl}}))
        assert cost - 1500 == (1_000 + 64) * rate


@pytest.mark.parametrize(("model_id", "rate"), [("openai.gpt-6", 4), ("not-a-model", 4), ("meta.llama3-8b", 3)])
def test_some_models_write_to_their_cache_unasked(model_id: str, rate: int) -> None:
    assert worst(converse(TEXT), model_id) == 1_000 * rate + 1_500


def test_a_read_dearer_than_input_counts() -> None:
    price = Price(3, 15, 5, 4, 6)
    assert WorstCase(CLAUDE, price, LIMITS).pico_usd(converse(TEXT)) == 1_000 * 5 + 1_500


@pytest.mark.parametrize(
    ("request_", "cost"),
    [
        (converse(IMAGE), WINDOW * 3 + 1_500),
        (converse({"text": "x" * 500_000}), WINDOW * 3 + 1_500),
        (converse({"text": "x" * 500_000}, additionalModelRequestFields={}), WINDOW * 3 + 1_500),
        # what cannot be read may ask for anything
        ({"body": b"\xff"}, 10**6 * 12 + MOST * 22.5),
        # the long window, above the threshold: at the long rates
        (converse(IMAGE, additionalModelRequestFields={"anthropic_beta": ["context-1m"]}), 10**6 * 6 + 100 * 22.5),
        # reasoning between tool calls: the window
        (converse(TEXT, additionalModelRequestFields={"anthropic_beta": ["interleaved"]}, limit=5), None),
        (converse(TEXT, limit=10**12), 1_000 * 3 + 10**6 * 15),
    ],
)
def test_the_window_bounds_what_cannot_be_counted(request_: dict[str, Any], cost: float | None) -> None:
    if cost is None:
        assert worst(request_) >= WINDOW * 15
    else:
        assert worst(request_) == cost


class Odd(dict[str, Any]):
    """Arguments that cannot be read."""

    def __iter__(self) -> Any:
        raise RuntimeError("no")

    __contains__ = get = __iter__  # type: ignore[assignment]


def test_nothing_that_a_request_holds_raises() -> None:
    assert worst(Odd()) == 10**6 * 12 + MOST * 45 // 2
    assert worst({"messages": [Odd(a=1, b=2)]}) > WINDOW * 3
    assert worst({"body": Odd()}) == 10**6 * 12 + MOST * 45 // 2


def test_a_window_that_is_not_known() -> None:
    assert worst(converse(TEXT), limits=None) == 4_500
    assert worst(converse(TEXT, limit=None), limits=None) == 3_000 + 524_288 * 15
    tokens = PLAIN + 5 * 32  # the image's structures, and 2,000,000 besides
    assert 2_000_000 * 3 < worst(converse(IMAGE), limits=None) - 1_500 <= (2_000_000 + tokens) * 3
    assert worst(converse(TEXT, limit=10**7), limits=None) == 3_000 + (10**7 + 8) * 15
    beta = {"anthropic_beta": ["interleaved"]}
    assert worst(converse(TEXT, additionalModelRequestFields=beta), limits=None) >= 2_000_000 * 15


def test_limits_by_hand_win_as_they_are() -> None:
    assert worst(converse(IMAGE), context_window_tokens=5_000) == 5_000 * 3 + 1_500
    assert worst(converse(TEXT, limit=None), max_output_tokens=300) == 3_000 + 300 * 15
    assert worst(converse(IMAGE), context_window_tokens=300_000) == 300_000 * 6 + 100 * 15 * 3 // 2
    long = converse(IMAGE, additionalModelRequestFields={"anthropic_beta": ["context-1m"]})
    assert worst(long, context_window_tokens=5_000) == 10**6 * 6 + 100 * 15 * 3 // 2


def test_long_context_rates_from_the_threshold_on() -> None:
    limits = Limits(1_000_000, 128_000, 1_000, 500, 200)
    assert worst(converse(TEXT), limits=limits) == 4_500
    assert worst(converse({"text": TEXT["text"] + "x"}), limits=limits) == 1_001 * 15 + 100 * 30
    assert worst(converse(TEXT), limits=Limits(None, None, 999, 500, 200)) == 1_000 * 15 + 100 * 30


@pytest.mark.parametrize(
    ("listed", "model_id", "most"),
    [
        (64_000, CLAUDE, 67_200),
        (4_096, CLAUDE, 34_406),
        (8_000, "deepseek.v3-v1:0", 137_625),
        (200_000, "deepseek.v3-v1:0", 210_000),
        (8_000, "not-a-model", 137_625),
    ],
)
def test_the_most_output_where_a_request_sets_no_limit(listed: int, model_id: str, most: int) -> None:
    price = Price(0, 1, 0, 0, 0)
    assert WorstCase(model_id, price, Limits(None, listed)).pico_usd(converse(TEXT, limit=None)) == most


def test_short_windows_of_lists_are_not_believed() -> None:
    assert worst(converse(IMAGE), limits=Limits(4_096, 4_096)) == 137_625 * 3 + 1_500


@pytest.mark.parametrize(
    ("more", "limits", "pct"),
    [
        ({"serviceTier": {"type": "default"}}, LIMITS, 100),
        ({"serviceTier": {"type": "priority"}}, LIMITS, 200),
        ({"serviceTier": {"type": "priority"}}, LIMITS._replace(priority_pct=176), 176),
        ({"serviceTier": {"type": "ultrafast"}}, LIMITS, 600),
        ({"performanceConfig": {"latency": "optimized"}}, LIMITS, 200),
        ({"performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "priority"}}, LIMITS, 400),
    ],
)
def test_the_way_of_serving_that_is_asked_for(more: dict[str, Any], limits: Limits, pct: int) -> None:
    assert worst(converse(TEXT, **more), limits=limits) == 4_500 * pct // 100


def test_part_of_a_pico_rounds_up() -> None:
    limits = LIMITS._replace(priority_pct=101)
    assert worst(converse({"text": TEXT["text"] + "x"}, serviceTier={"type": "priority"}), limits=limits) == 4_549


def test_every_answer_costs() -> None:
    body = {"prompt": "", "max_tokens": 92, "num_generations": 3}
    tokens = 512 + 32
    assert worst({"body": json.dumps(body)}, "cohere.command-text-v14") == tokens * 3 + 3 * 100 * 15


def test_embeddings_have_no_output_and_a_window_for_each_of_their_contents() -> None:
    limits = Limits(512, 0)
    texts = {"texts": ["x" * 400] * 90, "input_type": "search_document"}
    assert worst({"body": json.dumps(texts)}, "cohere.embed-v3", limits) >= 90 * 400 * 3
    images = {"body": json.dumps({"images": ["x"], "image": "x"})}
    assert worst(images, "cohere.embed-v3", limits) == (512 + 32 + 2 * 537) * 3
    assert worst(images, "cohere.embed-v3", Limits(None, 0)) == (512 + 32 + 2 * 2_000_000) * 3
    assert worst(converse({"text": "x" * 10**6}), "cohere.embed-v3", limits) > 10**6 * 3
    assert worst(converse(TEXT, limit=None), "cohere.embed-v3", limits, max_output_tokens=10) > 10 * 15


def test_the_prompt_of_a_prompt_arn_is_not_in_the_request() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1"
    assert worst(converse(TEXT), arn) == WINDOW * 4 + 1_500


# -- no usage costs more

WORDS = st.text(st.characters(codec="utf-8"), max_size=60)
BLOCKS = st.one_of(
    st.builds(lambda text: {"text": text}, WORDS),
    st.sampled_from(
        [
            IMAGE,
            {"cachePoint": {"type": "default"}},
            {"cachePoint": {"type": "default", "ttl": "1h"}},
            {"document": {"format": "pdf", "name": "d", "source": {"s3Location": {"uri": "s3://b/k"}}}},
        ]
    ),
    st.builds(lambda text: {"toolResult": {"toolUseId": "i", "content": [{"json": {"a": text}}]}}, WORDS),
)
MORE = st.fixed_dictionaries(
    {},
    optional={
        "system": st.lists(st.builds(lambda text: {"text": text}, WORDS), max_size=2),
        "inferenceConfig": st.fixed_dictionaries({}, optional={"maxTokens": st.integers(1, 300_000)}),
        "serviceTier": st.sampled_from([{"type": "priority"}, {"type": "flex"}, {"type": "default"}]),
        "performanceConfig": st.just({"latency": "optimized"}),
        "additionalModelRequestFields": st.sampled_from([{"anthropic_beta": ["context-1m-2025-08-07"]}, {"top_k": 5}]),
    },
)
RATES = st.integers(0, 10**8)
PRICES = st.builds(Price, RATES, RATES, RATES, RATES, RATES)


@given(st.lists(BLOCKS, max_size=5), MORE, PRICES, st.data())
@settings(max_examples=400, deadline=None)
def test_no_usage_that_a_service_can_report_costs_more(
    blocks: list[Any], more: dict[str, Any], price: Price, data: st.DataObject
) -> None:
    """The service as it is: tokens within the text and its framing, or the true window; limits that it keeps."""
    request = converse(*blocks, limit=None, **more)
    window, most = 200_000, 64_000
    betas = more.get("additionalModelRequestFields", {}).get("anthropic_beta")
    if betas:
        window = 1_000_000
    text = "".join(block["text"] for block in [*blocks, *more.get("system", [])] if "text" in block)
    text += "".join(json.dumps(block["toolResult"]) for block in blocks if "toolResult" in block)
    others = any("image" in block or "document" in block for block in blocks)
    tokens = data.draw(st.integers(0, window if others else len(text.encode()) + 250), label="input tokens")
    kinds = [str(block["cachePoint"].get("ttl")) for block in blocks if "cachePoint" in block]
    read = data.draw(st.integers(0, tokens), label="read")
    short = data.draw(st.integers(0, tokens - read), label="written") if kinds else 0
    long = data.draw(st.integers(0, short), label="written for 1 h") if "1h" in kinds else 0
    limit = more.get("inferenceConfig", {}).get("maxTokens", most)
    answer = data.draw(st.integers(0, limit), label="output tokens")
    usage = Usage(tokens - read - short, answer, read, short - long, long)
    cost = cost_pico_usd(usage, price)
    if tokens > 200_000:
        plain = cost_pico_usd(usage._replace(output_tokens=0), price)
        cost = plain * 2 + answer * price.output * 3 // 2
    if more.get("serviceTier") == {"type": "priority"}:
        cost = cost * 183 // 100
    if "performanceConfig" in more:
        cost = cost * 5 // 4
    assert cost <= WorstCase(CLAUDE, price, LIMITS).pico_usd(request)


def test_the_constants_are_above_what_was_seen() -> None:
    assert worst_case.PRIORITY_PCT >= 183
    assert bounds.PREAMBLE_TOKENS > 804


def test_the_worst_of_several_models_is_that_of_the_dearest() -> None:
    request = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
    price = Price(1, 2, 1, 1, 1)
    short, long = (
        WorstCase("amazon.nova-micro-v1:0", price, max_output_tokens=tokens, context_window_tokens=200_000)
        for tokens in (10, 20)
    )
    assert WorstOf([short, long]).pico_usd(request) == long.pico_usd(request) > short.pico_usd(request)


RATE = st.integers(min_value=1, max_value=10**6)
PRICES = st.builds(Price, RATE, RATE, RATE, RATE, RATE)
WAYS = st.sampled_from([DEFAULT, Served("flex"), Served("priority"), Served("ultra"), Served(latency="optimized")])
BOOKS = st.builds(
    lambda plain, variants: Prices(*plain.rates(), variants=variants),
    PRICES,
    st.dictionaries(WAYS, st.dictionaries(st.sampled_from([500, 900, 5_000]), PRICES, min_size=1), max_size=3),
)


@settings(max_examples=200)
@given(
    BOOKS, st.sampled_from(["default", "flex", "priority", "ultra"]), st.booleans(), st.integers(0, 6_000), st.data()
)
def test_no_variant_that_was_asked_for_costs_more(
    prices: Prices, tier: str, optimized: bool, size: int, data: st.DataObject
) -> None:
    latency = "optimized" if optimized else "standard"
    request = converse({"text": "x" * size}, serviceTier={"type": tier}, performanceConfig={"latency": latency})
    worst_case = WorstCase("openai.gpt-6", prices, Limits(100_000, 4_000)).pico_usd(request)
    plain_prompt = size + PLAIN  # the most that it can be
    tokens = data.draw(st.integers(0, plain_prompt))
    read = data.draw(st.integers(0, tokens))
    usage = Usage(tokens - read, data.draw(st.integers(0, 100)), read)
    for served in (DEFAULT, Served(tier), Served(latency=latency), Served(tier, latency)):
        assert cost_pico_usd(usage, prices.served(served, tokens).price) <= worst_case
    assert prices.cost(usage) <= worst_case


def test_a_window_that_ends_at_the_threshold_is_never_priced_above_it() -> None:
    prices = Prices(*PRICE.rates(), variants={DEFAULT: {200_000: Price(6, 30, 2, 8, 12)}})
    assert WorstCase(CLAUDE, prices, LIMITS).pico_usd(converse(IMAGE)) == WINDOW * 3 + 1_500
    lower = Prices(*PRICE.rates(), variants={DEFAULT: {500: Price(6, 30, 2, 8, 12)}})
    assert WorstCase(CLAUDE, lower, LIMITS).pico_usd(converse(TEXT)) == 1_000 * 6 + 100 * 30
    assert WorstCase(CLAUDE, lower).pico_usd(converse(TEXT)) == 1_000 * 6 + 100 * 30

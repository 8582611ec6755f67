"""Where responses say their usage: headers, bodies of each family, Converse, invocation metrics, and nonsense.

Field names: the Bedrock runtime's service model and the request and response pages of the model families.
"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget.core.usage import (
    NOTHING,
    Counts,
    Usage,
    counts_from_body,
    counts_from_headers,
    counts_from_metrics,
    from_token_usage,
    usage_from_headers,
)

HUGE = 10**400  # JSON knows no largest number

TOKEN_USAGES = [
    # what every Converse response has
    ({"inputTokens": 12, "outputTokens": 34, "totalTokens": 46}, Usage(12, 34)),
    ({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}, Usage()),  # the guardrail blocked the input
    # prompt caching: input excludes cached tokens, and may be 0
    (
        {"inputTokens": 3, "outputTokens": 5, "totalTokens": 1008, "cacheReadInputTokens": 1000},
        Usage(3, 5, 1000),
    ),
    (
        {"inputTokens": 0, "outputTokens": 5, "cacheReadInputTokens": 1000, "cacheWriteInputTokens": 0},
        Usage(0, 5, 1000),
    ),
    (
        {"inputTokens": 3, "outputTokens": 5, "cacheReadInputTokens": 0, "cacheWriteInputTokens": 900},
        Usage(3, 5, 0, 900),  # of unknown age: 5 minutes is the default
    ),
    (
        {"inputTokens": 3, "outputTokens": 5, "cacheWriteInputTokens": 900, "cacheDetails": []},
        Usage(3, 5, 0, 900),
    ),
    (
        {
            "inputTokens": 3,
            "outputTokens": 5,
            "cacheReadInputTokens": 7,
            "cacheWriteInputTokens": 900,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 600}, {"ttl": "5m", "inputTokens": 300}],
        },
        Usage(3, 5, 7, 300, 600),
    ),
    (
        {
            "inputTokens": 3,
            "outputTokens": 5,
            "cacheWriteInputTokens": 900,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 500}, {"ttl": "1h", "inputTokens": 400}],
        },
        Usage(3, 5, 0, 0, 900),
    ),
    (
        {
            "inputTokens": 3,
            "outputTokens": 5,
            "cacheWriteInputTokens": 900,
            "cacheDetails": [{"ttl": "5m", "inputTokens": 900}],
        },
        Usage(3, 5, 0, 900),
    ),
    # the total and its parts disagree: nothing is dropped
    (
        {
            "inputTokens": 3,
            "outputTokens": 5,
            "cacheWriteInputTokens": 100,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 600}],
        },
        Usage(3, 5, 0, 0, 600),
    ),
    (
        {
            "inputTokens": 3,
            "outputTokens": 5,
            "cacheWriteInputTokens": 900,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 100}],
        },
        Usage(3, 5, 0, 800, 100),
    ),
    # members that the service model does not know
    (
        {"inputTokens": 1, "outputTokens": 2, "serverToolUsage": {}, "cacheReadInputTokenCount": 9},
        Usage(1, 2),
    ),
    # half of it
    ({"inputTokens": 30}, Usage(30, 0)),
    ({"outputTokens": 40}, Usage(0, 40)),
    ({"inputTokens": None, "outputTokens": 40}, Usage(0, 40)),
    ({"inputTokens": 3, "outputTokens": 5, "cacheReadInputTokens": None}, Usage(3, 5)),
    ({"inputTokens": 3, "outputTokens": 5, "cacheReadInputTokens": None, "cacheWriteInputTokens": None}, Usage(3, 5)),
    # nothing to count by
    (None, None),
    ({}, None),
    ([], None),
    ("usage", None),
    ({"totalTokens": 46}, None),
    ({"cacheReadInputTokens": 46}, None),
    ({"inputTokens": None, "outputTokens": None}, None),
    # nonsense counts as absent, fractions round up
    ({"inputTokens": -1, "outputTokens": 5}, Usage(0, 5)),
    ({"inputTokens": 3, "outputTokens": -5}, Usage(3, 0)),
    ({"inputTokens": 3, "outputTokens": 5, "cacheReadInputTokens": -7}, Usage(3, 5)),
    ({"inputTokens": -1, "outputTokens": -1}, None),
    ({"inputTokens": True, "outputTokens": 5}, Usage(0, 5)),
    ({"inputTokens": 3.0, "outputTokens": 4.2}, Usage(3, 5)),
    ({"inputTokens": math.nan, "outputTokens": math.inf}, None),
    ({"inputTokens": "3", "outputTokens": " 5"}, Usage(3, 0)),
    ({"inputTokens": [3], "outputTokens": {"n": 5}}, None),
    ({"inputTokens": HUGE, "outputTokens": 5}, Usage(HUGE, 5)),
    ({"inputTokens": 3.0, "outputTokens": 5, "cacheReadInputTokens": HUGE}, Usage(3, 5, HUGE)),
    ({"inputTokens": 3, "outputTokens": 5, "cacheWriteInputTokens": -9}, Usage(3, 5)),
    ({"inputTokens": 3, "outputTokens": 5, "cacheWriteInputTokens": "many"}, Usage(3, 5)),
    ({"inputTokens": 3, "outputTokens": 5, "cacheWriteInputTokens": 9, "cacheDetails": None}, Usage(3, 5, 0, 9)),
    ({"inputTokens": 3, "outputTokens": 5, "cacheWriteInputTokens": 9, "cacheDetails": 5}, Usage(3, 5, 0, 9)),
    ({"inputTokens": 3, "outputTokens": 5, "cacheWriteInputTokens": 9, "cacheDetails": [None]}, Usage(3, 5, 0, 9)),
    (
        {"inputTokens": 3, "outputTokens": 5, "cacheWriteInputTokens": 9, "cacheDetails": [{"ttl": "1h"}, "1h"]},
        Usage(3, 5, 0, 9),
    ),
    (
        {
            "inputTokens": 3,
            "outputTokens": 5,
            "cacheWriteInputTokens": 9,
            "cacheDetails": [{"ttl": "1h", "inputTokens": -4}],
        },
        Usage(3, 5, 0, 9),
    ),
]


@pytest.mark.parametrize(("token_usage", "usage"), TOKEN_USAGES)
def test_usage_of_converse(token_usage: object, usage: Usage | None) -> None:
    assert from_token_usage(token_usage) == usage


INPUT, OUTPUT, READ, WRITE = (
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-output-token-count",
    "x-amzn-bedrock-cache-read-input-token-count",
    "x-amzn-bedrock-cache-write-input-token-count",
)

HEADERS = [
    ({INPUT: "12", OUTPUT: "34"}, Counts(12, 34)),
    ({INPUT: "12", OUTPUT: "34", "content-type": "application/json"}, Counts(12, 34)),
    ({INPUT: "12"}, Counts(12)),  # embeddings have no output
    ({INPUT: "12", OUTPUT: "34", READ: "56", WRITE: "78"}, Counts(12, 34, 56, 78)),
    ({INPUT: "12", OUTPUT: "34", READ: "56"}, Counts(12, 34, 56)),
    ({INPUT: "0", OUTPUT: "0", READ: "0", WRITE: "0"}, Counts(0, 0, 0, 0)),
    ({"x-amzn-bedrock-invocation-latency": "512"}, NOTHING),
    ({}, NOTHING),  # rerank
    ({INPUT: "", OUTPUT: "-1", READ: "1.5", WRITE: "1e3"}, NOTHING),
    ({INPUT: "12 ", OUTPUT: "+3", READ: "0x1f", WRITE: "1_000"}, NOTHING),
    ({INPUT: "１２", OUTPUT: "²", READ: "null", WRITE: "NaN"}, NOTHING),
    ({INPUT: "9" * 19, OUTPUT: "9" * 5_000}, Counts(int("9" * 19))),
]


@pytest.mark.parametrize(("headers", "counts"), HEADERS)
def test_counts_of_headers(headers: dict[str, str], counts: Counts) -> None:
    assert counts_from_headers(headers) == counts


METRICS = [
    (
        {"inputTokenCount": 12, "outputTokenCount": 34, "invocationLatency": 5, "firstByteLatency": 2},
        Counts(12, 34),
    ),
    (
        {"inputTokenCount": 1, "outputTokenCount": 2, "cacheReadInputTokenCount": 3, "cacheWriteInputTokenCount": 4},
        Counts(1, 2, 3, 4),
    ),
    ({"inputTokenCount": 0, "outputTokenCount": 0}, Counts(0, 0)),
    ({"inputTokenCount": 7}, Counts(7)),
    ({"inputTokenCount": None, "outputTokenCount": 1.5}, Counts(None, 2)),
    ({"inputTokenCount": -7, "outputTokenCount": "x"}, NOTHING),
    ({}, NOTHING),
    (None, NOTHING),
    ([1, 2], NOTHING),
    (12, NOTHING),
]


@pytest.mark.parametrize(("metrics", "counts"), METRICS)
def test_counts_of_invocation_metrics(metrics: object, counts: Counts) -> None:
    assert counts_from_metrics(metrics) == counts


BODIES = {
    "Anthropic messages": (
        {"type": "message", "content": [], "usage": {"input_tokens": 12, "output_tokens": 34}},
        Counts(12, 34),
    ),
    "Anthropic messages with caching": (
        {
            "usage": {
                "input_tokens": 12,
                "cache_creation_input_tokens": 56,
                "cache_read_input_tokens": 78,
                "cache_creation": {"ephemeral_5m_input_tokens": 16, "ephemeral_1h_input_tokens": 40},
                "output_tokens": 34,
                "output_tokens_details": {"thinking_tokens": 20},
                "service_tier": "standard",
            }
        },
        Counts(12, 34, 78, 56, 40),
    ),
    "Anthropic messages with caching of unknown age": (
        {"usage": {"input_tokens": 12, "cache_creation_input_tokens": 56, "output_tokens": 34}},
        Counts(12, 34, None, 56),
    ),
    "Anthropic messages with parts and no total": (
        {
            "usage": {
                "input_tokens": 12,
                "output_tokens": 34,
                "cache_creation": {"ephemeral_5m_input_tokens": 16, "ephemeral_1h_input_tokens": 40},
            }
        },
        Counts(12, 34, None, 56, 40),
    ),
    "Anthropic messages with one part and no total": (
        {"usage": {"input_tokens": 12, "output_tokens": 34, "cache_creation": {"ephemeral_5m_input_tokens": 16}}},
        Counts(12, 34, None, 16),
    ),
    "Anthropic message_start": (
        {"type": "message_start", "message": {"usage": {"input_tokens": 12, "output_tokens": 1}}},
        Counts(12, 1),
    ),
    "Anthropic message_delta": (
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 34}},
        Counts(None, 34),
    ),
    "Anthropic content_block_delta": (
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        NOTHING,
    ),
    "Anthropic text completions": ({"completion": "hi", "stop_reason": "stop_sequence"}, NOTHING),
    "Nova": (
        {"output": {}, "usage": {"inputTokens": 12, "outputTokens": 34, "totalTokens": 46}},
        Counts(12, 34),
    ),
    "Nova with caching": (
        {
            "usage": {
                "inputTokens": 12,
                "outputTokens": 34,
                "totalTokens": 180,
                "cacheReadInputTokenCount": 78,
                "cacheWriteInputTokenCount": 56,
            }
        },
        Counts(12, 34, 78, 56),
    ),
    "Nova with Converse's names": (
        {"usage": {"inputTokens": 12, "outputTokens": 34, "cacheReadInputTokens": 78, "cacheWriteInputTokens": 56}},
        Counts(12, 34, 78, 56),
    ),
    "Nova when a guardrail intervenes": ({"usage": {"inputTokens": 30}}, Counts(30)),
    "Nova's last chunk": (
        {"metadata": {"usage": {"inputTokens": 12, "outputTokens": 34}, "metrics": {}, "trace": {}}},
        Counts(12, 34),
    ),
    "Titan text": (
        {"inputTextTokenCount": 12, "results": [{"tokenCount": 34, "outputText": "hi"}]},
        Counts(12, 34),
    ),
    "Titan text, several results": (
        {"inputTextTokenCount": 12, "results": [{"tokenCount": 30}, {"tokenCount": 4}, {"tokenCount": None}]},
        Counts(12, 34),
    ),
    "Titan text, floats": ({"inputTextTokenCount": 28.0, "results": [{"tokenCount": 5.0}]}, Counts(28, 5)),
    "Titan text, no result": ({"inputTextTokenCount": 12, "results": []}, Counts(12)),
    "Titan text, strange results": ({"inputTextTokenCount": 12, "results": [None, "x", {}]}, Counts(12)),
    "Titan text stream": (
        {"outputText": "hi", "inputTextTokenCount": 12, "totalOutputTextTokenCount": 34, "index": 0},
        Counts(12, 34),
    ),
    "Titan embeddings": ({"embedding": [0.1, 0.2], "inputTextTokenCount": 12}, Counts(12)),
    "Titan multimodal embeddings": ({"embedding": [0.1], "inputTextTokenCount": 12, "message": None}, Counts(12)),
    "Llama": (
        {"generation": "hi", "prompt_token_count": 12, "generation_token_count": 34, "stop_reason": "stop"},
        Counts(12, 34),
    ),
    "Llama stream after the first chunk": (
        {"generation": "hi", "prompt_token_count": None, "generation_token_count": 34},
        Counts(None, 34),
    ),
    "DeepSeek stream": (
        {"choices": [{"text": "hi"}], "prompt_token_count": 12, "generation_token_count": 34},
        Counts(12, 34),
    ),
    "Mistral text": ({"outputs": [{"text": "hi", "stop_reason": "stop"}]}, NOTHING),
    "Cohere Command": ({"generations": [{"text": "hi"}], "prompt": "hello"}, NOTHING),
    "Cohere Command R": (
        {"text": "hi", "meta": {"billed_units": {"input_tokens": 12, "output_tokens": 34}}},
        Counts(12, 34),
    ),
    "Cohere stream": (
        {"is_finished": True, "response": {"meta": {"billed_units": {"input_tokens": 12, "output_tokens": 34}}}},
        Counts(12, 34),
    ),
    "Cohere Embed": ({"embeddings": [[0.1]], "response_type": "embeddings_floats"}, NOTHING),
    "Cohere Rerank": ({"results": [{"index": 0, "relevance_score": 0.9}]}, NOTHING),
    "AI21 Jamba": (
        {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}},
        Counts(12, 34),
    ),
    "AI21 Jurassic": ({"prompt": {"tokens": []}, "completions": []}, NOTHING),
    "OpenAI's shape with cached prompt tokens": (
        {"usage": {"prompt_tokens": 100, "completion_tokens": 34, "prompt_tokens_details": {"cached_tokens": 80}}},
        Counts(20, 34, 80),
    ),
    "OpenAI's shape with nothing cached": (
        {"usage": {"prompt_tokens": 100, "completion_tokens": 34, "prompt_tokens_details": {"cached_tokens": 0}}},
        Counts(100, 34),
    ),
    "OpenAI's shape with null details": (
        {"usage": {"prompt_tokens": 100, "completion_tokens": 34, "prompt_tokens_details": None}},
        Counts(100, 34),
    ),
    "OpenAI's shape with more cached than sent": (
        {"usage": {"prompt_tokens": 100, "completion_tokens": 34, "prompt_tokens_details": {"cached_tokens": 120}}},
        Counts(0, 34, 120),
    ),
    "OpenAI's shape, cached but no prompt": (
        {"usage": {"completion_tokens": 34, "prompt_tokens_details": {"cached_tokens": 5}}},
        Counts(None, 34),
    ),
    "images": ({"images": ["iVBORw0KGgo="], "error": None}, NOTHING),
    "null usage": ({"usage": None, "inputTextTokenCount": 12}, Counts(12)),
    "usage that is no mapping": ({"usage": "12 tokens", "inputTextTokenCount": 12}, Counts(12)),
    "negative and strange": ({"usage": {"input_tokens": -1, "output_tokens": "many"}}, NOTHING),
    "a number without end": ({"usage": {"input_tokens": HUGE, "output_tokens": math.inf}}, Counts(HUGE)),
    "null": (None, NOTHING),
    "a list": ([{"usage": {"input_tokens": 1}}], NOTHING),
    "text": ("usage", NOTHING),
    "a number": (5, NOTHING),
    "an empty object": ({}, NOTHING),
}


@pytest.mark.parametrize(("body", "counts"), BODIES.values(), ids=BODIES)
def test_counts_of_bodies(body: object, counts: Counts) -> None:
    assert counts_from_body(body) == counts


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        (Counts(1, 2, 3, 4, 1), Usage(1, 2, 3, 3, 1)),
        (Counts(1, 2, 3, 4), Usage(1, 2, 3, 4)),
        (Counts(1, 2, None, None, 5), Usage(1, 2, 0, 0, 5)),
        (Counts(1), Usage(1)),
        (Counts(None, 2), Usage(0, 2)),
        (Counts(0), Usage()),
        (Counts(None, None, 3, 4, 5), None),
        (NOTHING, None),
    ],
)
def test_the_usage_that_counts_amount_to(counts: Counts, usage: Usage | None) -> None:
    assert counts.usage() == usage


def test_headers_go_over_the_body_and_the_body_fills_their_gaps() -> None:
    headers = counts_from_headers({INPUT: "30", OUTPUT: "51"})
    body = counts_from_body({"usage": {"inputTokens": 31, "cacheReadInputTokenCount": 7}})
    assert headers.over(body) == Counts(30, 51, 7)
    # The total of cache writes comes from a stream's metrics, its 1 h part from the first chunk.
    metrics = counts_from_metrics({"inputTokenCount": 1, "outputTokenCount": 2, "cacheWriteInputTokenCount": 900})
    start = counts_from_body({"message": {"usage": {"input_tokens": 1, "cache_creation": LONG}}})
    assert metrics.over(start).usage() == Usage(1, 2, 0, 300, 600)


LONG = {"ephemeral_1h_input_tokens": 600, "ephemeral_5m_input_tokens": 300}

TOKENS = st.integers(0, 10**12)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
ALL_COUNTS = st.builds(Counts, *[st.one_of(st.none(), TOKENS)] * 5)

FIELDS = sorted(
    {"usage", "message", "metadata", "meta", "response", "billed_units", "results", "tokenCount", "cacheDetails", "ttl"}
    | {"inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "input_tokens", "output_tokens"}
    | {"prompt_tokens", "prompt_tokens_details", "cached_tokens", "cache_creation", "cache_creation_input_tokens"}
    | {"inputTextTokenCount", "prompt_token_count", "ephemeral_1h_input_tokens", "inputTokenCount"}
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["1h", "5m", "12", "", "x"])),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), children, max_size=5),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=500, deadline=None)
def test_no_json_is_too_strange_to_count(body: object) -> None:
    for counts in (counts_from_body(body), counts_from_metrics(body)):
        assert all(count is None or (type(count) is int and count >= 0) for count in counts)
    usage = from_token_usage(body)
    assert usage is None or all(type(count) is int and count >= 0 for count in usage)


@given(st.dictionaries(st.sampled_from([INPUT, OUTPUT, READ, WRITE, "date"]), st.text(max_size=30)))
def test_no_header_is_too_strange_to_count(headers: dict[str, str]) -> None:
    assert all(count is None or count >= 0 for count in counts_from_headers(headers))


@given(USAGES)
def test_converse_usage_is_read_as_it_was_written(usage: Usage) -> None:
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    token_usage = {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": sum(usage),
        "cacheReadInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": written,
        "cacheDetails": [
            {"ttl": "1h", "inputTokens": usage.cache_write_1h_tokens},
            {"ttl": "5m", "inputTokens": usage.cache_write_5m_tokens},
        ],
    }
    assert from_token_usage(token_usage) == usage


@given(ALL_COUNTS, ALL_COUNTS, ALL_COUNTS)
def test_filling_gaps_is_associative_and_keeps_what_is_known(one: Counts, other: Counts, third: Counts) -> None:
    assert one.over(other).over(third) == one.over(other.over(third))
    assert one.over(NOTHING) == NOTHING.over(one) == one
    for mine, theirs, result in zip(one, other, one.over(other), strict=True):
        assert result == (theirs if mine is None else mine)


@given(USAGES, USAGES, USAGES)
def test_the_order_in_which_usage_is_summed_makes_no_difference(one: Usage, other: Usage, third: Usage) -> None:
    assert one.plus(other) == other.plus(one)
    assert one.plus(other).plus(third) == one.plus(other.plus(third))
    assert one.plus(Usage()) == one
    assert sum(one.plus(other)) == sum(one) + sum(other)


@pytest.mark.parametrize(
    ("headers", "usage"),
    [
        ({INPUT: "30", OUTPUT: "51"}, Usage(30, 51)),
        ({INPUT: "30", OUTPUT: "51", READ: "7", WRITE: "0"}, Usage(30, 51, 7)),
        ({}, None),
        ({INPUT: "30"}, None),  # embeddings, which the body shows
        ({OUTPUT: "51"}, None),
        ({INPUT: "30", OUTPUT: "51", WRITE: "9"}, None),  # how long they live is in the body
        ({INPUT: "30", OUTPUT: "-1"}, None),
        ({INPUT: "30", OUTPUT: "51", READ: "many"}, None),
        ({INPUT: "3" * 29, OUTPUT: "51"}, None),
        ({INPUT: "\N{SUPERSCRIPT TWO}", OUTPUT: "51"}, None),
    ],
)
def test_headers_that_say_it_all_spare_the_body(headers: dict[str, str], usage: Usage | None) -> None:
    assert usage_from_headers(headers) == usage


@given(st.dictionaries(st.sampled_from([INPUT, OUTPUT, READ, WRITE]), st.integers(0, 10**8).map(str)))
def test_what_headers_alone_say_is_what_their_counts_amount_to(headers: dict[str, str]) -> None:
    usage = usage_from_headers(headers)
    assert usage is None or usage == counts_from_headers(headers).usage()

"""Usage that no response told: never below what was seen, nothing left out that was sent."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget.core.estimates import (
    ATTACHMENT_TOKENS,
    UNSEEN_OUTPUT_TOKENS,
    estimate,
    output_limit,
    request_tokens,
    text_bytes,
    tokens_in,
)
from bedrock_budget.core.usage import NOTHING, Counts, Usage

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20)),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=15,
)
SOME = st.one_of(st.none(), st.integers(0, 10**6))
COUNTS = st.builds(Counts, SOME, SOME, SOME, SOME, SOME)


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (3, 1), (4, 2), (6, 2), (3_000, 1_000)])
def test_three_bytes_a_token_rounded_up(size: int, tokens: int) -> None:
    assert tokens_in(size) == tokens


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        ({}, 0),
        (None, 0),
        ({"messages": [{"role": "user", "content": [{"text": "x" * 296}]}]}, 100),
        ({"system": [{"text": "abc"}], "messages": [{"content": [{"text": "defghi"}]}]}, 3),
        ({"prompt": "é" * 3}, 2),  # bytes, not characters
        ({"prompt": "\ud83d"}, 1),  # half an emoji, cut off by a program that counts UTF-16 units
        ({"inputText": "abc", "textGenerationConfig": {"maxTokenCount": 10, "topP": 0.9, "stream": True}}, 1),
        ({"image": {"format": "", "source": {"bytes": b"\x89PNG" * 1000}}}, ATTACHMENT_TOKENS),
        ({"image": {"format": "", "source": {"bytes": bytearray(5)}}}, ATTACHMENT_TOKENS),
        ({"source": {"type": "", "media_type": "", "data": "iVBORw0KGgo="}}, ATTACHMENT_TOKENS),
        ({"images": {"bytes": ["one", b"two", "three"]}, "prompt": "abc"}, 3 * ATTACHMENT_TOKENS + 1),
        (("abc", ["def", {"text": "ghi"}]), 3),
        (b"raw", ATTACHMENT_TOKENS),
        ("abcd", 2),
        (5, 0),
    ],
)
def test_input_tokens_of_a_request(request_: object, tokens: int) -> None:
    assert request_tokens(request_) == tokens


def test_the_text_of_an_answer_is_counted_in_bytes() -> None:
    assert text_bytes({"contentBlockDelta": {"delta": {"text": "héllo"}, "contentBlockIndex": 0}}) == 6
    assert text_bytes({"image": {"source": {"bytes": b"123"}}}) == 0
    assert text_bytes("abc") == 3
    assert text_bytes(None) == 0


@pytest.mark.parametrize(
    ("request_", "limit"),
    [
        ({"inferenceConfig": {"maxTokens": 10}}, 10),  # Converse
        ({"max_tokens": 11}, 11),  # Anthropic messages, Mistral, Cohere, AI21
        ({"max_tokens_to_sample": 12}, 12),  # Anthropic completions
        ({"max_gen_len": 13}, 13),  # Llama
        ({"textGenerationConfig": {"maxTokenCount": 14}}, 14),  # Titan
        ({"inferenceConfig": {"max_new_tokens": 15}}, 15),  # Nova
        ({"inference_config": {"max_new_tokens": 16}}, 16),
        ({"max_completion_tokens": 17}, 17),
        ({"maxTokens": 18}, 18),  # AI21 Jurassic
        ({"max_tokens": 0}, 0),
        ({"max_tokens": None, "inferenceConfig": {"maxTokens": 19}}, 19),
        ({"max_tokens": True}, None),
        ({"max_tokens": "20"}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 20.5}, None),
        ({"inferenceConfig": None}, None),
        ({"inferenceConfig": [5]}, None),
        ({"inferenceConfig": {"temperature": 0.5}}, None),
        ({}, None),
        (None, None),
        ("max_tokens", None),
    ],
)
def test_the_output_limit_of_a_request(request_: object, limit: int | None) -> None:
    assert output_limit(request_) == limit


@pytest.mark.parametrize(
    ("request_", "seen", "answer_bytes", "usage"),
    [
        # nothing of the answer seen: the request's own limit, else 4,096
        ({"prompt": "abc", "max_tokens": 50}, NOTHING, None, Usage(1, 50)),
        ({"prompt": "abc", "max_tokens": 0}, NOTHING, None, Usage(1, 0)),
        ({"prompt": "abc"}, NOTHING, None, Usage(1, UNSEEN_OUTPUT_TOKENS)),
        # the answer seen: its bytes, whatever the limit
        ({"prompt": "abc", "max_tokens": 50}, NOTHING, 10, Usage(1, 4)),
        ({"prompt": "abc", "max_tokens": 50}, NOTHING, 0, Usage(1, 0)),
        # what the response counted is better
        ({"prompt": "abc"}, Counts(input_tokens=7), 10, Usage(7, 4)),
        ({"prompt": "abc"}, Counts(input_tokens=0), 10, Usage(0, 4)),
        ({"prompt": "abc"}, Counts(output_tokens=9), 10, Usage(1, 9)),
        ({"prompt": "abc"}, Counts(output_tokens=2), 10, Usage(1, 4)),
        ({"prompt": "abc"}, Counts(7, 9, 11, 13, 5), 0, Usage(7, 9, 11, 8, 5)),
        ({"prompt": "abc", "max_tokens": 50}, Counts(7, 3), None, Usage(7, 50)),
        (None, NOTHING, None, Usage(1, UNSEEN_OUTPUT_TOKENS)),  # never free
    ],
)
def test_literal_estimates(request_: object, seen: Counts, answer_bytes: int | None, usage: Usage) -> None:
    assert estimate(request_, seen=seen, answer_bytes=answer_bytes) == usage


@given(JSON, COUNTS, st.one_of(st.none(), st.integers(0, 10**6)))
@settings(max_examples=300, deadline=None)
def test_an_estimate_is_never_below_what_was_seen(request_: object, seen: Counts, answer_bytes: int | None) -> None:
    found = estimate(request_, seen=seen, answer_bytes=answer_bytes)
    assert found.output_tokens >= (seen.output_tokens or 0)
    assert found.output_tokens * 3 >= (answer_bytes or 0)
    unseen = max(request_tokens(request_), 1)  # never free
    assert found.input_tokens == (unseen if seen.input_tokens is None else seen.input_tokens)
    assert found.cache_read_tokens == (seen.cache_read_tokens or 0)
    assert found.cache_write_5m_tokens + found.cache_write_1h_tokens >= (seen.cache_write_tokens or 0)


@given(JSON, JSON)
@settings(max_examples=200, deadline=None)
def test_a_longer_request_never_counts_for_less(one: object, other: object) -> None:
    assert request_tokens([one, other]) >= max(request_tokens([one]), request_tokens([other]))

"""What a request can use: all of its text counts, and what is not surely text is bounded by the window alone."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bedrock_budget.core import request_bounds as bounds
from bedrock_budget.core.request_bounds import RequestBounds, plain_bounds, request_bounds, text_tokens

CLAUDE = "anthropic-messages"


def converse(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {"modelId": "m", "messages": [{"role": "user", "content": list(blocks)}], **more}


def found(request: dict[str, Any], request_format: str = CLAUDE) -> RequestBounds:
    return request_bounds(request, request_format)


def body(request_format: str = CLAUDE, /, **members: Any) -> RequestBounds:
    """The bounds of a body, which are the same for its text, its bytes and the mapping."""
    one, *others = [found({"body": form(members)}, request_format) for form in (json.dumps, _encoded, dict)]
    assert all(other == one for other in others)
    return one


def _encoded(members: dict[str, Any]) -> bytes:
    return json.dumps(members, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("abc", 3),
        ("é", 2),
        ("\U0001f600", 4),
        ("\ud83d", 3),  # half an emoji
        ("\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}", 33),  # 3 bytes that a tokeniser may spell out
        ("\N{LATIN SMALL LIGATURE FI}", 3),  # shorter when spelt out: the bytes count
    ],
)
def test_a_text_is_as_many_tokens_as_bytes_at_most(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


@pytest.mark.parametrize(
    "request_",
    [
        converse({"text": "abc"}),
        converse({"text": "abc"}, {"text": "défi"}, system=[{"text": "é"}], inferenceConfig={"maxTokens": 5}),
        converse(inferenceConfig={"temperature": 0.5}, system=()),
        converse({"text": "abc"}, inferenceConfig={"maxTokens": None}),
        {"messages": ()},
    ],
)
def test_plain_requests_count_the_same_both_ways(request_: dict[str, Any]) -> None:
    plain = plain_bounds(request_)
    general = found(request_)
    assert plain is not None
    tokens, output = plain
    assert output == general.output_tokens
    assert general == RequestBounds(general.text_tokens, output_tokens=output)
    assert general.text_tokens == tokens


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": iter([])},
        {"messages": [], "system": iter([])},
        {"messages": [{"role": "user", "content": iter([])}]},
        {"messages": [{"role": "user", "content": "abc"}]},
        {"messages": [{"role": "user", "content": [{"text": 5}]}]},
        {"messages": [{"role": "user", "content": ["abc"]}]},
        {"messages": [{"role": "user", "content": [{"text": "abc", "image": {}}]}]},
        {"messages": [{"role": "user", "content": [{"image": {}}]}]},
        {"messages": [{"content": [], "image": {}}]},
        {"messages": [{"role": "user", "content": [], "image": {}}]},
        {"messages": [5]},
        {"messages": [], "system": [{"cachePoint": {}}]},
        {"messages": [], "system": [{"text": 5}]},
        {"messages": [], "system": [{"text": "abc", "cachePoint": {}}]},
        {"messages": [], "system": "abc"},
        {"messages": [], "inferenceConfig": {"maxTokens": 0}},
        {"messages": [], "inferenceConfig": {"maxTokens": True}},
        {"messages": [], "inferenceConfig": {"maxTokens": 5.5}},
        {"messages": [], "inferenceConfig": "5"},
        {"messages": [], "toolConfig": {}},
        {"body": b"{}"},
        {},
    ],
)
def test_others_are_not_plain(request_: dict[str, Any]) -> None:
    assert plain_bounds(request_) is None
    assert found(request_).text_tokens >= bounds.REQUEST_TOKENS


def test_an_iterator_in_a_request_is_left_as_it_was() -> None:
    messages = iter([{"role": "user", "content": [{"text": "abc"}]}])
    request_ = {"messages": messages}
    assert plain_bounds(request_) is None
    assert found(request_).others == 1
    assert len(list(messages)) == 1


TOOL = {
    "toolSpec": {"name": "t", "description": "d", "inputSchema": {"json": {"type": "object", "any name": {"x": 1}}}}
}
SEARCHED = {"source": "https://example.com", "title": "t", "content": [{"text": "x"}], "citations": {"enabled": True}}


@pytest.mark.parametrize(
    "request_",
    [
        converse({"text": "x"}, toolConfig={"tools": [TOOL], "toolChoice": {"any": {}}}),
        converse({"toolUse": {"toolUseId": "i", "name": "t", "input": {"image": "x", "list": [1, 2.5, None, True]}}}),
        converse(
            {"toolResult": {"toolUseId": "i", "content": [{"json": {"a": 1}}, {"text": "x"}], "status": "success"}}
        ),
        converse({"guardContent": {"text": {"text": "x", "qualifiers": ["query"]}}}),
        converse({"reasoningContent": {"reasoningText": {"text": "x", "signature": "abc"}}}),
        converse({"reasoningContent": {"redactedContent": b"abc"}}),
        converse({"searchResult": SEARCHED}),
        converse({"citationsContent": {"content": [{"text": "x"}], "citations": [{"title": "t", "source": "s"}]}}),
        converse(outputConfig={"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{}"}}}}),
        converse(additionalModelRequestFields={"thinking": {"type": "enabled", "budget_tokens": 5}, "top_k": 5}),
        converse(guardrailConfig={"guardrailIdentifier": "g"}, requestMetadata={"a": "b"}),
        {"body": json.dumps({"prompt": "x", "temperature": 0.5, "images": None})},
        {"body": json.dumps({"inputText": "x", "textGenerationConfig": {"stopSequences": ["x"]}})},
        {"body": json.dumps({"texts": ["x", "y"], "input_type": "search_query", "truncate": "NONE"})},
        {"body": json.dumps({"message": "x", "documents": [{"any name": "x"}]})},
        {"body": json.dumps({"messages": [{"role": "tool", "tool_call_id": "i", "content": "x"}]})},
        {"body": json.dumps({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]})},
        {"body": json.dumps({"messages": [{"content": [{"type": "redacted_thinking", "data": "abc"}]}]})},
        {"body": json.dumps({"tools": [{"type": "custom", "name": "t", "input_schema": {"type": "image"}}]})},
        {"body": json.dumps({"tools": [{"type": "function", "function": {"name": "t", "parameters": {"a": 1}}}]})},
    ],
)
def test_texts_are_known_as_such(request_: dict[str, Any]) -> None:
    assert found(request_).others == 0


@pytest.mark.parametrize(
    "request_",
    [
        converse({"image": {"format": "png", "source": {"bytes": b"x"}}}),
        converse({"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k"}}}}),
        converse({"document": {"format": "pdf", "name": "n", "source": {"bytes": b"x"}}}),
        converse({"document": {"name": "n", "source": {"text": "x"}}}),
        converse({"video": {}}),
        converse({"audio": {}}),
        converse({"guardContent": {"image": {"format": "png", "source": {"bytes": b"x"}}}}),
        converse({"toolResult": {"toolUseId": "i", "content": [{"image": {}}]}}),
        converse({"toolResult": {"toolUseId": "i", "content": [{"json": {"a": b"x"}}]}}),
        converse({"what comes next": "x"}),
        converse({5: "x"}),
        converse({"text": b"x"}),
        converse({"text": Decimal(5)}),
        converse({"json": {"n": 10**5000}}),  # more digits than Python writes
        converse(toolConfig={"tools": [{"systemTool": {"name": "nova_grounding"}}]}),
        converse(promptVariables={"a": {"text": "x"}}),
        converse(additionalModelRequestFields={"previous_response_id": "r"}),
        converse(additionalModelRequestFields={"tools": [{"type": "computer_20250124", "name": "computer"}]}),
        {"input": [{"type": "input_image"}]},
        {"body": b""},
        {"body": b"\xff"},
        {"body": b"[]"},
        {"body": b"5"},
        {"body": "[" * 200_000},
        {"body": None},
        {"body": object()},
        {"body": json.dumps({"inputText": "x", "inputImage": "aGk="})},
        {"body": json.dumps({"prompt": "x", "images": ["aGk="]})},
        {
            "body": json.dumps(
                {"messages": [{"content": [{"type": "image", "source": {"type": "base64", "data": "x"}}]}]}
            )
        },
        {"body": json.dumps({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]})},
        {"body": json.dumps({"messages": [{"content": [{"type": "server_tool_use", "input": {}}]}]})},
    ],
)
def test_all_else_is_other(request_: dict[str, Any]) -> None:
    assert found(request_).others >= 1


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"content": [value]}
    return value


def test_deep_nesting_is_counted_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found({"messages": [nested(50_000)]}).others == 0
    monkeypatch.setattr(bounds, "MOST_PARTS", 1_000)
    assert found({"messages": [nested(50_000)]}).others == 1
    circle: list[Any] = []
    circle += [circle, circle]
    assert found({"messages": circle}).others == 1


class Odd(dict[str, Any]):
    """A mapping that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError("no")


def test_an_object_that_raises_may_be_anything() -> None:
    bound = found(converse(Odd()))
    assert bound.others == 1
    assert bound.writes_cache_1h
    assert bound.long_window


def test_json_counts_escaped() -> None:
    plain = found(converse({"text": "\n" * 100 + "é" * 100})).text_tokens
    shown = found(converse({"toolResult": {"content": [{"text": "\n" * 100 + "é" * 100}]}})).text_tokens
    assert plain == 300 + found(converse({"text": ""})).text_tokens
    assert shown >= 800 + found(converse({"toolResult": {"content": [{"text": ""}]}})).text_tokens
    from_tool = body(messages=[{"role": "tool", "content": "\n" * 100}]).text_tokens
    assert from_tool >= 100 + body(messages=[{"role": "user", "content": "\n" * 100}]).text_tokens


def test_instructions_of_the_service_are_allowed_for() -> None:
    bare = found(converse()).text_tokens
    assert found(converse(toolConfig={})).text_tokens - bare >= bounds.PREAMBLE_TOKENS
    assert found(converse(additionalModelRequestFields={"tools": []})).text_tokens - bare >= bounds.PREAMBLE_TOKENS
    sealed = converse({"reasoningContent": {"reasoningText": {"signature": "x" * 1_000}}})
    assert found(sealed).text_tokens - bare >= 6_000
    assert found({"body": b"\xff" * 1_000}).text_tokens == bounds.REQUEST_TOKENS + 1_000 + bounds.STRUCTURE_TOKENS


@pytest.mark.parametrize(
    ("block", "marks"),
    [
        ({"cachePoint": {"type": "default"}}, (True, False)),
        ({"cachePoint": {"type": "default", "ttl": "5m"}}, (True, False)),
        ({"cachePoint": {"type": "default", "ttl": "1h"}}, (True, True)),
        ({"text": "x", "cache_control": {"type": "ephemeral"}}, (True, False)),
        ({"text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}, (True, True)),
        ({"text": "x", "cache_control": {"type": "ephemeral", "ttl": "1d"}}, (True, True)),
        ({"text": "x", "cache_control": None}, (False, False)),
        ({"toolUse": {"input": {"cachePoint": {}}}}, (False, False)),
    ],
)
def test_cache_markers(block: Any, marks: tuple[bool, bool]) -> None:
    for request_ in (converse(block), converse(system=[block]), converse(toolConfig={"tools": [block]})):
        bound = found(request_)
        assert (bound.writes_cache, bound.writes_cache_1h) == marks
        assert bound.others == 0


def test_betas() -> None:
    bound = body(anthropic_beta=["context-1m-2025-08-07"])
    assert (bound.long_window, bound.interleaved) == (True, False)
    bound = found(converse(additionalModelRequestFields={"anthropic_beta": ["interleaved-thinking-2025-05-14"]}))
    assert (bound.long_window, bound.interleaved) == (False, True)


@pytest.mark.parametrize(
    ("request_format", "members", "limit"),
    [
        (CLAUDE, {"max_tokens": 11}, 11),
        (CLAUDE, {"max_tokens": 11.5}, 12),
        (CLAUDE, {"max_tokens": "11"}, None),
        (CLAUDE, {"max_tokens": True}, None),
        (CLAUDE, {"max_tokens": 0}, None),
        (CLAUDE, {"max_tokens": 1e999}, None),
        (CLAUDE, {"max_tokens": None}, None),
        (CLAUDE, {"max_gen_len": 11}, None),  # not what such a model goes by
        (CLAUDE, {}, None),
        ("anthropic-completions", {"max_tokens_to_sample": 12}, 12),
        ("meta-llama", {"max_gen_len": 13}, 13),
        ("amazon-titan-text", {"textGenerationConfig": {"maxTokenCount": 14}}, 14),
        ("amazon-nova", {"inferenceConfig": {"max_new_tokens": 15}}, 15),
        ("amazon-nova", {"inferenceConfig": {"maxTokens": 16, "max_new_tokens": 15}}, 16),
        ("openai-chat", {"max_completion_tokens": 17, "max_tokens": 5}, 17),
        ("openai-chat", {"max_completion_tokens": 17, "max_tokens": "many"}, None),
        ("openai-chat", {"maxTokens": 17}, None),
        ("arn:aws:bedrock:opaque", {"maxTokens": 18}, 18),
    ],
)
def test_the_limit_of_a_body(request_format: str, members: dict[str, Any], limit: int | None) -> None:
    assert body(request_format, **members).output_tokens == (
        None if limit is None else limit + bounds.ANSWER_END_TOKENS
    )


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ({"inferenceConfig": {"maxTokens": 10}}, 10),
        ({"inferenceConfig": {"maxTokens": 10}, "additionalModelRequestFields": {"max_tokens": 20}}, 20),
        ({"inferenceConfig": {"maxTokens": 10}, "additionalModelRequestFields": {"max_gen_len": 20}}, 20),
        ({"inferenceConfig": {"maxTokens": 10}, "additionalModelRequestFields": {"max_gen_len": "20"}}, None),
        ({"inferenceConfig": {"maxTokens": "10"}}, None),
        ({"inferenceConfig": "10"}, None),
        ({"additionalModelRequestFields": {"max_tokens": 20}}, 20),
        ({"additionalModelRequestFields": {"max_gen_len": 20}}, None),
        ({"additionalModelRequestFields": {"inferenceConfig": {"max_tokens": 20}}}, 20),
        ({"additionalModelRequestFields": "max_tokens"}, None),
        ({"max_tokens": 20}, None),
    ],
)
def test_the_limit_of_a_conversation(members: dict[str, Any], limit: int | None) -> None:
    bound = found(converse(**members))
    assert bound.output_tokens == (None if limit is None else limit + bounds.ANSWER_END_TOKENS)


@pytest.mark.parametrize(
    ("members", "answers"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"num_generations": 2}, 2),
        ({"numResults": 4}, 4),
        ({"n": 3, "best_of": 5}, 5),
        ({"n": None}, 1),
        ({"n": "3"}, bounds.MOST_ANSWERS),
        ({"n": -1}, bounds.MOST_ANSWERS),
    ],
)
def test_the_number_of_answers(members: dict[str, Any], answers: int) -> None:
    assert body("cohere-command", **members).answers == answers
    assert found(converse(additionalModelRequestFields=members)).answers == answers


@pytest.mark.parametrize(
    ("request_", "tier", "latency"),
    [
        (converse(serviceTier={"type": "priority"}), "priority", None),
        (converse(serviceTier={"type": "flex"}), None, None),
        (converse(serviceTier={"type": "reserved"}), None, None),
        (converse(serviceTier={"type": "ultrafast"}), "ultrafast", None),
        (converse(serviceTier={}), None, None),
        (converse(additionalModelRequestFields={"service_tier": "priority"}), "priority", None),
        (converse(performanceConfig={"latency": "optimized"}), None, "optimized"),
        (converse(performanceConfig={"latency": "standard"}), None, None),
        (converse(performanceConfig={}), None, None),
        ({"body": "{}", "serviceTier": "priority", "performanceConfigLatency": "optimized"}, "priority", "optimized"),
        ({"body": "{}", "serviceTier": "default", "performanceConfigLatency": "standard"}, None, None),
        ({"body": '{"service_tier": "priority"}'}, "priority", None),
        ({"body": '{"service_tier": "auto", "speed": "fast"}'}, "fast", None),
    ],
)
def test_what_a_request_asks_to_be_served_by(request_: dict[str, Any], tier: object, latency: object) -> None:
    bound = found(request_)
    assert (bound.tier, bound.latency, bound.others) == (tier, latency, 0)


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20)),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.one_of(st.text(max_size=8), st.sampled_from(sorted(bounds._TEXTS | bounds._JSON))), children, max_size=4
        )
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["messages", "system", "toolConfig", "input", "body", "n"]), ANYTHING))
@example({"body": {"messages": [{"content": "abc"}]}})
@settings(max_examples=300, deadline=None)
def test_no_request_raises_and_all_its_text_is_counted_or_other(request_: dict[str, Any]) -> None:
    plain = plain_bounds(request_)
    bound = found(request_)
    if plain is not None:
        assert plain == (bound.text_tokens, bound.output_tokens)
    if not bound.others:
        shown = texts(request_.get("body", request_))
        assert bound.text_tokens >= sum(len(text.encode(errors="surrogatepass")) for text in shown)


def texts(value: Any) -> Iterator[str]:
    """The texts that a model may be shown."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, child in value.items():
            if key not in bounds._SETTINGS | bounds._MARKERS | {"type"}:
                yield from texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from texts(child)

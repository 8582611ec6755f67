"""``invoke_model``: bodies for one model format or for many, and where the usage of an answer is found."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import IncompleteReadError, ParamValidationError, ResponseStreamingError
from metered import (
    CLAUDE_BODY,
    ECONOMY,
    EMBED,
    NEXT_TO_NOTHING,
    NOVA_BODY,
    PREMIUM,
    PRICES,
    STANDARD,
    budget,
    metered,
    priced,
    record_of,
    served,
    spent,
    stored,
)

from bedrock_budget import BodyNotPortable, BudgetExhausted, PriceKeeperClient
from bedrock_budget.core.usage import Usage
from bedrock_budget.record import Decision
from bedrock_budget.stores import MemoryStore, Override
from bedrock_budget.testing import LocalBedrock, Request

BROKEN = (IncompleteReadError, ResponseStreamingError)
HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    with metered(local_bedrock) as client:
        yield client


def mixed(**quotas: int | None) -> dict[str, Any]:
    """A chain whose formats alternate: Claude, Nova, Claude."""
    config = budget(quotas)
    config["model_labels"]["economy"] = {**priced(ECONOMY), "id": HAIKU}
    return config


def read(response: dict[str, Any]) -> dict[str, Any]:
    """The record of a response, whose body is read as callers do."""
    assert response["body"].read()
    return record_of(response)


def reply(server: LocalBedrock, body: object, headers: Mapping[str, str] | None = None) -> None:
    """Have the server answer the next request so."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    server.raw_next(200, {"content-type": "application/json", **(headers or {})}, data)


# --- bodies of one format


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: data.decode(), io.BytesIO], ids="bBsf")
def test_a_body_is_sent_as_it_is_and_stays_as_it_was(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Callable[[bytes], Any]
) -> None:
    seen: list[Request] = []
    local_bedrock.on_request = seen.append  # type: ignore[assignment]
    body = kind(NOVA_BODY)
    same = deepcopy(body)
    arguments = {"modelId": "standard", "body": body, "accept": "application/json", "trace": "DISABLED"}
    response = bedrock.invoke_model(**arguments)
    assert [(request.model_id, request.body) for request in seen] == [(STANDARD, json.loads(NOVA_BODY))]
    assert seen[0].headers["accept"] == "application/json"
    assert list(arguments) == ["modelId", "body", "accept", "trace"]
    assert arguments["modelId"] == "standard"
    assert arguments["body"] is body
    if isinstance(body, io.BytesIO):
        assert body.getvalue() == same.getvalue()
    else:
        assert body == same
    assert read(response)["usage"]["input_tokens"] == 3
    assert record_of(response)["cost_pico_usd"] == 3 * 800_000 + 20 * 3_200_000


def test_a_file_is_sent_from_where_boto3_would(bedrock: PriceKeeperClient, tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_bytes(NOVA_BODY)
    with path.open("rb") as plain, path.open("rb") as ours:
        bedrock._client.invoke_model(modelId=ECONOMY, body=plain)["body"].read()
        bedrock.invoke_model(modelId="economy", body=ours)["body"].read()
        assert ours.tell() == plain.tell()


@pytest.mark.parametrize(
    ("body", "named"),
    [({"a": 1}, "dict.*json.dumps"), ([1], "list.*json.dumps"), (5, "int"), (memoryview(b"{}"), "memoryview")],
)
def test_a_body_of_the_wrong_type_is_a_mistake_of_the_parameters(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, body: Any, named: str
) -> None:
    for name in ("invoke_model", "invoke_model_with_response_stream"):
        with pytest.raises(ParamValidationError, match=rf"Invalid type for parameter body: {named}"):
            getattr(bedrock, name)(body=body)
    assert served(local_bedrock) == []
    assert spent(bedrock) == [(0, 0)] * 3


def test_no_body_at_all_is_for_the_service_to_refuse(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    with pytest.raises(bedrock.exceptions.ValidationException, match="not a JSON object") as caught:
        bedrock.invoke_model()
    assert record_of(caught.value)["cost_pico_usd"] == 0
    assert served(local_bedrock) == [PREMIUM]


def test_a_body_skips_labels_of_other_formats(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock, config=mixed(premium=NEXT_TO_NOTHING)) as bedrock:
        records = [read(bedrock.invoke_model(body=CLAUDE_BODY)) for _ in range(3)]
        assert [(record["label"], record["reason"]) for record in records] == [
            ("premium", "default"),
            ("economy", "quota"),
            ("economy", "quota"),
        ]
        assert {record["label_asked"] for record in records} == {"premium"}
        assert read(bedrock.invoke_model(modelId="standard", body=NOVA_BODY))["label"] == "standard"
    assert served(local_bedrock) == [PREMIUM, HAIKU, HAIKU, STANDARD]


def test_a_body_that_fits_no_label_left_is_refused_naming_them(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock, config=budget({"premium": 0}, on_exhausted="last")) as bedrock:
        for name in ("invoke_model", "invoke_model_with_response_stream"):
            with pytest.raises(BodyNotPortable) as caught:
                getattr(bedrock, name)(body=CLAUDE_BODY)
            for part in (
                "premium (anthropic-messages)",
                "standard (takes amazon-nova), economy (takes amazon-nova)",
                "callable",
                "converse",
            ):
                assert part in str(caught.value)
        assert bedrock.invoke_model(body=lambda decision: NOVA_BODY)["body"].read()
    assert served(local_bedrock) == [STANDARD]


def test_used_up_labels_of_any_format_are_exhausted_not_unportable(local_bedrock: LocalBedrock) -> None:
    with (
        metered(local_bedrock, config=budget(dict.fromkeys(("premium", "standard", "economy"), 0))) as bedrock,
        pytest.raises(BudgetExhausted) as caught,
    ):
        bedrock.invoke_model(body=CLAUDE_BODY)
    assert caught.value.operation_name == "InvokeModel"


def test_a_label_outside_the_ordering_takes_its_own_bodies(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    response = bedrock.invoke_model(modelId="embed", body=b'{"inputText": "Hello, world"}')
    assert read(response)["usage"] == {**dict.fromkeys(Usage._fields, 0), "input_tokens": 3}
    assert record_of(response)["estimated"] is False
    assert served(local_bedrock) == [EMBED]


def test_an_override_onto_another_format_refuses_the_body_but_no_callable(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    store.put_override("acme", "chat", Override("standard", "incident", "ops", 0, 4_000_000_000))
    with metered(local_bedrock, store=store) as bedrock:
        with pytest.raises(BodyNotPortable, match=r"given for premium .* standard \(takes amazon-nova\)"):
            bedrock.invoke_model(body=CLAUDE_BODY)
        assert read(bedrock.invoke_model(body=lambda decision: NOVA_BODY))["reason"] == "override"
        assert read(bedrock.invoke_model(modelId="economy", body=NOVA_BODY))["label"] == "standard"


def test_an_override_outside_the_ordering_onto_another_format(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    store.put_override("acme", "chat", Override("embed", "a slip", "ops", 0, 4_000_000_000))
    with (
        metered(local_bedrock, store=store) as bedrock,
        pytest.raises(BodyNotPortable, match=r"embed \(takes amazon-titan-embed-text\)"),
    ):
        bedrock.invoke_model(body=CLAUDE_BODY)


# --- bodies of any format


@pytest.mark.parametrize("form", [json.loads, bytes, bytearray, lambda data: data.decode()], ids="dbBs")
def test_a_callable_body_is_called_once_with_the_decision(
    local_bedrock: LocalBedrock, form: Callable[[bytes], Any]
) -> None:
    seen: list[Request] = []
    local_bedrock.on_request = seen.append  # type: ignore[assignment]
    decisions: list[Decision] = []

    def body(decision: Decision) -> Any:
        decisions.append(decision)
        return form(NOVA_BODY)

    with metered(local_bedrock, config=budget({"premium": 0})) as bedrock:
        arguments: dict[str, Any] = {"body": body}
        first = bedrock.invoke_model(**arguments)
        second = bedrock.invoke_model_with_response_stream(modelId="economy", **arguments)
        list(second["body"])
        assert arguments == {"body": body}
    assert [decision.label for decision in decisions] == ["standard", "economy"]
    assert [decision.model_id for decision in decisions] == [STANDARD, ECONOMY] == served(local_bedrock)
    assert [decision.label_asked for decision in decisions] == ["premium", "economy"]
    assert decisions[0].quota_usd_micros == 1_000_000_000
    assert [request.body for request in seen] == [json.loads(NOVA_BODY)] * 2
    assert read(first)["label"] == "standard"
    assert record_of(second)["label"] == "economy"


def test_a_callable_gets_the_decision_of_an_unlabelled_model(local_bedrock: LocalBedrock) -> None:
    decisions: list[Decision] = []
    with metered(local_bedrock, on_unknown_model="pass") as bedrock:
        read(bedrock.invoke_model(modelId=HAIKU, body=lambda decision: decisions.append(decision) or CLAUDE_BODY))
    assert [(each.label, each.model_id, each.quota_usd_micros) for each in decisions] == [("unlabelled", HAIKU, None)]


@pytest.mark.parametrize("made", [None, 5, ["a"], io.BytesIO(b"{}"), object])
def test_a_callable_that_returns_something_else_is_a_mistake(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, made: Any
) -> None:
    with pytest.raises(ParamValidationError, match=r"body\(decision\) returned \w+; it must return bytes, str or a"):
        bedrock.invoke_model(body=lambda decision: made)
    assert served(local_bedrock) == []
    assert spent(bedrock) == [(0, 0)] * 3


def test_what_a_callable_raises_passes_through(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    with pytest.raises(ZeroDivisionError):
        bedrock.invoke_model(body=lambda decision: 1 // 0)
    with pytest.raises(TypeError, match="not JSON serializable"):
        bedrock.invoke_model(body=lambda decision: {"a": b"bytes"})
    assert served(local_bedrock) == []
    assert spent(bedrock) == [(0, 0)] * 3


# --- answers


def test_the_answers_body_is_boto3s_and_unread_where_headers_say_all(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    plain = bedrock._client.invoke_model(modelId=ECONOMY, body=NOVA_BODY)
    ours = bedrock.invoke_model(modelId="economy", body=NOVA_BODY)
    assert type(ours["body"]) is type(plain["body"])
    assert ours["body"]._amount_read == 0
    assert ours["body"].read() == plain["body"].read()
    assert ours["contentType"] == plain["contentType"]
    assert record_of(ours)["cost_pico_usd"] == 3 * 35_000 + 20 * 140_000


def test_an_answer_whose_body_had_to_be_read_gives_an_equal_unread_one(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    body = {"content": [{"text": "hi"}], "usage": {"input_tokens": 11, "output_tokens": 7}}
    for _ in range(3):
        reply(local_bedrock, body)
    whole = bedrock.invoke_model(body=CLAUDE_BODY)
    assert record_of(whole)["usage"]["input_tokens"] == 11
    assert json.loads(whole["body"].read()) == body
    assert b"".join(bedrock.invoke_model(body=CLAUDE_BODY)["body"].iter_chunks(5)) == json.dumps(body).encode()
    with bedrock.invoke_model(body=CLAUDE_BODY)["body"] as stream:
        assert json.load(stream) == body


def test_cache_writes_are_told_apart_by_the_body(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    local_bedrock.usage = Usage(5, 6, 7, 8, 9)
    record = read(bedrock.invoke_model(body=CLAUDE_BODY))
    assert record["usage"] == local_bedrock.usage._asdict()
    assert record["cost_pico_usd"] == local_bedrock.ledger.cost_pico_usd(PRICES)
    assert record["estimated"] is False


def test_cache_writes_of_unknown_age_count_as_5_minutes(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    local_bedrock.usage = Usage(5, 6, 7, 8, 9)  # Nova's body does not tell them apart
    usage = read(bedrock.invoke_model(modelId="standard", body=NOVA_BODY))["usage"]
    assert (usage["cache_write_5m_tokens"], usage["cache_write_1h_tokens"]) == (17, 0)


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"completion": "x" * 31}, 11),  # rounded up
        ({"completion": "é" * 3}, 2),  # of bytes
        (b"x" * 31, 11),  # no JSON
        ([{"text": "x" * 30}], 10),
    ],
)
def test_an_answer_without_any_count_is_estimated_from_its_text(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, body: Any, output: int
) -> None:
    reply(local_bedrock, body)
    request = json.dumps({"prompt": "y" * 300, "max_tokens": 1}).encode()
    response = bedrock.invoke_model(body=request)
    record = record_of(response)
    assert record["estimated"] is True
    assert (record["usage"]["input_tokens"], record["usage"]["output_tokens"]) == (100, output)
    assert response["body"].read() == (body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize("body", [{"completion": "x" * 30}, ["x" * 30], b"x" * 30])
def test_input_counted_in_a_header_and_text_in_the_body_is_an_estimate(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, body: Any
) -> None:
    reply(local_bedrock, body, {"x-amzn-bedrock-input-token-count": "8"})
    record = read(bedrock.invoke_model(body=CLAUDE_BODY))
    assert (record["usage"]["input_tokens"], record["usage"]["output_tokens"]) == (8, 10)
    assert record["estimated"] is True


@pytest.mark.parametrize("key", ["embedding", "embeddingsByType"])
def test_embeddings_need_no_output_count(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, key: str) -> None:
    reply(local_bedrock, {key: [0.1]}, {"x-amzn-bedrock-input-token-count": "8"})
    record = read(bedrock.invoke_model(modelId="embed", body=b'{"inputText": "x"}'))
    assert (record["usage"]["input_tokens"], record["usage"]["output_tokens"]) == (8, 0)
    assert record["estimated"] is False


# --- bodies that break off


def test_a_body_that_breaks_off_after_whole_headers_was_metered_exactly(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    local_bedrock.drop_next(when="body")
    response = bedrock.invoke_model(modelId="economy", body=NOVA_BODY)
    assert record_of(response)["estimated"] is False
    with pytest.raises(BROKEN):
        response["body"].read()
    assert spent(bedrock)[2] == (1, local_bedrock.ledger.cost_pico_usd(PRICES))


def test_a_body_that_breaks_off_before_it_tells_cache_writes_apart_is_an_estimate(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    local_bedrock.usage = Usage(5, 6, 0, 8, 0)
    local_bedrock.drop_next(when="body")
    with pytest.raises(BROKEN) as caught:
        bedrock.invoke_model(body=CLAUDE_BODY)
    assert "label asked premium, served premium" in caught.value.__notes__[0]
    assert spent(bedrock)[0] == (1, local_bedrock.ledger.cost_pico_usd(PRICES))


def test_a_body_that_breaks_off_and_no_headers_is_an_estimate_of_the_worst(local_bedrock: LocalBedrock) -> None:
    config = budget()
    config["model_labels"]["picture"] = {**priced(STANDARD), "id": "amazon.titan-image-generator-v2:0"}
    local_bedrock.drop_next(when="body")
    with metered(local_bedrock, config=config) as bedrock:
        with pytest.raises(BROKEN) as caught:
            bedrock.invoke_model(modelId="picture", body=b'{"prompt": "three bytes", "max_tokens": 50}')
        assert "label asked picture, served picture (amazon.titan-image" in caught.value.__notes__[0]
        assert stored(bedrock, "picture") == (4 * 800_000 + 50 * 3_200_000, Usage(4, 50), 1)

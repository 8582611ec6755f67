"""What a failed call costs: nothing if it was refused or never left, an estimate where nobody can know."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions
import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from metered import ECONOMY, HELLO, NOVA_BODY, ONE_ATTEMPT, budget, metered, record_of, served, spent
from streaming import KINDS, serve

from bedrock_budget import PriceKeeperClient
from bedrock_budget.outcomes import outcome_of
from bedrock_budget.testing import LocalBedrock, Request

METHODS: dict[str, dict[str, Any]] = {
    "converse": {"messages": HELLO, "inferenceConfig": {"maxTokens": 50}},
    "invoke_model": {"body": b'{"messages": [], "inferenceConfig": {"maxTokens": 50}}'},
    "converse_stream": {"messages": HELLO, "inferenceConfig": {"maxTokens": 50}},
    "invoke_model_with_response_stream": {"body": b'{"messages": [], "inferenceConfig": {"maxTokens": 50}}'},
}
each_method = pytest.mark.parametrize("method", METHODS)
REFUSALS = [
    (429, "ThrottlingException"),
    (400, "ValidationException"),
    (403, "AccessDeniedException"),
    (404, "ResourceNotFoundException"),
    (429, "ModelNotReadyException"),
    (500, "InternalServerException"),
    (503, "ServiceUnavailableException"),
    (418, "SomethingNewException"),
]


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    with metered(local_bedrock) as client:
        yield client


def fails(bedrock: PriceKeeperClient, method: str, kind: type[BaseException], **arguments: Any) -> Any:
    """The exception of a call of the economy label."""
    with pytest.raises(kind) as caught:
        getattr(bedrock, method)(**{"modelId": "economy", **METHODS[method], **arguments})
    assert caught.value.__notes__ == [f"bedrock_budget: label asked economy, served economy ({ECONOMY})"]
    return caught.value


def only(bedrock: PriceKeeperClient) -> tuple[int, int, int]:
    """(settled calls, input tokens, output tokens) of the economy label."""
    row = bedrock.status()[2]
    assert (row.spend_usd_micros > 0) is (row.requests > 0)
    return row.requests, row.input_tokens, row.output_tokens


# --- refused: nothing


@each_method
@pytest.mark.parametrize(("status", "code"), REFUSALS)
def test_an_error_of_the_service_costs_nothing_and_is_boto3s(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, method: str, status: int, code: str
) -> None:
    local_bedrock.fail_next(2, status=status, code=code, message="why")
    with pytest.raises(ClientError) as plain:
        getattr(bedrock._client, method)(modelId=ECONOMY, **METHODS[method])
    error = fails(bedrock, method, ClientError)
    assert type(error) is type(plain.value)
    assert str(error) == str(plain.value)
    assert error.response["Error"] == plain.value.response["Error"]
    record = record_of(error)
    assert (record["label"], record["model_id"], record["reason"]) == ("economy", ECONOMY, "requested")
    assert record["cost_pico_usd"] == record["cost_usd_micros"] == 0
    assert set(record["usage"].values()) == {0}
    assert record["estimated"] is False
    assert spent(bedrock) == [(0, 0)] * 3


def test_the_note_names_label_asked_and_served(local_bedrock: LocalBedrock) -> None:
    local_bedrock.fail_next(status=400, code="ValidationException", message="This model does not take tools.")
    with (
        metered(local_bedrock, config=budget({"premium": 0, "standard": 0})) as bedrock,
        pytest.raises(ClientError, match="does not take tools") as caught,
    ):
        bedrock.converse(messages=HELLO)
    assert caught.value.__notes__ == [f"bedrock_budget: label asked premium, served economy ({ECONOMY})"]


def test_throttling_that_botocore_repeats_is_charged_once(local_bedrock: LocalBedrock) -> None:
    local_bedrock.fail_next(1)
    client = local_bedrock.client(config=Config(retries={"total_max_attempts": 2}))
    with metered(local_bedrock, client=client) as bedrock:
        record = record_of(bedrock.converse(modelId="economy", messages=HELLO))
        assert record["usage"]["output_tokens"] == 20
        assert spent(bedrock)[2] == (1, record["cost_pico_usd"])


@each_method
def test_parameters_that_boto3_refuses_cost_nothing(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, method: str
) -> None:
    error = fails(bedrock, method, ParamValidationError, unknownParameter=1)
    with pytest.raises(ParamValidationError) as plain:
        getattr(bedrock._client, method)(modelId=ECONOMY, **METHODS[method], unknownParameter=1)
    assert str(error) == str(plain.value)
    assert only(bedrock) == (0, 0, 0)
    assert served(local_bedrock) == []


@each_method
def test_a_connection_that_is_refused_costs_nothing(local_bedrock: LocalBedrock, method: str) -> None:
    with metered(local_bedrock) as bedrock:
        local_bedrock.stop()
        fails(bedrock, method, EndpointConnectionError)
        assert only(bedrock) == (0, 0, 0)


def test_a_proxy_that_is_away_costs_nothing(local_bedrock: LocalBedrock) -> None:
    with LocalBedrock() as stopped:
        nowhere = stopped.url
    client = local_bedrock.client(config=ONE_ATTEMPT.merge(Config(proxies={"http": nowhere})))
    with metered(local_bedrock, client=client) as bedrock:
        fails(bedrock, "converse", ProxyConnectionError)
        assert only(bedrock) == (0, 0, 0)
    assert served(local_bedrock) == []


def test_missing_credentials_cost_nothing(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    def deny(**_: object) -> None:
        raise NoCredentialsError

    bedrock._client.meta.events.register("before-sign.bedrock-runtime", deny)
    fails(bedrock, "converse", NoCredentialsError)
    assert only(bedrock) == (0, 0, 0)
    assert served(local_bedrock) == []


def test_a_text_file_as_a_body_fails_before_it_is_sent(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    fails(bedrock, "invoke_model", TypeError, body=io.StringIO("{}"))
    assert only(bedrock) == (0, 0, 0)
    assert served(local_bedrock) == []


# --- unknown: an estimate


@each_method
def test_a_read_timeout_is_an_estimate_of_the_worst(local_bedrock: LocalBedrock, method: str) -> None:
    local_bedrock.latency_secs = 60
    client = local_bedrock.client(config=ONE_ATTEMPT.merge(Config(read_timeout=0.1)))
    with metered(local_bedrock, client=client) as bedrock:
        fails(bedrock, method, ReadTimeoutError)
        requests, tokens, output = only(bedrock)
        assert (requests, output) == (1, 50)
        assert tokens > 0


@each_method
def test_a_connection_lost_after_sending_is_an_estimate(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, method: str
) -> None:
    local_bedrock.drop_next(when="after")
    fails(bedrock, method, ConnectionClosedError)
    assert only(bedrock)[0] == 1
    assert only(bedrock)[2] == 50


def test_without_a_limit_of_its_own_the_worst_is_4096_tokens(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    local_bedrock.drop_next(when="after")
    fails(bedrock, "converse", ConnectionClosedError, inferenceConfig={})
    assert only(bedrock)[2] == 4_096


class Closing(io.BytesIO):
    """A file that is closed by the time its body is asked for again."""


LONG = {"messages": [{"role": "user", "content": [{"text": "x" * 30_000}]}], "inferenceConfig": {"maxTokens": 9_000}}


@pytest.mark.parametrize(
    ("make", "tokens", "output"),
    [
        (bytes, 10_000, 9_000),
        (bytearray, 10_000, 9_000),
        (bytes.decode, 10_000, 9_000),
        (io.BytesIO, 10_000, 9_000),
        (lambda data: lambda decision: data, 10_000, 9_000),
        (lambda data: lambda decision: LONG, 10_000, 9_000),
        (lambda data: b"x" + data, 10_000, 4_096),  # no JSON: its bytes, and no limit is known
        (lambda data: "x" + data.decode(), 10_000, 4_096),
        (lambda data: b"\xff" * 3_000, 3_000, 4_096),  # no text either
        (lambda data: b'{"source": {"type": "base64", "data": "' + b"A" * 900_000 + b'"}}', 1_600, 4_096),
        (lambda data: b"[" * 30_000, 10_000, 4_096),
        (Closing, 1_600, 4_096),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_estimate_knows_what_is_in_an_invoke_body(
    bedrock: PriceKeeperClient, make: Callable[[bytes], Any], tokens: int, output: int
) -> None:
    body = make(json.dumps(LONG).encode())

    def interrupt(**_: object) -> None:
        if isinstance(body, Closing):
            body.close()
        elif isinstance(body, io.BytesIO):
            body.seek(5)
        raise RuntimeError("nobody knows how far it got")

    bedrock._client.meta.events.register("before-send.bedrock-runtime.InvokeModel", interrupt)
    fails(bedrock, "invoke_model", RuntimeError, body=body)
    requests, input_tokens, output_tokens = only(bedrock)
    assert (requests, output_tokens) == (1, output)
    assert tokens <= input_tokens <= tokens + 50
    if type(body) is io.BytesIO:
        assert body.tell() == 5  # where it was left


def test_a_body_nested_too_deep_to_look_into_is_metered_all_the_same(bedrock: PriceKeeperClient) -> None:
    def interrupt(**_: object) -> None:
        raise RuntimeError("nobody knows how far it got")

    bedrock._client.meta.events.register("before-send.bedrock-runtime.InvokeModel", interrupt)
    depths = (460, 800, 100_000)
    for depth in depths:
        fails(bedrock, "invoke_model", RuntimeError, body=b'{"a":' * depth + b"1" + b"}" * depth)
    assert only(bedrock)[0] == len(depths)


def test_a_streams_estimate_does_not_touch_a_file_that_the_caller_has_back(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    file = io.BytesIO(json.dumps(LONG).encode())
    response = bedrock.invoke_model_with_response_stream(modelId="economy", body=file)
    file.close()
    response["body"].close()
    assert record_of(response)["usage"]["input_tokens"] >= 10_000


def test_a_reply_that_is_cut_off_is_an_estimate(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    for answer in (b"", b'{"output": {"mess', b'{"metrics": {"latencyMs": 1}}'):
        local_bedrock.raw_next(200, {"content-type": "application/json"}, answer)
        record: dict[str, Any] = {}
        try:
            record = record_of(bedrock.converse(modelId="economy", **METHODS["converse"]))
        except ResponseParserError:
            pass
        else:
            assert record["estimated"] is True
            assert record["usage"]["output_tokens"] == 50
    local_bedrock.drop_next(when="body")
    assert record_of(bedrock.converse(modelId="economy", **METHODS["converse"]))["estimated"] is True
    assert only(bedrock)[0] == 4
    assert only(bedrock)[2] == 200


@pytest.mark.parametrize("usage", [None, {}, {"totalTokens": 9}])
def test_an_answer_without_usage_is_estimated_from_what_it_says(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, usage: dict[str, int] | None
) -> None:
    answer = {"output": {"message": {"role": "", "content": [{"text": "x" * 30}]}}, "stopReason": "end_turn"}
    body = json.dumps(answer if usage is None else {**answer, "usage": usage}).encode()
    local_bedrock.raw_next(200, {"content-type": "application/json"}, body)
    record = record_of(bedrock.converse(modelId="economy", messages=HELLO))
    assert record["estimated"] is True
    assert record["usage"]["output_tokens"] == 10
    assert record["cost_pico_usd"] > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, RuntimeError])
def test_an_interrupt_during_the_call_is_an_estimate(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, error: type[BaseException]
) -> None:
    def interrupt(**_: object) -> None:
        raise error

    bedrock._client.meta.events.register("response-received.bedrock-runtime.Converse", interrupt)
    fails(bedrock, "converse", error)
    assert only(bedrock)[0] == 1
    assert only(bedrock)[2] == 50


def test_an_interrupt_while_a_stream_is_read_is_an_estimate(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    for kind in KINDS:
        serve(local_bedrock, [kind.delta("x" * 30), kind.delta("y", 1)])
        response = kind.open(bedrock)
        events = iter(response[kind.key])
        next(events)
        with pytest.raises(KeyboardInterrupt) as caught:
            events.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
        assert "label asked economy" in caught.value.__notes__[0]
        assert record_of(response)["usage"]["output_tokens"] >= 10
        assert record_of(response)["estimated"] is True


def test_a_call_that_botocore_sends_again_after_a_lost_answer_is_metered_once(local_bedrock: LocalBedrock) -> None:
    local_bedrock.drop_next(when="after")
    client = local_bedrock.client(config=Config(retries={"total_max_attempts": 2, "mode": "standard"}))
    with metered(local_bedrock, client=client) as bedrock:
        response = bedrock.invoke_model(modelId="economy", body=NOVA_BODY)
        assert response["body"].read()
        assert response["ResponseMetadata"]["RetryAttempts"] == 1
        assert only(bedrock) == (1, 3, 20)
    assert len(served(local_bedrock)) == 2


def test_failures_and_answers_in_turn(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    seen: list[Request] = []
    local_bedrock.on_request = seen.append  # type: ignore[assignment]
    for number in range(4):
        if number % 2:
            local_bedrock.fail_next(status=503, code="ServiceUnavailableException")
            fails(bedrock, "converse", ClientError)
        else:
            bedrock.converse(modelId="economy", messages=HELLO)
    assert only(bedrock) == (2, 6, 40)
    assert len(seen) == 4


# --- by exception


def _made(kind: type[Exception]) -> Exception:
    made = kind.__new__(kind)
    if isinstance(made, ClientError):
        made.response = {}  # type: ignore[typeddict-item]
    return made


def test_every_error_of_botocore_is_either_known_to_be_sent_or_not() -> None:
    sent = {
        name
        for name, kind in vars(botocore.exceptions).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and outcome_of(_made(kind)) == "unanswered"
    }
    assert sent == {
        *("ReadTimeoutError", "ConnectionClosedError", "ResponseStreamingError"),
        *("IncompleteReadError", "HTTPClientError", "FlexibleChecksumError"),
    } | {name for name in sent if not issubclass(getattr(botocore.exceptions, name), BotoCoreError)}
    assert outcome_of(ResponseParserError()) == "unanswered"
    assert outcome_of(ConnectTimeoutError(endpoint_url="http://x")) == "not_sent"

"""What goes wrong on purpose, as a boto3 client sees it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EventStreamError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from urllib3.exceptions import ProtocolError

from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import LocalBedrock, RawReply, Request
from bedrock_budget.testing.event_stream import event_frame

NOVA = "amazon.nova-micro-v1:0"
TITAN = "amazon.titan-text-lite-v1"
ONCE = Config(retries={"total_max_attempts": 1})
MESSAGES: Any = [{"role": "user", "content": [{"text": "What is it?"}]}]
INVOKE: Any = {"modelId": TITAN, "body": json.dumps({"inputText": "What is it?"})}


@pytest.fixture
def server() -> Iterator[LocalBedrock]:
    with LocalBedrock() as server:
        yield server


@pytest.fixture
def bedrock(server: LocalBedrock) -> Iterator[Any]:
    client = server.client(config=ONCE)
    yield client
    client.close()


def events_until_error(stream: Any, errors: type[Exception]) -> tuple[list[Any], Exception]:
    events: list[Any] = []
    with pytest.raises(errors) as caught:
        events.extend(stream)  # extend keeps what came before the error
    stream.close()  # botocore does not: a socket would stay open
    return events, caught.value


def test_refusals_keep_their_code_and_are_not_billed(server: LocalBedrock, bedrock: Any) -> None:
    server.fail_next(2, message="slow down", operation="Converse", model_id=NOVA)
    bedrock.converse(modelId="other.model", messages=MESSAGES)
    bedrock.invoke_model(**INVOKE)
    server.ledger.clear()
    for _ in range(2):
        with pytest.raises(bedrock.exceptions.ThrottlingException, match="slow down") as caught:
            bedrock.converse(modelId=NOVA, messages=MESSAGES)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    bedrock.converse(modelId=NOVA, messages=MESSAGES)
    first, _, last = server.ledger.entries()
    assert (first.status, first.usage, first.billed) == (429, Usage(), False)
    assert first.request_id != last.request_id
    assert server.ledger.usage_by_model() == {NOVA: Usage(2, 20)}


def test_any_error_can_be_had(server: LocalBedrock, bedrock: Any) -> None:
    server.fail_next(status=403, code="AccessDeniedException", message="no")
    with pytest.raises(ClientError) as caught:
        list(bedrock.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"])
    assert caught.value.response["Error"] == {"Code": "AccessDeniedException", "Message": "no"}


def test_faults_that_have_not_happened_can_be_cleared(server: LocalBedrock, bedrock: Any) -> None:
    server.fail_next(5)
    server.clear_faults()
    bedrock.converse(modelId=NOVA, messages=MESSAGES)
    with pytest.raises(ValueError, match="one request at least"):
        server.fail_next(0)
    with pytest.raises(ValueError, match="before"):
        server.drop_next(when="soon")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["converse", "converse_stream"])
@pytest.mark.parametrize(("when", "billed"), [("before", {}), ("after", {NOVA: Usage(2, 20)})])
def test_dropped_before_any_reply(
    server: LocalBedrock, bedrock: Any, method: str, when: Any, billed: dict[str, Usage]
) -> None:
    server.drop_next(when=when)
    with pytest.raises(ConnectionClosedError):
        getattr(bedrock, method)(modelId=NOVA, messages=MESSAGES)
    assert server.ledger.usage_by_model() == billed


def test_a_lost_reply_that_botocore_retries_is_billed_twice(server: LocalBedrock) -> None:
    client = server.client(config=Config(retries={"total_max_attempts": 2, "mode": "standard"}))
    server.drop_next(when="after")
    reply = client.converse(modelId=NOVA, messages=MESSAGES)
    client.close()
    assert reply["ResponseMetadata"]["RetryAttempts"] == 1
    assert server.ledger.usage_by_model() == {NOVA: Usage(4, 40)}


def test_dropped_in_mid_body(server: LocalBedrock, bedrock: Any) -> None:
    server.drop_next(3, when="body")
    # botocore does not check the length of a body that it parses: what is left is a reply without a usage.
    reply = bedrock.converse(modelId=NOVA, messages=MESSAGES)
    assert "usage" not in reply
    reply = bedrock.invoke_model(**INVOKE)
    with pytest.raises(ResponseStreamingError):
        reply["body"].read()
    stream = bedrock.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"]
    events, _ = events_until_error(stream, ProtocolError)
    assert 0 < len(events) < 24
    assert server.ledger.usage_by_model() == {NOVA: Usage(4, 40), TITAN: Usage(2, 20)}


def test_a_stream_broken_by_an_exception(server: LocalBedrock, bedrock: Any) -> None:
    server.break_stream_next(after_events=3, error="throttlingException", message="too much")
    bedrock.converse(modelId=NOVA, messages=MESSAGES)  # not a stream: not its turn
    reply = bedrock.converse_stream(modelId=NOVA, messages=MESSAGES)
    events, error = events_until_error(reply["stream"], EventStreamError)
    assert [next(iter(event)) for event in events] == ["messageStart", *["contentBlockDelta"] * 3]
    assert isinstance(error, EventStreamError)
    assert error.response["Error"] == {"Code": "throttlingException", "Message": "too much"}
    assert [entry.complete for entry in server.ledger.entries()] == [True, False]
    assert server.ledger.usage_by_model() == {NOVA: Usage(4, 40)}
    assert len(list(bedrock.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"])) == 24


def test_a_stream_cut_off(server: LocalBedrock, bedrock: Any) -> None:
    for count in (0, 4):
        server.break_stream_next(after_events=count, error=None)
        reply = bedrock.invoke_model_with_response_stream(**INVOKE)
        events, _ = events_until_error(reply["body"], ProtocolError)
        assert len(events) == count
    assert [entry.complete for entry in server.ledger.entries()] == [False, False]


def test_a_caller_that_closes_early_is_billed_whole(server: LocalBedrock, bedrock: Any) -> None:
    server.event_latency_secs = 3600
    stream = bedrock.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"]
    assert "messageStart" in next(iter(stream))
    stream.close()
    (entry,) = server.ledger.entries()
    assert (entry.usage, entry.complete) == (Usage(2, 20), True)


def test_a_caller_that_times_out_is_billed_whole(server: LocalBedrock) -> None:
    server.latency_secs = 3600
    client = server.client(config=ONCE.merge(Config(read_timeout=0.05)))
    before = time.time()
    with pytest.raises(ReadTimeoutError):
        client.converse(modelId=NOVA, messages=MESSAGES)
    client.close()
    (entry,) = server.ledger.entries()
    assert entry.usage == Usage(2, 20)
    assert before <= entry.started_at <= time.time()


def test_streams_with_latency_between_events(server: LocalBedrock, bedrock: Any) -> None:
    server.latency_secs = server.event_latency_secs = 0.001
    stream = bedrock.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"]
    events = list(stream)
    assert len(events) == 24
    assert events[-1]["metadata"]["metrics"]["latencyMs"] == 21


def test_raw_replies_are_served_as_they_are(server: LocalBedrock, bedrock: Any) -> None:
    body = b'{"output":{"message":{"role":"assistant","content":[]}},"usage":{"inputTokens":3,"outputTokens":4,'
    body += b'"totalTokens":7},"stopReason":"tool_use","metrics":{"latencyMs":1}}'
    recorded = {"Content-Type": "application/json", "X-Amzn-RequestId": "recorded-1", "Content-Length": "9"}
    server.raw_next(200, recorded, body, usage=Usage(3, 4), operation="Converse")
    server.raw_next(400, {"x-amzn-errortype": "ValidationException:http://x/"}, b'{"message":"bad"}', model_id=NOVA)
    reply = bedrock.converse(modelId=NOVA, messages=MESSAGES)
    assert (reply["stopReason"], reply["usage"]["totalTokens"]) == ("tool_use", 7)
    assert reply["ResponseMetadata"]["RequestId"] == "recorded-1"
    with pytest.raises(bedrock.exceptions.ValidationException, match="bad"):
        bedrock.converse(modelId=NOVA, messages=MESSAGES)
    assert [(entry.request_id == "recorded-1", entry.status) for entry in server.ledger.entries()] == [
        (True, 200),
        (False, 400),
    ]
    assert server.ledger.usage_by_model() == {NOVA: Usage(3, 4)}


def test_a_hook_may_answer_or_leave_it(server: LocalBedrock, bedrock: Any) -> None:
    frames = event_frame("messageStart", {"role": "assistant"})
    reply = RawReply(headers={"content-type": "application/vnd.amazon.eventstream"}, body=frames)

    def hook(request: Request) -> RawReply | None:
        return reply if request.operation == "ConverseStream" else None

    server.on_request = hook
    assert list(bedrock.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"]) == [
        {"messageStart": {"role": "assistant"}}
    ]
    assert bedrock.converse(modelId=NOVA, messages=MESSAGES)["usage"]["outputTokens"] == 20

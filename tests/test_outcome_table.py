"""Every row of the table of outcomes over real HTTP: the cost that is settled, the reason, the counter."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError
from doubles import UnreliableStore
from metered import ECONOMY, HELLO, NOVA_BODY, PRICES, metered, record_of, stored
from streaming import CONVERSE, KINDS, Kind, serve

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.outcomes import OUTCOMES, Outcome
from bedrock_budget.core.pricing import cost_pico_usd
from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import LocalBedrock, ManualClock

ARGUMENTS: dict[str, Any] = {"modelId": "economy", "messages": HELLO, "inferenceConfig": {"maxTokens": 50}}
INPUT = 13  # tokens, by an estimate of ARGUMENTS: 38 bytes of text
WARNED = {"model_failed", "unanswered", "no_usage", "stream_error", "stream_cut"}

Scenario = Callable[[LocalBedrock, pytest.LogCaptureFixture], None]
scenarios: dict[str, list[Any]] = {}


def shows(outcome: Outcome, usage: Usage | None, *variants: Any) -> Callable[[Any], Any]:
    """A scenario that ends with one call of this outcome, and this usage metered (None: no call is counted)."""

    def register(scenario: Any) -> Any:
        name = outcome
        scenarios.setdefault(name, []).extend(
            pytest.param(outcome, usage, scenario, variant, id=f"{name}-{variant}" if variants else name)
            for variant in variants or (None,)
        )
        return scenario

    return register


def converse(bedrock: PriceKeeperClient) -> Any:
    """The response, or the exception, of one call."""
    try:
        return bedrock.converse(**ARGUMENTS)
    except (ClientError, BotoCoreError) as exc:
        return exc


@shows("complete", Usage(3, 20))
def complete(server: LocalBedrock, bedrock: PriceKeeperClient, _: None) -> None:
    assert record_of(converse(bedrock))["estimated"] is False


@shows("drained", Usage(3, 20), *KINDS)
def drained(server: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind) -> None:
    stream = kind.open(bedrock)[kind.key]
    next(iter(stream))
    stream.close()


@shows("guardrail_input", Usage(), *KINDS, "converse", "invoke_model")
def guardrail_input(server: LocalBedrock, bedrock: PriceKeeperClient, variant: Any) -> None:
    if variant == "converse":
        server.raw_next(200, {}, answer(0, 0, stopReason="guardrail_intervened"))
        assert record_of(converse(bedrock))["estimated"] is False
    elif variant == "invoke_model":
        body = b'{"output": {}, "amazon-bedrock-guardrailAction": "INTERVENED"}'
        server.raw_next(200, {}, body)
        response = bedrock.invoke_model(modelId="economy", body=NOVA_BODY)
        assert response["body"].read() == body
    else:
        from bedrock_budget.testing.event_stream import chunk_frame, event_frame

        if variant is CONVERSE:
            serve(server, [event_frame("messageStop", {"stopReason": "guardrail_intervened"}), variant.usage(0, 0)])
        else:  # as recorded: tokens are counted although no model ran, and there are no metrics
            blocked = {"outputText": "Input blocked", "totalOutputTextTokenCount": 3, "inputTextTokenCount": 6}
            serve(server, [chunk_frame({**blocked, "amazon-bedrock-guardrailAction": "INTERVENED"})])
        list(variant.open(bedrock)[variant.key])


@shows("guardrail_output", Usage(28, 26), *KINDS, "converse", "invoke_model")
def guardrail_output(server: LocalBedrock, bedrock: PriceKeeperClient, variant: Any) -> None:
    if variant == "converse":
        server.raw_next(200, {}, answer(28, 26, stopReason="guardrail_intervened"))
        assert record_of(converse(bedrock))["estimated"] is False
    elif variant == "invoke_model":
        usage = '"usage": {"inputTokens": 28, "outputTokens": 26}'
        server.raw_next(200, {}, f'{{{usage}, "amazon-bedrock-guardrailAction": "INTERVENED"}}'.encode())
        bedrock.invoke_model(modelId="economy", body=NOVA_BODY)
    else:
        from bedrock_budget.testing.event_stream import chunk_frame, event_frame

        if variant is CONVERSE:
            serve(server, [event_frame("messageStop", {"stopReason": "guardrail_intervened"}), variant.usage(28, 26)])
        else:
            metrics = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 28, "outputTokenCount": 26}}
            serve(server, [chunk_frame({**metrics, "amazon-bedrock-guardrailAction": "INTERVENED"})])
        list(variant.open(bedrock)[variant.key])


@shows("refused", None, 400, 403, 404, 429, 500, 503)
def refused(server: LocalBedrock, bedrock: PriceKeeperClient, status: int) -> None:
    server.fail_next(status=status, code="SomeException", message="why")
    record = record_of(converse(bedrock))
    assert (record["cost_pico_usd"], record["estimated"]) == (0, False)


@shows("not_sent", None)
def not_sent(server: LocalBedrock, bedrock: PriceKeeperClient, _: None) -> None:
    server.stop()
    assert isinstance(converse(bedrock), BotoCoreError)


@shows("model_failed", Usage(INPUT, 0), 408, 424)
def model_failed(server: LocalBedrock, bedrock: PriceKeeperClient, status: int) -> None:
    code = {408: "ModelTimeoutException", 424: "ModelErrorException"}[status]
    server.fail_next(status=status, code=code, message="why")
    assert record_of(converse(bedrock))["estimated"] is True


@shows("unanswered", Usage(INPUT, 50), "after", "body", "timeout")
def unanswered(server: LocalBedrock, bedrock: PriceKeeperClient, when: Any) -> None:
    if when == "timeout":
        server.latency_secs = 60
    else:
        server.drop_next(when=when)
    converse(bedrock)
    server.latency_secs = 0.0


@shows("no_usage", Usage(INPUT, 2))
def no_usage(server: LocalBedrock, bedrock: PriceKeeperClient, _: None) -> None:
    server.raw_next(200, {}, b'{"output": {"message": {"content": [{"text": "hello"}]}}}')
    assert record_of(converse(bedrock))["estimated"] is True


@shows("stream_error", Usage(INPUT, 4), CONVERSE)
def stream_error(server: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind) -> None:
    server.text = "12345678 0"
    server.break_stream_next(after_events=20, error="modelStreamErrorException")
    with pytest.raises(EventStreamError):
        list(bedrock.converse_stream(**ARGUMENTS)["stream"])


@shows("stream_cut", Usage(INPUT, 4), CONVERSE)
def stream_cut(server: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind) -> None:
    server.text = "12345678 0"
    server.break_stream_next(after_events=20, error=None)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        list(bedrock.converse_stream(**ARGUMENTS)["stream"])


@shows("stream_abandoned", Usage(INPUT, 1), CONVERSE)
def stream_abandoned(server: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind) -> None:
    serve(server, [kind.delta("ab"), kind.delta("c"), kind.delta("never read"), kind.usage(1, 1)])
    bedrock._keeper.drainer = None  # as with `drain_abandoned=False`
    stream = bedrock.converse_stream(**ARGUMENTS)["stream"]
    events = iter(stream)
    next(events)
    next(events)
    stream.close()


@shows("stream_open", Usage(INPUT, 1), CONVERSE)
def stream_open(server: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind) -> None:
    serve(server, [kind.delta("abc"), kind.usage(1, 1)])
    stream = bedrock.converse_stream(**ARGUMENTS)["stream"]
    next(iter(stream))
    bedrock._keeper.at_exit(10)


@shows("retried", Usage(3, 20))
def retried(server: LocalBedrock, bedrock: PriceKeeperClient, _: None) -> None:
    server.drop_next(when="after")
    response = converse(bedrock)
    assert response["ResponseMetadata"]["RetryAttempts"] == 1
    assert record_of(response)["estimated"] is False


def answer(input_tokens: int, output_tokens: int, **members: str) -> bytes:
    """A Converse answer."""
    import json

    usage = {"inputTokens": input_tokens, "outputTokens": output_tokens, "totalTokens": input_tokens + output_tokens}
    return json.dumps({"output": {"message": {"content": [{"text": "hello"}]}}, "usage": usage, **members}).encode()


@pytest.mark.parametrize(
    ("outcome", "usage", "scenario", "variant"), [each for params in scenarios.values() for each in params]
)
def test_an_outcome_is_settled_logged_and_counted(
    caplog: pytest.LogCaptureFixture, outcome: Outcome, usage: Usage | None, scenario: Any, variant: Any
) -> None:
    caplog.set_level(logging.DEBUG, "bedrock_budget")
    attempts = 2 if outcome == "retried" else 1
    patience = 0.2 if variant == "timeout" else 60
    with LocalBedrock() as server:
        config = Config(retries={"total_max_attempts": attempts}, read_timeout=patience)
        bedrock = metered(server, client=server.client(config=config), drain_abandoned=True)
        with bedrock:
            scenario(server, bedrock, variant)
            counted = stored(bedrock, "economy")
            (row,) = [row for row in bedrock.status() if row.label == "economy"]
    expected = Usage() if usage is None else usage
    assert counted.usage == expected
    assert counted.cost_pico_usd == cost_pico_usd(expected, PRICES[ECONOMY])
    assert counted.requests == (0 if usage is None else 1)
    complete = {"complete": 1 if outcome in ("complete", "retried") else 0}
    assert row.outcomes == ({**complete, outcome: 1} if outcome != "complete" else complete)
    told = [record for record in caplog.records if OUTCOMES[outcome].reason in record.getMessage()]
    if outcome != "complete":
        (record,) = told
        assert record.getMessage().startswith(f"{outcome}: ")
        assert (record.levelno == logging.WARNING) is (outcome in WARNED)


def test_a_transaction_in_doubt_is_counted_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, local_bedrock: LocalBedrock, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    store, clock = UnreliableStore(), ManualClock()
    with metered(local_bedrock, store=store, clock=clock, on_store_error="open") as bedrock:
        monkeypatch.setattr(type(bedrock._keeper.meter), "_start_thread", lambda self: None)
        store.lose_replies = 1
        bedrock.converse(**ARGUMENTS)
        clock.advance(timedelta(minutes=9))  # the sandbox was frozen
        sent = len(store.batches)
        bedrock.converse(**ARGUMENTS)
        assert len(store.batches) == sent + 1  # the second call's alone
        (row,) = [row for row in bedrock.status() if row.label == "economy"]
    assert row.outcomes == {"complete": 2, "in_doubt": 1}
    assert row.requests == 2
    (told,) = [record for record in caplog.records if record.getMessage().startswith("in doubt: ")]
    assert told.levelno == logging.ERROR


@pytest.mark.parametrize(("step_secs", "counted"), [(-0.01, 1), (-3600, 0), (500, 1), (541, 0)])
def test_only_a_clock_that_moved_far_puts_a_transaction_in_doubt(
    monkeypatch: pytest.MonkeyPatch, local_bedrock: LocalBedrock, step_secs: float, counted: int
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    store, clock = UnreliableStore(), ManualClock()
    with metered(local_bedrock, store=store, clock=clock, on_store_error="open") as bedrock:
        monkeypatch.setattr(type(bedrock._keeper.meter), "_start_thread", lambda self: None)
        store.writes_fail = StoreError("no answer")
        bedrock.converse(**ARGUMENTS)
        store.come_back()
        clock.set(clock.now() + timedelta(seconds=step_secs))
        assert stored(bedrock, "economy").requests == counted


def test_a_write_that_was_refused_is_never_in_doubt(
    monkeypatch: pytest.MonkeyPatch, local_bedrock: LocalBedrock
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    store, clock = UnreliableStore(), ManualClock()
    with metered(local_bedrock, store=store, clock=clock, on_store_error="open") as bedrock:
        monkeypatch.setattr(type(bedrock._keeper.meter), "_start_thread", lambda self: None)
        refusal = StoreError("access denied")
        refusal.refused = True
        store.writes_fail = refusal
        bedrock.converse(**ARGUMENTS)
        store.come_back()
        clock.advance(timedelta(hours=1))
        assert stored(bedrock, "economy").requests == 1


def test_every_outcome_has_a_scenario() -> None:
    assert {*scenarios, "in_doubt"} == set(OUTCOMES)


def test_only_the_first_of_a_kind_is_a_warning(local_bedrock: LocalBedrock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bedrock_budget")
    with metered(local_bedrock) as bedrock:
        for _ in range(3):
            local_bedrock.drop_next(when="after")
            with suppress(BotoCoreError):
                converse(bedrock)
    levels = [record.levelno for record in caplog.records if record.getMessage().startswith("unanswered")]
    assert levels == [logging.WARNING, logging.DEBUG, logging.DEBUG]

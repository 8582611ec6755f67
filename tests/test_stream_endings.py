"""However a stream ends, its call is metered once: read, closed, broken, forgotten, forked, or shared by threads."""

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import EventStreamError, ResponseStreamingError
from metered import ECONOMY, metered, record_of, spent
from streaming import KINDS, Kind, open_sockets, serve
from urllib3.exceptions import ProtocolError

from bedrock_budget import PriceKeeperClient
from bedrock_budget.testing import LocalBedrock
from bedrock_budget.testing.event_stream import exception_frame

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.method)
BROKEN = (EventStreamError, ResponseStreamingError, ProtocolError)
EXACT = 3 * 35_000 + 20 * 140_000
EXCEPTIONS = (
    "internalServerException",
    "modelStreamErrorException",
    "validationException",
    "throttlingException",
    "serviceUnavailableException",
)


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    local_bedrock.text = "x" * 300  # 15 bytes an event: 5 tokens
    with metered(local_bedrock) as client:
        yield client


def assert_estimated_once(bedrock: PriceKeeperClient, record: dict[str, Any], output_tokens: int) -> None:
    assert spent(bedrock)[2] == (1, record["cost_pico_usd"])
    assert record["estimated"] is True
    assert record["usage"]["input_tokens"] > 0
    more = record["usage"]["output_tokens"] - output_tokens
    assert 0 <= more <= 3  # text around the answer, in the chunks of invoke_model
    gc.collect()
    assert spent(bedrock)[2][0] == 1


def read(stream: Any, events: int) -> None:
    for number, _ in enumerate(stream, 1):
        if number == events:
            break


# --- the caller ends it


@each_kind
def test_read_to_the_end_then_closed_and_closed_again(bedrock: PriceKeeperClient, kind: Kind) -> None:
    response = kind.open(bedrock)
    stream = response[kind.key]
    list(stream)
    stream.close()
    stream.close()
    assert list(stream) == []
    del stream
    record = record_of(response)
    del response
    gc.collect()
    assert spent(bedrock)[2] == (1, EXACT) == (1, record["cost_pico_usd"])


@each_kind
def test_closed_early_is_an_estimate_of_what_was_seen(bedrock: PriceKeeperClient, kind: Kind) -> None:
    response = kind.open(bedrock)
    read(response[kind.key], 4)  # the opening and three deltas
    assert record_of(response)["usage"] is None
    response[kind.key].close()
    response[kind.key].close()
    assert_estimated_once(bedrock, record_of(response), 15)


@each_kind
def test_closed_before_it_was_read(bedrock: PriceKeeperClient, kind: Kind) -> None:
    response = kind.open(bedrock)
    response[kind.key].close()
    assert_estimated_once(bedrock, record_of(response), 0)


@each_kind
def test_a_break_settles_nothing_and_a_second_loop_goes_on(bedrock: PriceKeeperClient, kind: Kind) -> None:
    plain = list(kind.open(bedrock._client, ECONOMY)[kind.key])
    response = kind.open(bedrock)
    stream = response[kind.key]
    seen = []
    for _ in range(3):
        for event in stream:
            seen.append(event)
            if len(seen) in (1, 5):
                break
        else:
            break
        assert spent(bedrock)[2] == (0, 0)
    assert seen == plain
    assert spent(bedrock)[2] == (1, EXACT)
    assert record_of(response)["estimated"] is False


@each_kind
def test_an_error_of_the_callers_own_settles_nothing(bedrock: PriceKeeperClient, kind: Kind) -> None:
    response = kind.open(bedrock)
    events = iter(response[kind.key])
    next(events)
    with pytest.raises(KeyError):  # what a framework's generator may throw in
        events.throw(KeyError("mine"))  # type: ignore[attr-defined]
    assert_estimated_once(bedrock, record_of(response), 0)


@each_kind
@pytest.mark.parametrize("events", [0, 4])
def test_a_forgotten_stream_is_settled_when_it_is_collected(
    bedrock: PriceKeeperClient, kind: Kind, events: int
) -> None:
    response = kind.open(bedrock)
    if events:
        read(response[kind.key], events)
    record = record_of(response)
    del response
    gc.collect()
    assert_estimated_once(bedrock, record, 15 if events else 0)


@each_kind
def test_a_forgotten_stream_is_settled_by_the_next_call(bedrock: PriceKeeperClient, kind: Kind) -> None:
    record = record_of(kind.open(bedrock))
    gc.collect()
    bedrock.decide()
    assert record["estimated"] is True


@each_kind
def test_a_stream_that_is_still_open_at_close_settles_later(local_bedrock: LocalBedrock, kind: Kind) -> None:
    with metered(local_bedrock) as bedrock:
        response = kind.open(bedrock)
    assert spent(bedrock)[2] == (0, 0)
    list(response[kind.key])
    assert bedrock._keeper.meter._outbox.dirty == {}
    assert spent(bedrock)[2] == (1, EXACT)


# --- the service ends it


@each_kind
@pytest.mark.parametrize("error", EXCEPTIONS)
def test_a_modelled_exception_is_boto3s_and_carries_the_record(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind, error: str
) -> None:
    local_bedrock.break_stream_next(2, after_events=3, error=error)
    with pytest.raises(EventStreamError) as plain:
        list(kind.open(bedrock._client, ECONOMY)[kind.key])
    response = kind.open(bedrock)
    with pytest.raises(EventStreamError) as ours:
        list(response[kind.key])
    assert str(ours.value) == str(plain.value)
    assert ours.value.response["Error"] == plain.value.response["Error"]
    assert record_of(ours.value) is record_of(response)
    assert ours.value.__notes__ == [f"bedrock_budget: label asked economy, served economy ({ECONOMY})"]
    assert_estimated_once(bedrock, record_of(response), 15)


@each_kind
def test_a_connection_that_is_cut_off_raises_as_in_boto3(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind
) -> None:
    local_bedrock.break_stream_next(2, after_events=3, error=None)
    errors = []
    for client, model_id in ((bedrock._client, ECONOMY), (bedrock, "economy")):
        response = kind.open(client, model_id)
        with pytest.raises(BROKEN) as caught:
            list(response[kind.key])
        errors.append(caught.value)
    assert type(errors[1]) is type(errors[0])
    assert "label asked economy" in errors[1].__notes__[0]
    assert_estimated_once(bedrock, record_of(response), 15)


@each_kind
def test_an_exception_after_the_usage_event_changes_nothing(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind
) -> None:
    serve(local_bedrock, [kind.delta("a"), kind.usage(7, 8), exception_frame("throttlingException", "late")])
    response = kind.open(bedrock)
    with pytest.raises(EventStreamError, match="late") as caught:
        list(response[kind.key])
    assert record_of(caught.value)["estimated"] is False
    assert spent(bedrock)[2] == (1, 7 * 35_000 + 8 * 140_000)


@each_kind
def test_a_refused_stream_costs_nothing(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind) -> None:
    local_bedrock.fail_next()
    with pytest.raises(bedrock.exceptions.ThrottlingException) as caught:
        kind.open(bedrock)
    assert record_of(caught.value)["cost_pico_usd"] == 0
    assert spent(bedrock)[2] == (0, 0)


@each_kind
def test_a_broken_stream_of_many_chunks_keeps_its_counts(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind
) -> None:
    local_bedrock.stream_events = 5_000
    local_bedrock.text = "x" * 15_000
    local_bedrock.break_stream_next(after_events=4_500)
    response = kind.open(bedrock)
    with pytest.raises(EventStreamError):
        list(response[kind.key])
    assert_estimated_once(bedrock, record_of(response), 4_500)


@each_kind
def test_no_socket_is_left_open(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind) -> None:
    ways: list[Callable[[Any], object]] = [list, lambda stream: stream.close(), lambda stream: read(stream, 3)]
    for way in ways:
        for _ in range(3):
            way(kind.open(bedrock)[kind.key])
    for error in ("throttlingException", None):
        local_bedrock.break_stream_next(error=error)
        with pytest.raises(BROKEN):
            list(kind.open(bedrock)[kind.key])
    assert spent(bedrock)[2][0] == 11
    assert open_sockets(local_bedrock.port) <= 1  # an idle one in the pool


# --- threads


@each_kind
def test_iterated_from_another_thread(bedrock: PriceKeeperClient, kind: Kind) -> None:
    response = kind.open(bedrock)
    seen: list[Any] = []
    events = iter(response[kind.key])
    next(events)
    thread = threading.Thread(target=lambda: seen.extend(events))
    thread.start()
    thread.join()
    assert len(seen) > 20
    assert spent(bedrock)[2] == (1, EXACT)


@each_kind
def test_closed_while_another_thread_iterates(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind
) -> None:
    rounds = 20
    for number in range(rounds):
        stream = kind.open(bedrock)[kind.key]
        begun = threading.Event()

        def iterate(stream: Any = stream, begun: threading.Event = begun, number: int = number) -> None:
            try:
                for count, _ in enumerate(stream):
                    if count == number:
                        begun.set()
            except Exception:
                pass
            finally:
                begun.set()

        thread = threading.Thread(target=iterate)
        thread.start()
        begun.wait()
        stream.close()
        thread.join()
    assert spent(bedrock)[2][0] == rounds

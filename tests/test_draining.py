"""A stream that its caller gives up is drained, and costs what the server says it cost; or is estimated, marked."""

import gc
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from metered import HELLO, NOVA_BODY, PRICES, STANDARD, metered, stored

from bedrock_budget import PriceKeeperClient, draining
from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import LocalBedrock

OPERATIONS = ["converse_stream", "invoke_model_with_response_stream"]


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    with metered(local_bedrock, drain_abandoned=True) as client:
        yield client


def opened(bedrock: PriceKeeperClient, operation: str) -> tuple[Any, dict[str, Any]]:
    """A stream of the standard label, and its record."""
    if operation == "converse_stream":
        response = bedrock.converse_stream(modelId="standard", messages=HELLO)
        return response["stream"], response["ResponseMetadata"]["PriceKeeper"]
    response = bedrock.invoke_model_with_response_stream(modelId="standard", body=NOVA_BODY)
    return response["body"], response["ResponseMetadata"]["PriceKeeper"]


def read(stream: Any, events: int) -> None:
    for _, _ in zip(range(events), stream, strict=False):
        pass


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("events", [0, 3])
def test_a_stream_closed_early_costs_what_the_service_bills(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, operation: str, events: int
) -> None:
    local_bedrock.usage = Usage(7, 311, cache_read_tokens=5)
    stream, record = opened(bedrock, operation)
    read(stream, events)
    stream.close()
    stream.close()
    assert list(stream) == []
    assert bedrock.flush(timeout=30)
    assert (record["usage"]["output_tokens"], record["estimated"]) == (311, False)
    assert stored(bedrock, "standard").cost_pico_usd == local_bedrock.ledger.cost_pico_usd(PRICES)
    assert stored(bedrock, "standard").requests == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_stream_dropped_costs_what_the_service_bills(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, operation: str
) -> None:
    stream, record = opened(bedrock, operation)
    read(stream, 2)
    del stream
    gc.collect()
    assert bedrock.flush(timeout=30)
    assert record["estimated"] is False
    assert stored(bedrock, "standard").cost_pico_usd == local_bedrock.ledger.cost_pico_usd(PRICES)


def test_a_thousand_streams_closed_at_random_points_sum_to_the_ledger(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bedrock._keeper.drainer, "_most_streams", 1_000)
    pick = random.Random(20261121)
    local_bedrock.usage = lambda request: Usage(pick.randrange(1, 50), pick.randrange(1, 500))
    for number in range(1_000):
        stream, _ = opened(bedrock, OPERATIONS[number % 2])
        read(stream, pick.randrange(0, 30))
        stream.close()
    assert bedrock.flush(timeout=60)
    assert stored(bedrock, "standard").requests == 1_000
    assert stored(bedrock, "standard").cost_pico_usd == local_bedrock.ledger.cost_pico_usd(PRICES)


def test_one_too_many_is_estimated(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bedrock._keeper.drainer, "_most_streams", 0)
    stream, record = opened(bedrock, "converse_stream")
    read(stream, 4)
    stream.close()
    assert record["estimated"] is True
    assert record["cost_pico_usd"] > 0


def test_a_stream_that_takes_too_long_is_estimated(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bedrock._keeper.drainer, "_secs", 0.05)
    local_bedrock.event_latency_secs = 0.5
    stream, record = opened(bedrock, "converse_stream")
    read(stream, 1)
    stream.close()
    assert bedrock.flush(timeout=30)
    assert record["estimated"] is True
    assert stored(bedrock, "standard").requests == 1


def test_a_stream_that_breaks_while_it_is_drained_is_estimated(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    local_bedrock.break_stream_next(after_events=10)
    stream, record = opened(bedrock, "converse_stream")
    read(stream, 2)
    stream.close()
    assert bedrock.flush(timeout=30)
    assert record["estimated"] is True
    assert stored(bedrock, "standard").requests == 1


def test_a_stream_that_was_read_to_its_end_is_not_drained(
    bedrock: PriceKeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, _ = opened(bedrock, "converse_stream")
    read(stream, 1_000)
    monkeypatch.setattr(draining.threading, "Thread", None)
    stream.close()
    assert stored(bedrock, "standard").requests == 1


def test_without_threads_it_is_estimated(bedrock: PriceKeeperClient, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, record = opened(bedrock, "converse_stream")

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        stream.close()
    assert record["estimated"] is True


def test_waiting_for_drained_streams_is_bounded(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_bedrock.event_latency_secs = 0.2
    stream, _ = opened(bedrock, "converse_stream")
    stream.close()
    assert not bedrock.flush(timeout=0)
    local_bedrock.event_latency_secs = 0.0
    assert bedrock.flush(timeout=30)
    assert stored(bedrock, "standard").cost_pico_usd == local_bedrock.ledger.cost_pico_usd(PRICES)
    assert STANDARD in local_bedrock.ledger.usage_by_model()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_stream_closed_inside_its_own_loop_hands_over_no_more_and_costs_what_the_service_bills(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, operation: str
) -> None:
    stream, record = opened(bedrock, operation)
    seen = 0
    for _ in stream:
        seen += 1
        if seen == 3:
            stream.close()
    assert seen == 3
    assert bedrock.flush(timeout=30)
    assert record["estimated"] is False
    assert stored(bedrock, "standard").cost_pico_usd == local_bedrock.ledger.cost_pico_usd(PRICES)


def test_no_stream_is_drained_at_the_end_of_the_process(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    stream, record = opened(bedrock, "converse_stream")
    drainer = bedrock._keeper.drainer
    assert drainer is not None
    drainer.take_no_more()
    stream.close()
    assert record["estimated"] is True

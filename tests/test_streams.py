"""Streams: every event is handed on as it came, when it came, and the call is metered by what the stream says."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.eventstream import NoInitialResponseError
from metered import CLAUDE_BODY, ECONOMY, HELLO, PREMIUM, PRICES, metered, record_of, spent, stored
from streaming import CONVERSE, INVOKE, KINDS, Kind, StepByStep, serve

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import LocalBedrock
from bedrock_budget.testing.event_stream import chunk_frame, event_frame

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.method)
METRICS = "amazon-bedrock-invocationMetrics"


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    with metered(local_bedrock) as client:
        yield client


def used(record: dict[str, Any]) -> tuple[int, ...]:
    return tuple(record["usage"].values())


# --- events


@each_kind
def test_events_and_responses_are_those_of_plain_boto3(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind
) -> None:
    plain, ours = kind.open(bedrock._client, ECONOMY), kind.open(bedrock)
    assert list(ours[kind.key]) == list(plain[kind.key])
    assert set(ours) == set(plain)
    del ours["ResponseMetadata"]["PriceKeeper"]
    assert set(ours["ResponseMetadata"]) == set(plain["ResponseMetadata"])
    assert ours["ResponseMetadata"]["HTTPHeaders"].keys() == plain["ResponseMetadata"]["HTTPHeaders"].keys()


@each_kind
def test_each_event_is_handed_over_before_the_next_is_sent(kind: Kind) -> None:
    frames = [kind.delta("a"), kind.delta("b", 1), kind.usage(7, 8), kind.delta("after", 2)]
    with StepByStep() as server, LocalBedrock() as unused:
        client = unused.client(
            endpoint_url=server.url, config=Config(read_timeout=20, retries={"total_max_attempts": 1})
        )
        with metered(unused, client=client) as bedrock:
            response = kind.open(bedrock)
            record = record_of(response)
            events = iter(response[kind.key])
            for number, frame in enumerate(frames):
                server.send(frame)
                assert next(events)  # a wrapper that read ahead would wait for the next frame in vain
                assert (record["usage"] is None) is (number < 2)
            server.send(b"")
            with pytest.raises(StopIteration):
                next(events)
            assert used(record) == (7, 8, 0, 0, 0)
            assert spent(bedrock)[2] == (1, 7 * 35_000 + 8 * 140_000)


@each_kind
def test_the_record_is_complete_just_before_the_usage_event_is_handed_over(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind
) -> None:
    response = kind.open(bedrock)
    record = record_of(response)
    assert (record["label"], record["reason"], record["estimated"]) == ("economy", "requested", False)
    seen = []
    for event in response[kind.key]:
        last = "metadata" in event or METRICS.encode() in event.get("chunk", {}).get("bytes", b"")
        assert (record["usage"], record["cost_pico_usd"], record["cost_usd_micros"]).count(None) == (0 if last else 3)
        assert stored(bedrock, "economy").requests == last
        seen.append(last)
    assert seen[-1] is True
    assert sum(seen) == 1
    assert used(record) == (3, 20, 0, 0, 0)
    assert record["estimated"] is False
    assert record["cost_pico_usd"] == local_bedrock.ledger.cost_pico_usd(PRICES) == spent(bedrock)[2][1]


@each_kind
def test_everything_else_of_the_stream_is_reached_through_it(bedrock: PriceKeeperClient, kind: Kind) -> None:
    plain, ours = (kind.open(client, ECONOMY)[kind.key] for client in (bedrock._client, bedrock))
    for stream in (plain, ours):
        with pytest.raises(NoInitialResponseError):  # as Bedrock's streams have none
            stream.get_initial_response()
        assert stream._operation_name
        assert stream._raw_stream is not None
        with pytest.raises(AttributeError, match="no_such_thing"):
            stream.no_such_thing()
        with pytest.raises(TypeError, match="not an iterator"):
            next(stream)
        for name in ("__len__", "__enter__"):
            assert not hasattr(stream, name)
        list(stream)
    bare = object.__new__(type(ours))
    with pytest.raises(AttributeError, match="_stream"):
        bare._stream  # noqa: B018 - it is the access that counts


# --- usage


def test_cache_tokens_of_both_kinds(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    local_bedrock.usage = Usage(5, 6, 7, 8, 9)
    for response in (
        bedrock.converse_stream(messages=HELLO),
        bedrock.invoke_model_with_response_stream(body=CLAUDE_BODY),
    ):
        list(response.get("stream") or response["body"])
        assert used(record_of(response)) == (5, 6, 7, 8, 9)
        assert record_of(response)["estimated"] is False
    assert spent(bedrock)[0] == (2, local_bedrock.ledger.cost_pico_usd(PRICES))


def test_how_long_cache_writes_live_is_remembered_over_a_long_stream(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    local_bedrock.usage = Usage(5, 6, 7, 8, 9)
    local_bedrock.stream_events = 4_200
    response = bedrock.invoke_model_with_response_stream(body=CLAUDE_BODY)
    stream = response["body"]
    most = max(len(stream._chunks) for _ in stream)
    assert 1_000 < most <= 4_096  # bounded
    assert used(record_of(response)) == (5, 6, 7, 8, 9)


@each_kind
def test_usage_that_is_said_twice_counts_once(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind
) -> None:
    serve(local_bedrock, [kind.delta("a"), kind.usage(7, 8), kind.usage(700, 800)])
    response = kind.open(bedrock)
    assert len(list(response[kind.key])) == 3
    assert used(record_of(response)) == (7, 8, 0, 0, 0)
    assert spent(bedrock)[2] == (1, 7 * 35_000 + 8 * 140_000)


@each_kind
def test_a_stream_that_ends_without_usage_is_estimated_from_its_text(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, kind: Kind
) -> None:
    serve(local_bedrock, [kind.delta("x" * 20), kind.delta("漢字かな", 1)])  # 20 + 12 bytes
    response = kind.open(bedrock)
    assert len(list(response[kind.key])) == 2
    record = record_of(response)
    assert record["estimated"] is True
    assert used(record)[1] == 11
    assert used(record)[0] > 0
    assert spent(bedrock)[2] == (1, record["cost_pico_usd"])


def test_all_kinds_of_converse_deltas_count(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    deltas: list[dict[str, Any]] = [
        {"text": "abc"},
        {"toolUse": {"input": '{"q":'}},
        {"reasoningContent": {"text": "hmmm"}},
        {"brandNew": {"n": 1}},
    ]
    frames = [event_frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}) for delta in deltas]
    serve(local_bedrock, [*frames, event_frame("metadata", {"metrics": {"latencyMs": 1}})])
    response = CONVERSE.open(bedrock)
    list(response["stream"])
    assert used(record_of(response))[1] == 7  # 3, 5, 4 and 8 bytes
    assert record_of(response)["estimated"] is True


def test_what_was_measured_late_is_bounded_and_let_go(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    delta = {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "abc"}}}
    frames = [event_frame("contentBlockDelta", delta)] * 5_000
    for end in (b"", CONVERSE.usage(1, 2)):
        serve(local_bedrock, [*frames, end])
        response = CONVERSE.open(bedrock)
        most = max(len(response["stream"]._deltas) for _ in response["stream"])
        assert 4_000 < most <= 4_096
        assert response["stream"]._deltas == []
        assert used(record_of(response))[1] == (2 if end else 5_000)


def chunks(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, *parts: Any) -> dict[str, Any]:
    """The record of an ``invoke_model_with_response_stream`` that answers with these chunks."""
    serve(local_bedrock, [chunk_frame(part) for part in parts])
    response = INVOKE.open(bedrock)
    assert len(list(response["body"])) == len(parts)
    assert spent(bedrock)[2] == (1, record_of(response)["cost_pico_usd"])
    return record_of(response)


def test_chunks_own_counts_are_an_estimate_where_there_are_no_metrics(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    start = {"message": {"usage": {"input_tokens": 40, "output_tokens": 1}}}
    record = chunks(local_bedrock, bedrock, start, {"delta": {"text": "hi"}}, {"usage": {"output_tokens": 9}})
    assert used(record) == (40, 9, 0, 0, 0)
    assert record["estimated"] is True


def test_input_counted_and_output_not_is_estimated_from_the_text(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    record = chunks(local_bedrock, bedrock, {"inputTextTokenCount": 40}, {"outputText": "x" * 30}, ["no", "object"])
    assert used(record)[0] == 40
    assert used(record)[1] >= 10
    assert record["estimated"] is True


def test_metrics_that_lack_the_output_are_no_whole_usage(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    record = chunks(local_bedrock, bedrock, {"outputText": "x" * 30}, {METRICS: {"inputTokenCount": 40}})
    assert used(record)[0] == 40
    assert used(record)[1] >= 10
    assert record["estimated"] is True


def test_a_gap_in_the_metrics_is_filled_from_the_last_chunk(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    last = {METRICS: {"inputTokenCount": 40}, "usage": {"output_tokens": 9}}
    record = chunks(local_bedrock, bedrock, {"outputText": "x" * 30}, last)
    assert used(record) == (40, 9, 0, 0, 0)
    assert record["estimated"] is False


@pytest.mark.parametrize("text", [METRICS, f'{{"{METRICS}": {{"inputTokenCount": 1, "outputTokenCount": 1}}}}'])
def test_a_model_that_writes_of_metrics_settles_nothing(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, text: str
) -> None:
    chatty = {"message": {"usage": {"input_tokens": 999, "output_tokens": 999}}, "text": text}
    metrics = {METRICS: {"inputTokenCount": 40, "outputTokenCount": 50}}
    record = chunks(local_bedrock, bedrock, chatty, {"text": text, METRICS: "none"}, metrics)
    assert used(record) == (40, 50, 0, 0, 0)
    assert record["estimated"] is False


def test_chunks_that_are_no_json_and_events_that_are_no_chunks(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    frames = [
        event_frame("chunk", {"bytes": "bm90IGpzb24="}),  # "not json"
        event_frame("chunk", {}),
        event_frame("throttlingException", {"message": "as an event"}),
        chunk_frame({"outputText": "x" * 30}),
    ]
    serve(local_bedrock, frames)
    response = INVOKE.open(bedrock)
    serve(local_bedrock, frames)
    plain = INVOKE.open(bedrock._client, ECONOMY)
    assert list(response["body"]) == list(plain["body"])
    assert used(record_of(response))[1] == 10


def test_prompts_in_invoke_bodies_count_for_the_estimate(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    serve(local_bedrock, [chunk_frame({"completion": "x" * 30})])
    body = b'{"prompt": "' + b"y" * 3_000 + b'", "max_tokens": 5}'
    response = bedrock.invoke_model_with_response_stream(modelId="premium", body=body)
    response["body"].close()
    assert used(record_of(response)) == (1_000, 0, 0, 0, 0)
    assert record_of(response)["model_id"] == PREMIUM

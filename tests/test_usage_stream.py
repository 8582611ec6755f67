"""The handler of the usage table's stream: whatever comes, in whatever order, the totals end equal to the shards."""

import copy
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import boto3
import pytest
from doubles import AWAY, UnreliableStore
from engines.fixtures import REGION
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget import aggregator as aggregator_module
from bedrock_budget.aggregator import Aggregator, lambda_handler, stream_handler
from bedrock_budget.clock import SystemClock
from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.errors import ConfigError, StoreError
from bedrock_budget.core.keys import UsageKey, date_key, shard_key
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DailyTotal, DynamoDBStore, ShardSum, UnreadableItem
from bedrock_budget.stores.dynamodb_items import cost, number
from bedrock_budget.stores.tables import create_tables
from bedrock_budget.testing import ManualClock
from bedrock_budget.writers import new_writer_id

Record = dict[str, Any]
Batches = list[list[Record]]

KEYS = [UsageKey(f"ORG#acme#APP#app{number}", "premium", "20260115") for number in range(4)]


def event(records: list[Record]) -> dict[str, Any]:
    """As Lambda gives it: JSON, and nobody else's objects."""
    return {"Records": json.loads(json.dumps(records))}


def failed(answer: Mapping[str, Any]) -> list[str]:
    assert set(answer) == {"batchItemFailures"}
    assert all(set(each) == {"itemIdentifier"} for each in answer["batchItemFailures"])
    return [each["itemIdentifier"] for each in answer["batchItemFailures"]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Aggregator]:
    """Make the handlers use a store."""

    def serve(store: Any, clock: Any = None) -> Aggregator:
        made = Aggregator(store, clock or SystemClock(), shard_count_of=lambda org_id: 8)
        monkeypatch.setattr(aggregator_module, "_in_lambda", made)
        return made

    return serve


# --- records of a real stream


class FlakyStore(DynamoDBStore):
    """A DynamoDB store of which some requests fail, half of them after they were carried out."""

    randomness = random.Random(0)
    failures = 0.0

    def _fail(self) -> None:
        if self.randomness.random() < self.failures / 2:
            raise StoreError("DynamoDB is busy")

    def read_shards(self, keys: Mapping[UsageKey, int], *, writer_id: str | None = None) -> Mapping[UsageKey, ShardSum]:
        self._fail()
        found = super().read_shards(keys, writer_id=writer_id)
        self._fail()
        return found

    def write_total(self, key: UsageKey, total: DailyTotal) -> bool:
        self._fail()
        written = super().write_total(key, total)
        self._fail()
        return written


@pytest.fixture
def streamed(dynamodb_client: Any, dynamodb_endpoint: str, table_prefix: str) -> Iterator[FlakyStore]:
    """A store whose usage table has a stream."""
    create_tables(dynamodb_client, table_prefix, stream=True)
    store = FlakyStore(region=REGION, prefix=table_prefix, endpoint_url=dynamodb_endpoint)
    yield store
    store.close()


def records_of(store: DynamoDBStore, client: Any) -> list[Record]:
    """All records of the usage table's stream, in Lambda's form."""
    streams = boto3.client("dynamodbstreams", region_name=REGION, endpoint_url=client.meta.endpoint_url)
    table = client.describe_table(TableName=f"{store._calls._prefix}UsageAggSharded")["Table"]
    arn = table["LatestStreamArn"]
    records: list[Record] = []
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        place = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = streams.get_shard_iterator(**place)["ShardIterator"]
        while iterator:
            page = streams.get_records(ShardIterator=iterator)
            if not page["Records"]:
                break
            records += page["Records"]
            iterator = page.get("NextShardIterator")
    streams.close()
    for record in records:
        change = record["dynamodb"]
        change["ApproximateCreationDateTime"] = change["ApproximateCreationDateTime"].timestamp()
        record["eventSourceARN"] = arn
    return records


def write_usage(store: DynamoDBStore, randomness: random.Random, batches: int) -> None:
    """Some processes meter; one of them under twice as many shards."""
    writers = [(new_writer_id(), shard) for shard in (0, 3, 3, 7, 12)]
    for sequence in range(1, batches + 1):
        writer, shard = randomness.choice(writers)
        amounts = Amounts(randomness.randrange(10**9), Usage(randomness.randrange(1000), 5), 1)
        batch = Batch(randomness.choice(KEYS), writer, sequence, shard, 16 if shard == 12 else 8, amounts)
        store.write_batch(batch, now_epoch=SystemClock().now().timestamp())


def check_totals(store: DynamoDBStore) -> None:
    sums = store.read_shards(dict.fromkeys(KEYS, 16))
    totals = store.read_totals(KEYS)
    assert {key: total.amounts for key, total in totals.items()} == {key: found.amounts for key, found in sums.items()}


def cut(records: list[Record], randomness: random.Random) -> Iterator[list[Record]]:
    while records:
        size = randomness.randint(1, 12)
        yield records[:size]
        records = records[size:]


def test_a_stream_tells_all_that_the_totals_need(
    streamed: FlakyStore, dynamodb_client: Any, serve: Callable[[Any], Aggregator], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    serve(streamed)
    write_usage(streamed, random.Random(1), 40)
    records = records_of(streamed, dynamodb_client)
    assert len(records) == 40
    assert records[0]["eventName"] == "INSERT"
    assert failed(stream_handler(event(records), None)) == []
    check_totals(streamed)
    assert "40 records, 4 keys, 4 totals written, 0 keys failed, lag up to" in caplog.text


@pytest.mark.parametrize("seed", range(4))
def test_batches_in_any_order_and_number_with_a_store_that_fails_end_in_the_sums_of_the_shards(
    streamed: FlakyStore, dynamodb_client: Any, serve: Callable[[Any], Aggregator], seed: int
) -> None:
    randomness = random.Random(seed)
    serve(streamed)
    write_usage(streamed, randomness, 60)
    records = records_of(streamed, dynamodb_client)
    streamed.randomness, streamed.failures = randomness, 0.3
    waiting = [*records, *randomness.sample(records, 30)]
    rounds = 0
    while waiting:
        rounds += 1
        assert rounds < 50
        randomness.shuffle(waiting)
        again: list[Record] = []
        for batch in cut(waiting, randomness):
            numbers = set(failed(stream_handler(event(batch), None)))
            again += [record for record in batch if record["dynamodb"]["SequenceNumber"] in numbers]
        waiting = again
    streamed.failures = 0.0
    assert rounds > 1
    check_totals(streamed)
    for batch in cut(records, randomness):  # the whole stream once more changes nothing
        assert failed(stream_handler(event(batch), None)) == []
    check_totals(streamed)


def test_a_shard_of_the_stream_that_is_repeated_from_the_first_failure_loses_nothing(
    streamed: FlakyStore, dynamodb_client: Any, serve: Callable[[Any], Aggregator]
) -> None:
    randomness = random.Random(5)
    serve(streamed)
    write_usage(streamed, randomness, 60)
    records = records_of(streamed, dynamodb_client)
    streamed.randomness, streamed.failures = randomness, 0.3
    place = attempts = 0
    while place < len(records):
        attempts += 1
        assert attempts < 500
        batch = records[place : place + 10]
        numbers = failed(stream_handler(event(batch), None))
        assert numbers == sorted(numbers, key=int)
        places = [at for at, record in enumerate(batch) if record["dynamodb"]["SequenceNumber"] in numbers]
        place += places[0] if places else len(batch)
    assert attempts > 6
    check_totals(streamed)


def test_passes_and_the_stream_may_both_be_at_work(
    streamed: FlakyStore, dynamodb_client: Any, serve: Callable[[Any], Aggregator]
) -> None:
    serve(streamed)
    for seed in range(4):
        write_usage(streamed, random.Random(seed), 10)
        records = records_of(streamed, dynamodb_client)
        if seed % 2:
            lambda_handler({}, None)
        stream_handler(event(records), None)
        check_totals(streamed)


def test_deleted_items_leave_their_totals(
    streamed: FlakyStore, dynamodb_client: Any, serve: Callable[[Any], Aggregator]
) -> None:
    serve(streamed)
    write_usage(streamed, random.Random(1), 30)
    stream_handler(event(records_of(streamed, dynamodb_client)), None)
    before = streamed.read_totals(KEYS)
    table = f"{streamed._calls._prefix}UsageAggSharded"
    for item in dynamodb_client.scan(TableName=table)["Items"]:
        dynamodb_client.delete_item(TableName=table, Key={name: item[name] for name in ("shard_key", "date_key")})
    records = records_of(streamed, dynamodb_client)
    assert {record["eventName"] for record in records} == {"INSERT", "MODIFY", "REMOVE"}
    assert failed(stream_handler(event(records), None)) == []
    after = streamed.read_totals(KEYS)
    assert {key: total.amounts for key, total in after.items()} == {key: each.amounts for key, each in before.items()}


# --- records made by hand


def record(
    shard: int = 0, requests: int = 1, key: UsageKey = KEYS[0], place: int = 1, name: str = "MODIFY", **image: Any
) -> Record:
    """A change of a shard that then held so many requests at 1.4 micros."""
    keys = {"shard_key": {"S": shard_key(key.scope, key.label, shard)}, "date_key": {"S": date_key(key.day)}}
    counters = {"cost_usd_micros": cost(1_400_000 * requests), "requests": number(requests), "shard_count": number(8)}
    return {
        "eventID": str(place),
        "eventName": name,
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": 1768435200.0,
            "Keys": keys,
            "NewImage": {**keys, **counters, **image},
            "SequenceNumber": str(place),
            "StreamViewType": "NEW_IMAGE",
        },
    }


def usage(store: UnreliableStore, shard: int, requests: int, key: UsageKey = KEYS[0]) -> None:
    amounts = Amounts(1_400_000 * requests, Usage(), requests)
    store.inner.write_batch(Batch(key, new_writer_id(), 1, shard, max(8, shard + 1), amounts), now_epoch=1768435200)


def requests(store: UnreliableStore, key: UsageKey = KEYS[0]) -> int | None:
    total = store.inner.read_totals([key]).get(key)
    return None if total is None else total.amounts.requests


@pytest.fixture
def store(serve: Callable[..., Aggregator]) -> UnreliableStore:
    store = UnreliableStore()
    serve(store)
    return store


def test_a_record_stands_for_its_item_and_not_for_an_addition(store: UnreliableStore) -> None:
    usage(store, 0, 7)
    usage(store, 1, 2)
    for _ in range(3):
        assert failed(stream_handler(event([record(0, 5), record(0, 7), record(0, 5)]), None)) == []
        assert requests(store) == 9


def test_an_image_is_the_least_that_a_shard_holds(store: UnreliableStore) -> None:
    assert failed(stream_handler(event([record(0, 7), record(3, 2), record(0, 5)]), None)) == []
    total = store.inner.read_totals(KEYS)[KEYS[0]]
    assert total.amounts == Amounts(9 * 1_400_000, Usage(), 9)


def test_a_shard_beyond_those_configured_is_summed(store: UnreliableStore) -> None:
    asked: list[Mapping[UsageKey, int]] = []
    store.fails = lambda name, subject: asked.append(subject) if name == "read_shards" else None
    stream_handler(event([record(3, shard_count=number(16)), record(20, key=KEYS[1]), record(2, key=KEYS[2])]), None)
    assert asked == [{KEYS[0]: 16, KEYS[1]: 21, KEYS[2]: 8}]


def test_a_stream_of_keys_alone_serves_as_well(store: UnreliableStore) -> None:
    usage(store, 0, 7)
    bare = record(0)
    del bare["dynamodb"]["NewImage"]
    assert failed(stream_handler(event([bare]), None)) == []
    assert requests(store) == 7


def test_failures_are_those_of_the_keys_without_totals_in_the_order_of_the_stream(store: UnreliableStore) -> None:
    for key in KEYS:
        usage(store, 0, 1, key)
    bad = KEYS[1]
    store.fails = lambda name, subject: AWAY if name == "write_total" and subject == bad else None
    records = [record(key=KEYS[place % 4], place=place) for place in (12, 9, 10, 11, 5, 100)]
    assert failed(stream_handler(event(records), None)) == ["5", "9"]
    assert [requests(store, key) for key in KEYS] == [1, None, 1, 1]
    store.fails = lambda name, subject: None
    assert failed(stream_handler(event(records), None)) == []
    assert [requests(store, key) for key in KEYS] == [1, 1, 1, 1]


def test_a_store_that_is_away_fails_all_records_with_few_requests(store: UnreliableStore) -> None:
    keys = [UsageKey("ORG#acme", f"label{number}", "20260115") for number in range(300)]
    store.go_away()
    records = [record(key=key, place=place) for place, key in enumerate(keys, start=1)]
    assert failed(stream_handler(event(records), None)) == [str(place) for place in range(1, 301)]
    assert store.count("read_shards") <= 4


def test_a_failed_record_without_a_number_fails_the_batch(store: UnreliableStore) -> None:
    nameless = record()
    del nameless["dynamodb"]["SequenceNumber"]
    store.go_away()
    with pytest.raises(StoreError, match="repeat the batch"):
        stream_handler(event([nameless, record(key=KEYS[1])]), None)
    store.come_back()
    assert failed(stream_handler(event([nameless]), None)) == []
    assert requests(store) == 1


UNREADABLE: list[Callable[[Record], Any]] = [
    lambda it: it.pop("dynamodb"),
    lambda it: it.update(dynamodb=None),
    lambda it: it.update(dynamodb=[1]),
    lambda it: it["dynamodb"].pop("Keys"),
    lambda it: it["dynamodb"].update(Keys={"shard_key": {"S": "not of ours"}, "date_key": {"S": "DAY#20260115"}}),
    lambda it: it["dynamodb"].update(Keys={"shard_key": {"N": "5"}, "date_key": {"S": "DAY#20260115"}}),
    lambda it: it["dynamodb"]["NewImage"].update(cost_usd_micros={"S": "much"}),
    lambda it: it["dynamodb"]["NewImage"].update(cost_usd_micros={"N": "much"}),
    lambda it: it["dynamodb"]["NewImage"].update(requests="1"),
    lambda it: it["dynamodb"]["NewImage"].pop("cost_usd_micros"),
    lambda it: it["dynamodb"].update(NewImage=5),
]


@pytest.mark.parametrize("spoil", UNREADABLE)
def test_a_record_that_can_never_be_read_is_logged_and_stops_nothing(
    store: UnreliableStore, caplog: pytest.LogCaptureFixture, spoil: Callable[[Record], Any]
) -> None:
    usage(store, 0, 1, KEYS[1])
    spoiled = copy.deepcopy(record(place=1))
    spoil(spoiled)
    assert failed(stream_handler(event([spoiled, record(key=KEYS[1], place=2)]), None)) == []
    assert requests(store, KEYS[1]) == 1
    assert requests(store) is None
    assert [each.levelname for each in caplog.records if "cannot be read and is left out" in each.message] == ["ERROR"]


def test_records_that_are_none_are_left_out(store: UnreliableStore) -> None:
    usage(store, 0, 1)
    assert failed(stream_handler({"Records": [None, 5, "text", record()]}, None)) == []
    assert requests(store) == 1
    assert failed(stream_handler({"Records": []}, None)) == []


def test_a_key_with_an_item_that_cannot_be_read_does_not_stop_the_stream(
    store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [UsageKey("ORG#acme", f"label{number}", "20260115") for number in range(12)]
    bad = set(keys[2:8])
    for key in keys:
        usage(store, 0, 1, key)

    def fails(name: str, subject: Any) -> Exception | None:
        return UnreadableItem("mend it") if name == "read_shards" and bad & set(subject) else None

    store.fails = fails
    records = [record(key=key, place=place) for place, key in enumerate(keys)]
    assert failed(stream_handler(event(records), None)) == []
    assert {key for key in keys if requests(store, key) is None} == bad
    assert sum("until this is mended: mend it" in each.message for each in caplog.records) == len(bad)


def test_an_event_of_something_else_is_an_error(store: UnreliableStore) -> None:
    with pytest.raises(ConfigError, match="not an event of a DynamoDB stream"):
        stream_handler({"source": "aws.events"}, None)


def test_what_was_written_is_not_remembered_from_batch_to_batch(serve: Callable[..., Aggregator]) -> None:
    store = UnreliableStore()
    made = serve(store, ManualClock())
    usage(store, 0, 1)
    stream_handler(event([record()]), None)
    assert made.summing.written == {}


def failing(outcomes: list[bool]) -> Callable[[str, Any], Exception | None]:
    """So many requests, one after the other, fail or not."""
    left = iter(outcomes)
    return lambda name, subject: AWAY if next(left, False) else None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_batches_with_any_failures_end_in_the_sums_of_the_shards(data: st.DataObject) -> None:
    store = UnreliableStore()
    writers = [new_writer_id() for _ in range(3)]
    records: list[Record] = []
    held: dict[tuple[UsageKey, int], int] = {}
    for place in range(1, data.draw(st.integers(1, 15)) + 1):
        key, shard = data.draw(st.sampled_from(KEYS[:3])), data.draw(st.integers(0, 2))
        held[key, shard] = held.get((key, shard), 0) + 1
        batch = Batch(key, writers[shard], place, shard, 8, Amounts(1_400_000, Usage(), 1))
        store.inner.write_batch(batch, now_epoch=0)
        records.append(record(shard, held[key, shard], key, place))
    waiting = records + data.draw(st.lists(st.sampled_from(records), max_size=10))
    with pytest.MonkeyPatch.context() as patch:
        made = Aggregator(store, ManualClock(), shard_count_of=lambda org_id: 8)
        patch.setattr(aggregator_module, "_in_lambda", made)
        healthy = False
        while waiting:
            waiting = data.draw(st.permutations(waiting))
            size = data.draw(st.integers(1, len(waiting)))
            outcomes = data.draw(st.lists(st.booleans(), max_size=6)) if not healthy else []
            healthy = not any(outcomes)
            store.fails = failing(outcomes)
            numbers = failed(stream_handler(event(waiting[:size]), None))
            waiting = [it for it in waiting[:size] if it["dynamodb"]["SequenceNumber"] in numbers] + waiting[size:]
    sums = store.inner.read_shards(dict.fromkeys(KEYS[:3], 8))
    for key, total in store.inner.read_totals(KEYS).items():
        assert total.amounts == sums[key].amounts
        assert Decimal(total.amounts.requests) > 0
    assert set(store.inner.read_totals(KEYS)) == {key for key, _ in held}

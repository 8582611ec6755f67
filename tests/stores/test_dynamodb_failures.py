"""The DynamoDB store when replies are lost, cut off, refused or late: an error is never read as zero or success."""

import itertools
import os
import random
import types
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from engines import proxy
from engines.fixtures import REGION
from stores.batches import DAY, HOUR, NOW, amounts, batch, new_key, new_writer, times

from bedrock_budget.core.errors import StoreError
from bedrock_budget.stores import DailyTotal, DynamoDBStore, Override, Sticky, Stop, StoreSetupError
from bedrock_budget.stores.dynamodb_errors import store_error
from bedrock_budget.stores.tables import create_tables

KEY = new_key()
PREFIX = f"faulty{os.getpid()}-"
SCOPE = KEY.scope
STICKY = Sticky("standard", 1, "QUOTA_EXCEEDED", "premium", int(NOW), int(NOW) + 3600)
STOP = Stop("chat", "ann", "incident 7", int(NOW), int(NOW) + 3600)
NEW = itertools.count()

#: Every method that asks DynamoDB something.
CALLS: dict[str, Callable[[DynamoDBStore], object]] = {
    "write_batch": lambda store: store.write_batch(batch(KEY, new_writer(), 1), now_epoch=NOW),
    "read_shards": lambda store: store.read_shards({KEY: 8}),
    "read_totals": lambda store: store.read_totals([KEY]),
    "write_total": lambda store: store.write_total(KEY, DailyTotal(amounts(), 1)),
    "active_keys": lambda store: store.active_keys([HOUR]),
    "read_controls": lambda store: store.read_controls("acme", "chat", scope=SCOPE, day=DAY, now_epoch=NOW),
    "advance_sticky": lambda store: store.advance_sticky(SCOPE, DAY, STICKY),
    "clear_sticky": lambda store: store.clear_sticky(SCOPE, DAY),
    "put_override": lambda store: store.put_override("acme", "chat", Override("economy", "", "ann", 1, 2)),
    "clear_override": lambda store: store.clear_override("acme", "chat"),
    "put_stop": lambda store: store.put_stop("acme", STOP),
    "put_automatic_stop": lambda store: store.put_automatic_stop(f"acme{next(NEW)}", STOP, day=DAY),
    "lift_stop": lambda store: store.lift_stop("acme", "chat", lifted_by="ann", now_epoch=int(NOW)),
    "stops": lambda store: store.stops("acme", now_epoch=NOW),
    "put_config": lambda store: store.put_config("acme", "chat", {"a": 1}),
    "app_ids": lambda store: store.app_ids("acme"),
}
every_call = pytest.mark.parametrize("call", list(CALLS.values()), ids=list(CALLS))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Botocore and tenacity do not wait between attempts; the waits are collected."""
    waits: list[float] = []
    clock = types.SimpleNamespace(sleep=waits.append)
    monkeypatch.setattr("botocore.endpoint.time", clock)
    monkeypatch.setattr("tenacity.nap.time", clock)
    return waits


@pytest.fixture(scope="module")
def shared_proxy(dynamodb_endpoint: str) -> Iterator[proxy.Proxy]:
    """A proxy before the engine."""
    with proxy.running(dynamodb_endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def shared_store(shared_proxy: proxy.Proxy, dynamodb_client: Any) -> Iterator[DynamoDBStore]:
    """A store behind the proxy. Making one takes much longer than a test does."""
    create_tables(dynamodb_client, PREFIX)
    store = DynamoDBStore(region=REGION, prefix=PREFIX, endpoint_url=shared_proxy.url)
    yield store
    store.close()


@pytest.fixture
def faulty(shared_proxy: proxy.Proxy) -> proxy.Proxy:
    """The proxy, as yet without faults."""
    shared_proxy.rule = lambda _: proxy.FORWARD
    shared_proxy.requests.clear()
    return shared_proxy


@pytest.fixture
def store(shared_store: DynamoDBStore, faulty: proxy.Proxy) -> DynamoDBStore:
    """The store behind the proxy. Its items stay: tests that count use keys of their own."""
    shared_store.consumed.reset()
    return shared_store


# --- lost replies


def test_a_thousand_batches_with_lost_replies_and_requests_sum_exactly(
    store: DynamoDBStore, faulty: proxy.Proxy
) -> None:
    chance = random.Random(1)
    faulty.rule = lambda _: chance.choices([proxy.FORWARD, proxy.DROP_REPLY, proxy.DROP_REQUEST], [6, 3, 1])[0]
    # botocore repeats for one of them, all repeats of the other are ours
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"})
    client = boto3.client("dynamodb", region_name=REGION, endpoint_url=faulty.url, config=config)
    stores = [store, DynamoDBStore(client, prefix=PREFIX)]
    writer, key = new_writer(), new_key()
    causes: list[object] = []
    for sequence in range(1, 1001):
        one = batch(key, writer, sequence)
        while True:
            try:
                stores[sequence % 2].write_batch(one, now_epoch=NOW)
                break
            except StoreError as exc:
                causes.append(exc.__cause__)
    faulty.rule = lambda _: proxy.FORWARD
    found = store.read_shards({key: 8}, writer_id=writer)[key]
    assert (found.amounts, found.writer_sequence) == (times(amounts(), 1000), 1000)
    assert len(causes) > 100
    assert all(isinstance(cause, ConnectionClosedError) for cause in causes)
    assert faulty.count("UpdateItem") > 1200
    client.close()


def test_a_lost_reply_leaves_totals_and_sticky_state_as_written(
    shared_store: DynamoDBStore, faulty: proxy.Proxy
) -> None:
    # a store of its own: botocore stops repeating for a client that has lost many replies
    store = DynamoDBStore(region=REGION, prefix=PREFIX, endpoint_url=faulty.url)

    def drop_first(request: proxy.Request) -> str:
        first = request.operation != "BatchGetItem" and faulty.count(request.operation) == 1
        return proxy.DROP_REPLY if first else proxy.FORWARD

    faulty.rule = drop_first
    key = new_key()
    assert store.write_total(key, DailyTotal(amounts(), 1)) is True
    assert store.read_totals([key]) == {key: DailyTotal(amounts(), 1)}
    faulty.requests.clear()
    assert store.advance_sticky(key.scope, DAY, STICKY) == STICKY
    assert faulty.count("PutItem") == 2
    store.close()


def test_a_lost_reply_leaves_stops_as_written(shared_store: DynamoDBStore, faulty: proxy.Proxy) -> None:
    store = DynamoDBStore(region=REGION, prefix=PREFIX, endpoint_url=faulty.url)
    org = f"lost{next(NEW)}"

    def drop_first(request: proxy.Request) -> str:
        first = request.operation == "UpdateItem" and faulty.count(request.operation) == 1
        return proxy.DROP_REPLY if first else proxy.FORWARD

    faulty.rule = drop_first
    assert store.put_automatic_stop(org, STOP, day=DAY) == STOP
    assert faulty.count("UpdateItem") == 2
    faulty.requests.clear()
    assert store.lift_stop(org, "chat", lifted_by="ann", now_epoch=int(NOW) + 1) == STOP
    assert faulty.count("UpdateItem") == 2
    faulty.requests.clear()
    store.put_stop(org, STOP)
    assert store.stops(org, now_epoch=NOW) == [STOP]
    store.close()


# --- answers that are none


@every_call
@pytest.mark.parametrize("body", [b'{"Attributes": {"v"', b"{}", b'{"ConsumedCapacity": {}}', b""])
def test_a_truncated_answer_is_an_error(
    store: DynamoDBStore, faulty: proxy.Proxy, call: Callable[[DynamoDBStore], object], body: bytes
) -> None:
    faulty.rule = lambda _: proxy.Answer(body)
    with pytest.raises(StoreError, match="truncated answer") as caught:
        call(store)
    assert not isinstance(caught.value, StoreSetupError)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("capacity", [[{"TableName": "x"}], [{"CapacityUnits": None}], [5], "text", [{"A": 1}]])
def test_capacity_that_says_nothing_is_a_truncated_answer(
    store: DynamoDBStore, faulty: proxy.Proxy, capacity: object
) -> None:
    faulty.rule = lambda _: proxy.answer_json({"Responses": {}, "ConsumedCapacity": capacity})
    with pytest.raises(StoreError):
        store.read_totals([KEY])


@pytest.mark.parametrize("name", ["read_shards", "read_totals", "read_controls", "active_keys", "app_ids", "stops"])
def test_an_answer_without_its_results_is_an_error(store: DynamoDBStore, faulty: proxy.Proxy, name: str) -> None:
    entry = {"TableName": "x", "CapacityUnits": 1.0}
    capacity = entry if name in {"active_keys", "app_ids", "stops"} else [entry]
    faulty.rule = lambda _: proxy.answer_json({"ConsumedCapacity": capacity})
    with pytest.raises(StoreError, match="truncated answer, nothing is known"):
        CALLS[name](store)


@every_call
@pytest.mark.parametrize(
    "answer",
    [
        proxy.answer_error("ProvisionedThroughputExceededException"),
        proxy.answer_error("ThrottlingException"),
        proxy.answer_error("ExpiredTokenException"),
        proxy.answer_error("InternalServerError", status=500),
        proxy.Answer(b"<html>" + b"busy " * 500 + b"</html>", 503, "text/html"),
        proxy.DROP_REQUEST,
    ],
    ids=["throughput", "throttling", "expired token", "500", "503 html", "connection lost"],
)
def test_what_may_pass_by_itself_is_a_store_error_with_its_cause(
    store: DynamoDBStore,
    faulty: proxy.Proxy,
    call: Callable[[DynamoDBStore], object],
    answer: proxy.Answer | str,
) -> None:
    faulty.rule = lambda _: answer
    with pytest.raises(StoreError, match="no definite answer") as caught:
        call(store)
    assert not isinstance(caught.value, StoreSetupError)
    assert caught.value.__cause__ is not None
    assert len(str(caught.value)) < 700


def test_a_page_of_text_is_cut_in_the_message() -> None:
    error = store_error(ValueError("busy " * 500), "Query", "Config", "us-east-1", "dynamodb://")
    assert len(str(error)) < 600
    assert str(error).endswith("…")


def test_a_timeout_is_a_store_error(aws_credentials: None) -> None:
    # botocore's time-outs have a response of None
    client = boto3.client("dynamodb", region_name=REGION)

    def time_out(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="http://127.0.0.1")

    client.meta.events.register("before-send.dynamodb", time_out)
    with pytest.raises(StoreError, match="no definite answer: ReadTimeoutError") as caught:
        DynamoDBStore(client).read_totals([KEY])
    assert isinstance(caught.value.__cause__, ReadTimeoutError)
    client.close()


@pytest.mark.parametrize("item", [{}, {"Item": {"shard_key": {"S": "x"}}}, {"Item": None}])
def test_a_refused_write_that_does_not_say_why_is_an_error(
    store: DynamoDBStore, faulty: proxy.Proxy, item: dict[str, object]
) -> None:
    body = {"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "message": "failed", **item}
    faulty.rule = lambda _: proxy.answer_json(body, 400)
    with pytest.raises(StoreError, match="does not say which was applied last"):
        CALLS["write_batch"](store)
    with pytest.raises(StoreError):
        CALLS["advance_sticky"](store)


# --- keys left unread


def unprocessed(request: proxy.Request, kept: int) -> proxy.Answer:
    """An answer that leaves all but ``kept`` keys of each table unread, and has found nothing."""
    asked = request.parameters["RequestItems"]
    left = {table: {**entry, "Keys": entry["Keys"][kept:]} for table, entry in asked.items()}
    capacity = [{"TableName": table, "CapacityUnits": kept} for table in asked]
    return proxy.answer_json({"Responses": {}, "UnprocessedKeys": left, "ConsumedCapacity": capacity})


def test_keys_left_unread_are_asked_for_again(
    store: DynamoDBStore, faulty: proxy.Proxy, no_waiting: list[float]
) -> None:
    key = new_key()
    store.write_batch(batch(key, new_writer(), 1, shard=7), now_epoch=NOW)
    store.put_config("acme", None, {"a": 1})
    faulty.rule = lambda request: unprocessed(request, 2) if faulty.count("BatchGetItem") % 3 else proxy.FORWARD
    assert store.read_shards({key: 8})[key].amounts == amounts()
    assert [len(_keys(request)) for request in faulty.requests if request.operation == "BatchGetItem"] == [8, 6, 4]
    assert len(no_waiting) == 2
    faulty.rule = lambda request: unprocessed(request, 0) if faulty.count("BatchGetItem") % 3 else proxy.FORWARD
    assert store.read_controls("acme", None, scope=SCOPE, day=DAY, now_epoch=NOW).org_item == {"a": 1}


def _keys(request: proxy.Request) -> list[object]:
    return [key for entry in request.parameters["RequestItems"].values() for key in entry["Keys"]]


@pytest.mark.parametrize("name", ["read_shards", "read_totals", "read_controls"])
def test_keys_never_read_are_an_error_after_about_two_seconds(
    store: DynamoDBStore, faulty: proxy.Proxy, no_waiting: list[float], name: str
) -> None:
    faulty.rule = lambda request: unprocessed(request, 0)
    with pytest.raises(StoreError, match=r"keys of .* unread in 9 attempts: it is overloaded; try again"):
        CALLS[name](store)
    assert faulty.count("BatchGetItem") == 9
    assert 1.5 < sum(no_waiting) < 2.5
    assert all(0 < wait < 0.5 for wait in no_waiting)


# --- what an operator has to do first


@every_call
def test_missing_tables_are_named_with_the_command_that_creates_them(
    dynamodb_endpoint: str, call: Callable[[DynamoDBStore], object]
) -> None:
    store = DynamoDBStore(region=REGION, prefix="missing-", endpoint_url=dynamodb_endpoint)
    with pytest.raises(StoreSetupError) as caught:
        call(store)
    message = str(caught.value)
    assert "missing-" in message
    assert f"{REGION} ({dynamodb_endpoint})" in message
    assert f"bedrock-budget tables create --store '{store.url}'" in message
    store.close()


def test_a_missing_index_is_named(store: DynamoDBStore, faulty: proxy.Proxy) -> None:
    faulty.rule = lambda _: proxy.answer_error(
        "ValidationException", "The table does not have the specified index: active_hour-index"
    )
    with pytest.raises(StoreSetupError, match=r"lacks its index; add it: bedrock-budget tables create"):
        store.active_keys([HOUR])


@pytest.mark.parametrize(
    ("name", "action"), [("write_batch", "UpdateItem"), ("read_shards", "BatchGetItem"), ("app_ids", "Query")]
)
def test_a_denied_request_names_the_action_and_the_table(
    store: DynamoDBStore, faulty: proxy.Proxy, name: str, action: str
) -> None:
    faulty.rule = lambda _: proxy.answer_error("AccessDeniedException")
    with pytest.raises(StoreSetupError, match=rf"allow dynamodb:{action} on {PREFIX}\w+ in IAM"):
        CALLS[name](store)
    faulty.rule = lambda _: proxy.answer_error("UnrecognizedClientException")
    with pytest.raises(StoreSetupError, match=rf"credentials were refused.*dynamodb:{action}"):
        CALLS[name](store)


def test_missing_credentials_and_regions_are_named(aws_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreSetupError, match=r"no AWS region; add region=… to the store URL"):
        DynamoDBStore().read_totals([KEY])
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        StoreSetupError, match=r"no AWS credentials.*dynamodb:BatchGetItem on bedrock-budget-DailyTotal"
    ):
        DynamoDBStore(region=REGION).read_totals([KEY])
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreSetupError, match=r"no AWS credentials.*nobody"):
        DynamoDBStore().read_totals([KEY])


def test_no_secret_is_shown(faulty: proxy.Proxy, store: DynamoDBStore) -> None:
    faulty.rule = lambda _: proxy.answer_error("UnrecognizedClientException")
    with pytest.raises(StoreSetupError) as caught:
        CALLS["read_totals"](store)
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    for text in (str(caught.value), repr(store), store.url, repr(caught.value.__cause__)):
        assert secret not in text


def test_nothing_is_asked_for_nothing(store: DynamoDBStore, faulty: proxy.Proxy) -> None:
    assert store.read_shards({}) == {}
    assert store.read_totals([]) == {}
    assert store.active_keys([]) == {}
    assert faulty.requests == []
    assert store.consumed.units().requests == 0

"""`write_once`: transactions that leave no entry of their writer, and count once though their answers are lost."""

import os
import types
from collections.abc import Iterator
from typing import Any

import pytest
from engines import proxy
from engines.fixtures import REGION
from stores.batches import NOW, amounts, batch, new_key, new_writer, times

from bedrock_budget.core.errors import StoreError
from bedrock_budget.stores import DynamoDBStore, Store
from bedrock_budget.stores.tables import create_tables

PREFIX = f"once{os.getpid()}-"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Botocore and tenacity do not wait between attempts; the waits are collected."""
    waited: list[float] = []
    clock = types.SimpleNamespace(sleep=waited.append)
    monkeypatch.setattr("botocore.endpoint.time", clock)
    monkeypatch.setattr("tenacity.nap.time", clock)
    return waited


@pytest.fixture
def faulty(dynamodb_endpoint: str) -> Iterator[proxy.Proxy]:
    with proxy.running(dynamodb_endpoint) as running:
        yield running


@pytest.fixture
def behind(faulty: proxy.Proxy, dynamodb_client: Any) -> Iterator[DynamoDBStore]:
    """A store behind the proxy."""
    create_tables(dynamodb_client, PREFIX)
    store = DynamoDBStore(region=REGION, prefix=PREFIX, endpoint_url=faulty.url)
    yield store
    store.close()


def test_a_batch_repeated_within_minutes_counts_once(store: Store) -> None:
    key, writer = new_key(), new_writer()
    for sequence in (1, 2, 3):
        for _ in range(3):
            store.write_once(batch(key, writer, sequence), now_epoch=NOW)
    assert store.read_shards({key: 8})[key].amounts == times(amounts(), 3)
    assert store.active_keys(["2026012315"])[key] >= 1


def test_a_transaction_costs_two_units_and_leaves_no_entry(dynamodb_store: DynamoDBStore) -> None:
    key = new_key()
    writers = [new_writer() for _ in range(30)]
    for writer in writers:
        dynamodb_store.write_once(batch(key, writer, 1), now_epoch=NOW)
    dynamodb_store.consumed.reset()
    dynamodb_store.write_once(batch(key, writers[0], 2), now_epoch=NOW)
    units = dynamodb_store.consumed.units()
    assert units.by_operation == {"TransactWriteItems": 2}
    found = dynamodb_store.read_shards({key: 8}, writer_id=writers[0])[key]
    assert (found.amounts, found.writer_sequence) == (times(amounts(), 31), 0)


def test_lost_answers_are_repeated_and_count_once(behind: DynamoDBStore, faulty: proxy.Proxy) -> None:
    key, writer = new_key(), new_writer()
    losses = iter([proxy.DROP_REPLY] * 7)
    faulty.rule = lambda request: next(losses, proxy.FORWARD) if "Transact" in request.operation else proxy.FORWARD
    failures = 0
    while True:
        try:
            behind.write_once(batch(key, writer, 1), now_epoch=NOW)
            break
        except StoreError:
            failures += 1
    assert failures >= 2
    assert behind.read_shards({key: 8})[key].amounts == amounts()


@pytest.mark.parametrize("kind", ["canceled", "conflict"])
def test_a_conflict_is_repeated_by_us(
    behind: DynamoDBStore, faulty: proxy.Proxy, waits: list[float], kind: str
) -> None:
    conflict: dict[str, Any] = {"message": "busy", "__type": "x#TransactionConflictException"}
    if kind == "canceled":
        reasons = [{"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}]
        conflict = {**conflict, "__type": "x#TransactionCanceledException", "CancellationReasons": reasons}
    answers: Iterator[Any] = iter([proxy.answer_json(conflict, 400)] * 3)
    faulty.rule = lambda request: next(answers, proxy.FORWARD) if "Transact" in request.operation else proxy.FORWARD
    key = new_key()
    behind.write_once(batch(key, new_writer(), 1), now_epoch=NOW)
    assert len(waits) == 3
    assert behind.read_shards({key: 8})[key].amounts == amounts()


def test_a_conflict_that_does_not_end_is_an_error(behind: DynamoDBStore, faulty: proxy.Proxy) -> None:
    conflict = {"message": "busy", "__type": "x#TransactionConflictException"}
    faulty.rule = lambda _: proxy.answer_json(conflict, 400)
    with pytest.raises(StoreError, match="TransactionConflict"):
        behind.write_once(batch(new_key(), new_writer(), 1), now_epoch=NOW)


def test_a_key_written_under_more_shards_keeps_the_larger_count(dynamodb_store: DynamoDBStore) -> None:
    key, writer = new_key(), new_writer()
    dynamodb_store.write_batch(batch(key, writer, 1, shard=0, shard_count=16), now_epoch=NOW)
    dynamodb_store.write_once(batch(key, new_writer(), 1, shard=0, shard_count=8), now_epoch=NOW)
    found = dynamodb_store.read_shards({key: 8})[key]
    assert (found.amounts, found.shard_count) == (times(amounts(), 2), 16)

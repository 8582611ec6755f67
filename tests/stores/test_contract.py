"""One suite for all stores: what `stores/contract.py` promises of counters and of the life cycle."""

import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import environment_of_tests
from stores.batches import HOUR, NOW, SHARDS, amounts, batch, new_key, new_writer, times
from stores.threads import THREADS, in_threads

from bedrock_budget.core.account import ZERO, Amounts
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import (
    DailyTotal,
    DynamoDBStore,
    SequenceConflict,
    ShardSum,
    SQLiteStore,
    Store,
)

EACH = 500


def read_one(store: Store, key: UsageKey, writer_id: str | None = None, shard_count: int = SHARDS) -> ShardSum:
    return store.read_shards({key: shard_count}, writer_id=writer_id)[key]


def url_of(store: Store) -> str:
    if isinstance(store, DynamoDBStore):
        return store.url
    return f"sqlite:///{store.path}" if isinstance(store, SQLiteStore) else "memory://"


# --- batches


def test_every_key_asked_for_is_in_the_answer_zero_where_nothing_was_written(store: Store) -> None:
    keys = [new_key() for _ in range(30)]  # more shards than one batch request may hold
    writer = new_writer()
    store.write_batch(batch(keys[7], writer, 1), now_epoch=NOW)
    sums = store.read_shards(dict.fromkeys(keys, SHARDS), writer_id=writer)
    assert set(sums) == set(keys)
    assert sums[keys[7]] == ShardSum(amounts(), 1, SHARDS)
    assert all(sums[key] == ShardSum(ZERO, 0, SHARDS) for key in keys if key != keys[7])
    assert store.read_shards({}) == {}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written=st.lists(
        st.builds(
            Amounts,
            st.integers(0, 2**60),
            st.builds(Usage, *[st.sampled_from([0, 1, 7, 2**50])] * 5),
            st.integers(0, 2**40),
        ),
        max_size=6,
    )
)
def test_amounts_go_in_and_come_out_unchanged(store: Store, written: list[Amounts]) -> None:
    key = new_key()
    expected = ZERO
    for one in written:
        store.write_batch(batch(key, new_writer(), 1, one), now_epoch=NOW)
        expected = expected.plus(one)
    assert read_one(store, key).amounts == expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), max_size=15))
def test_a_batch_is_added_once_and_only_after_those_before_it(store: Store, sent: list[tuple[int, int]]) -> None:
    key = new_key()
    writers = [new_writer() for _ in range(3)]
    applied = dict.fromkeys(writers, 0)
    expected = 0
    for number, sequence in sent:
        writer = writers[number]
        one = batch(key, writer, sequence, amounts(10**sequence))
        if sequence < applied[writer]:
            with pytest.raises(SequenceConflict, match=writer):
                store.write_batch(one, now_epoch=NOW)
        else:
            store.write_batch(one, now_epoch=NOW)
            expected += 10**sequence if sequence > applied[writer] else 0
            applied[writer] = sequence
    for writer, sequence in applied.items():
        found = read_one(store, key, writer)
        assert (found.amounts.cost_pico_usd, found.writer_sequence) == (expected, sequence)
    assert read_one(store, key).writer_sequence == 0


def test_repeating_any_batch_changes_nothing(store: Store) -> None:
    key = new_key()
    sent = [batch(key, new_writer(), 1, amounts(n)) for n in range(1, 20)]
    for one in sent:
        store.write_batch(one, now_epoch=NOW)
    before = read_one(store, key)
    for one in random.Random(1).sample(sent, len(sent)):
        store.write_batch(one, now_epoch=NOW + 7200)
    assert read_one(store, key) == before
    assert key not in store.active_keys(["2026012317"])


def test_threads_racing_with_the_same_batch_add_it_once(store: Store) -> None:
    one = batch(new_key(), new_writer(), 1)
    in_threads(THREADS, lambda _: store.write_batch(one, now_epoch=NOW))
    assert read_one(store, one.key).amounts == one.amounts


def test_writes_of_many_threads_sum_exactly(store: Store) -> None:
    key = new_key()

    def write(_: int) -> None:
        writer = new_writer()
        for sequence in range(1, EACH + 1):
            store.write_batch(batch(key, writer, sequence), now_epoch=NOW)

    in_threads(THREADS, write)
    assert read_one(store, key).amounts == times(amounts(), THREADS * EACH)


def test_writes_of_many_processes_sum_exactly(shared_store: Store) -> None:
    key = new_key()
    program = str(Path(__file__).with_name("write_batches.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, program, url_of(shared_store), *key, new_writer(), str(EACH)], env=environment_of_tests()
        )
        for _ in range(4)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert read_one(shared_store, key).amounts == times(amounts(), 4 * EACH)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (batch(new_key(), "short", 1, shard=0), "writer id"),
        (batch(new_key(), new_writer(), 0), "start at 1"),
        (batch(new_key(), new_writer(), 1, shard=8), "shard 8"),
        (batch(new_key(), new_writer(), 1, amounts(-1)), "negative"),
    ],
)
def test_a_batch_that_could_not_be_counted_right_is_refused(store: Store, bad: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store.write_batch(bad, now_epoch=NOW)  # type: ignore[arg-type]


def test_shards_beyond_the_count_asked_for_are_read_and_reported_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    key = new_key()
    for shard in range(8):
        store.write_batch(batch(key, new_writer(), 1, shard=shard, shard_count=8), now_epoch=NOW)
    # a process with the lower count writes later into the shards that the reader looks at
    for shard in range(2):
        store.write_batch(batch(key, new_writer(), 1, shard=shard, shard_count=2), now_epoch=NOW)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert read_one(store, key, shard_count=2) == ShardSum(times(amounts(), 10), 0, 8)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "written under 8 shards" in caplog.text
    assert read_one(store, key, shard_count=16).shard_count == 16


def test_a_writers_sequence_is_found_whatever_its_shard(store: Store) -> None:
    key, writer = new_key(), new_writer()
    store.write_batch(batch(key, writer, 3, shard=1, shard_count=2), now_epoch=NOW)
    store.write_batch(batch(key, writer, 5, shard=6, shard_count=8), now_epoch=NOW)
    assert read_one(store, key, writer).writer_sequence == 5


# --- activity


def test_active_keys_are_those_last_written_in_the_hours(store: Store) -> None:
    early, late, both = new_key(), new_key("standard"), new_key()
    store.write_batch(batch(early, new_writer(), 1, shard=5), now_epoch=NOW)
    store.write_batch(batch(early, new_writer(), 1, shard=2), now_epoch=NOW + 3599)
    store.write_batch(batch(late, new_writer(), 1, shard=0), now_epoch=NOW + 3600)
    store.write_batch(batch(both, new_writer(), 1, shard=4), now_epoch=NOW)
    store.write_batch(batch(both, new_writer(), 1, shard=4), now_epoch=NOW + 3600)
    assert store.active_keys([HOUR]) == {early: 6}
    assert store.active_keys(["2026012316"]) == {late: 1, both: 5}
    assert store.active_keys([HOUR, "2026012316", HOUR]) == {early: 6, late: 1, both: 5}
    assert store.active_keys(["2026012314"]) == {}
    assert store.active_keys([]) == {}


def test_a_write_marks_its_key_active_whatever_its_day(store: Store) -> None:
    key = new_key()._replace(day="20251231")
    store.write_batch(batch(key, new_writer(), 1, shard=0), now_epoch=NOW)
    assert store.active_keys([HOUR]) == {key: 1}


def test_keys_written_since_a_time_are_listed_and_older_ones_may_be(store: Store) -> None:
    old, recent, again = new_key(), new_key(), new_key()
    for key in (old, again):
        store.write_batch(batch(key, new_writer(), 1, shard=1), now_epoch=NOW)
    for key in (recent, again):
        store.write_batch(batch(key, new_writer(), 1, shard=1), now_epoch=NOW + 1500)
    listed = store.active_keys_since([HOUR], since_epoch=NOW + 1499, now_epoch=NOW + 1501)
    assert set(listed) - {old} == {recent, again}
    assert listed[recent] == 2
    assert store.active_keys_since([HOUR], since_epoch=NOW, now_epoch=NOW + 1501).keys() == {old, recent, again}
    # a writer's clock may be two minutes ahead
    assert recent in store.active_keys_since([HOUR], since_epoch=NOW + 1380, now_epoch=NOW + 1381)
    assert store.active_keys_since(["2026012314"], since_epoch=NOW, now_epoch=NOW + 1501) == {}


# --- daily totals


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations([(0, 1), (0, 2), (5, 3), (5, 4), (9, 5)]))
def test_totals_never_go_down_whatever_the_order_of_writes(store: Store, order: list[tuple[int, int]]) -> None:
    key = new_key()
    highest = (-1, -1)
    for cost, requests in order:
        total = DailyTotal(amounts(cost, requests), 1000 + requests)
        assert store.write_total(key, total) is ((cost, requests) > highest)
        highest = max(highest, (cost, requests))
        assert store.read_totals([key])[key].amounts == amounts(*highest)
    assert store.read_totals([key])[key].updated_at_epoch == 1005


def test_an_equal_total_takes_the_place_of_the_one_before(store: Store) -> None:
    key = new_key()
    assert store.write_total(key, DailyTotal(amounts(), 1))
    assert store.write_total(key, DailyTotal(amounts(), 2))
    assert store.read_totals([key]) == {key: DailyTotal(amounts(), 2)}


def test_totals_are_there_only_for_keys_that_have_one(store: Store) -> None:
    keys = [new_key() for _ in range(120)]
    for key in keys[:3]:
        store.write_total(key, DailyTotal(amounts(1), 5))
    assert store.read_totals(keys + keys) == {key: DailyTotal(amounts(1), 5) for key in keys[:3]}
    assert store.read_totals([]) == {}


# --- life cycle


def test_a_closed_store_may_be_used_again(store: Store) -> None:
    store.close()
    key = new_key()
    store.write_batch(batch(key, new_writer(), 1), now_epoch=NOW)
    store.close()
    store.close()
    assert read_one(store, key).amounts == amounts()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_may_go_on_while_the_parents_threads_write(store: Store) -> None:
    program = str(Path(__file__).with_name("fork_and_write.py"))
    subprocess.run(
        [sys.executable, program, url_of(store)], env=environment_of_tests(traced=False), check=True, timeout=60
    )

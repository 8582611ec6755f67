"""The meter: whatever becomes of the store and of the threads, each usage is written exactly once."""

import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import tenacity
from doubles import AWAY, UnreliableStore, stored, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget import meter as meter_module
from bedrock_budget import outbox
from bedrock_budget.clock import SystemClock
from bedrock_budget.core.account import Batch
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.keys import UsageKey, is_writer_id, shard_of
from bedrock_budget.core.usage import Usage
from bedrock_budget.meter import Meter
from bedrock_budget.stores import SequenceConflict
from bedrock_budget.testing import ManualClock
from bedrock_budget.writers import new_writer_id

KEY = UsageKey("ORG#acme#APP#chat", "premium", "20260115")
ONE = Usage(10, 2, 3, 4, 5)
MakeMeter = Callable[..., Meter]


def key(number: int) -> UsageKey:
    return KEY._replace(label=f"label{number}")


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def make_meter(store: UnreliableStore) -> Iterator[MakeMeter]:
    made: list[Meter] = []

    def make(*, sync: bool = False) -> Meter:
        made.append(Meter(store, ManualClock(), sync=sync))
        return made[-1]

    yield make
    store.come_back()
    store.fails = lambda name, subject: None
    store.open.set()
    for meter in made:
        meter.close()


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch, make_meter: MakeMeter) -> Meter:
    """A meter whose background thread never starts: only what the test calls happens."""
    monkeypatch.setattr(Meter, "_start_thread", lambda self: None)
    return make_meter()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Background threads that lose no time."""
    monkeypatch.setattr(meter_module, "FLUSH_SECS", 0.02)
    monkeypatch.setattr(meter_module, "HURRY_SECS", 0.01)
    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: tenacity.wait_fixed(0.01))


def running(meter: Meter) -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each is meter._thread]


# --- batches


def test_usage_merges_per_key_into_one_batch(still: Meter, store: UnreliableStore) -> None:
    accounts = [still.account(key(number), 8) for number in range(3)]
    for _ in range(100):
        for account in accounts:
            still.add(account, ONE, 7)
    assert store.batches == []
    assert still.flush()
    assert [batch.amounts.requests for batch in store.batches] == [100, 100, 100]
    assert {batch.key for batch in store.batches} == {key(0), key(1), key(2)}
    assert stored(store, key(0)) == (700, Usage(1000, 200, 300, 400, 500), 100)


def test_sequence_numbers_rise_and_one_writer_keeps_one_shard(still: Meter, store: UnreliableStore) -> None:
    account = still.account(KEY, 8)
    for _ in range(5):
        still.add(account, ONE, 1)
        still.flush()
    sequences = [batch.sequence for batch in store.batches]
    assert sequences == sorted(set(sequences))
    assert {batch.writer_id for batch in store.batches} == {still.writer_id}
    assert {batch.shard for batch in store.batches} == {shard_of(still.writer_id, 8)}


def test_all_who_ask_for_a_key_get_the_same_account_for_as_long_as_somebody_needs_it(still: Meter) -> None:
    account = still.account(KEY, 8)
    assert still.account(KEY, 16) is account
    still.add(account, ONE, 1)
    del account
    gc.collect()
    assert still.account(KEY, 8).added == 1  # unwritten usage keeps it
    still.flush()
    gc.collect()
    assert still.account(KEY, 8).added == 0


def test_writer_ids_are_new_each_time_and_look_like_writer_ids() -> None:
    ids = {new_writer_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_writer_id(each) for each in ids)


def test_one_batch_of_an_item_is_in_flight_and_usage_meanwhile_waits_for_the_next(
    make_meter: MakeMeter, store: UnreliableStore, quick: None
) -> None:
    meter = make_meter()
    account = meter.account(KEY, 8)
    store.open.clear()
    meter.add(account, ONE, 1)
    wait_until(lambda: store.waiting == 1)
    flushed: list[bool] = []
    flushing = [threading.Thread(target=lambda: flushed.append(meter.flush())) for _ in range(3)]
    for _ in range(4):
        meter.add(account, ONE, 1)
    for thread in flushing:
        thread.start()
    assert not meter.flush(timeout=0.01)
    assert store.waiting == 1  # and no second writer of the same item
    assert len(store.batches) == 1
    store.open.set()
    for thread in flushing:
        thread.join(10)
    assert flushed == [True, True, True]
    assert [batch.amounts.requests for batch in store.batches] == [1, 4]


# --- a store that fails


def test_a_write_whose_reply_was_lost_is_repeated_unchanged_and_counts_once(
    still: Meter, store: UnreliableStore
) -> None:
    account = still.account(KEY, 8)
    store.lose_replies = 3
    still.add(account, ONE, 5)
    assert not still.flush(timeout=0)
    still.add(account, ONE, 100)
    assert still.error is not None
    assert still.flush()
    assert still.error is None
    assert store.batches[0] == store.batches[1] == store.batches[2] == store.batches[3]
    assert [batch.amounts.cost_pico_usd for batch in store.batches[3:]] == [5, 100]
    assert stored(store, KEY) == (105, ONE.plus(ONE), 2)


def test_an_outage_loses_nothing_and_keeps_two_amounts_a_key(
    make_meter: MakeMeter, store: UnreliableStore, quick: None
) -> None:
    meter = make_meter()
    accounts = [meter.account(key(number), 8) for number in range(2)]
    store.writes_fail = AWAY
    for _ in range(500):
        for account in accounts:
            meter.add(account, ONE, 3)
    wait_until(lambda: len(store.batches) >= 6)
    for _ in range(500):
        for account in accounts:
            meter.add(account, ONE, 3)
    frozen = set(store.batches)
    assert len(frozen) == 2  # the same ones over and over
    assert len(meter._outbox.dirty) == 2
    assert sum(account.unwritten_cost for account in accounts) == 6000
    tried = len(store.batches)
    store.come_back()
    wait_until(lambda: not meter._outbox.dirty)
    applied = [batch for batch in store.batches[tried:] if batch in frozen]
    assert len(set(applied)) == len(applied) == 2  # each was applied once it could be, and not again
    assert stored(store, key(0), key(1)).cost_pico_usd == 6000
    assert stored(store, key(0), key(1)).requests == 2000


def test_the_background_thread_recovers_by_itself_and_says_so_in_the_error(
    make_meter: MakeMeter, store: UnreliableStore, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    meter = make_meter()
    store.writes_fail = AWAY
    meter.add(meter.account(KEY, 8), ONE, 1)
    wait_until(lambda: meter.error is not None)
    assert "kept and repeated: the store is away" in caplog.text
    store.come_back()
    wait_until(lambda: meter.error is None)
    assert stored(store, KEY).requests == 1


def test_what_is_no_store_error_is_repeated_as_well(make_meter: MakeMeter, store: UnreliableStore, quick: None) -> None:
    meter = make_meter()
    store.writes_fail = ValueError("a mistake in a store")
    meter.add(meter.account(KEY, 8), ONE, 1)
    wait_until(lambda: len(store.batches) > 3)
    store.come_back()
    wait_until(lambda: stored(store, KEY).requests == 1)


def test_items_that_the_store_refuses_do_not_keep_the_others_from_it(still: Meter, store: UnreliableStore) -> None:
    accounts = [still.account(key(number), 8) for number in range(10)]
    bad = {key(number) for number in range(5)}
    store.fails = lambda name, batch: AWAY if batch.key in bad else None
    for account in accounts:
        still.add(account, ONE, 1)
    for _ in range(10):
        still.flush(timeout=0)
    assert [account.dirty for account in accounts] == [True] * 5 + [False] * 5
    store.fails = lambda name, batch: None
    assert still.flush()
    assert stored(store, *(key(number) for number in range(10))).requests == 10


def test_a_pass_over_a_store_that_is_away_ends_early(still: Meter, store: UnreliableStore) -> None:
    accounts = [still.account(key(number), 8) for number in range(100)]
    store.writes_fail = AWAY
    for account in accounts:
        still.add(account, ONE, 1)
    assert not still.flush(timeout=0)
    assert len(store.batches) <= outbox.FAILURES_A_PASS


def test_a_writer_id_that_another_program_uses_is_given_up_and_nothing_is_lost(
    still: Meter, store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    account, other = still.account(KEY, 8), still.account(key(1), 8)
    first = still.writer_id
    still.add(account, ONE, 1)
    still.add(other, ONE, 1)
    assert still.flush()
    theirs = store.batches[0]._replace(sequence=1000)
    store.inner.write_batch(theirs, now_epoch=0)
    still.add(account, ONE, 10)
    still.add(other, ONE, 10)
    assert still.flush()
    assert still.writer_id != first
    assert "new writer id" in caplog.text
    assert store.batches[-1].writer_id == still.writer_id
    assert stored(store, KEY).cost_pico_usd == 1 + 1 + 10
    assert stored(store, key(1)).cost_pico_usd == 1 + 10
    still.add(account, ONE, 100)
    assert still.flush()
    assert stored(store, KEY).cost_pico_usd == 112


def test_two_items_in_conflict_lead_to_one_new_writer_id(still: Meter, store: UnreliableStore) -> None:
    accounts = [still.account(key(number), 8) for number in range(2)]
    for account in accounts:
        still.add(account, ONE, 1)
    still.flush()
    first = still.writer_id
    store.writes_fail = AWAY
    for account in accounts:
        still.add(account, ONE, 1)
    still.flush(timeout=0)  # both are frozen under the first writer id
    store.come_back()
    for batch in store.batches[:2]:
        store.inner.write_batch(batch._replace(sequence=1000), now_epoch=0)
    assert still.flush()
    writers = [batch.writer_id for batch in store.batches if batch.writer_id != first]
    assert len(set(writers)) == 1
    assert stored(store, key(0), key(1)).requests == 6


def test_a_conflict_that_the_store_reports_once_does_not_show_as_an_outage(
    still: Meter, store: UnreliableStore
) -> None:
    conflicts = [SequenceConflict("once")]
    store.fails = lambda name, batch: conflicts.pop() if conflicts else None
    still.add(still.account(KEY, 8), ONE, 1)
    still.flush(timeout=0)
    assert still.error is None


# --- when it writes


def test_the_background_thread_writes_by_itself(make_meter: MakeMeter, store: UnreliableStore, quick: None) -> None:
    meter = make_meter()
    meter.add(meter.account(KEY, 8), ONE, 1)
    wait_until(lambda: stored(store, KEY).requests == 1)


def test_near_a_quota_it_writes_at_once(
    make_meter: MakeMeter, store: UnreliableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "FLUSH_SECS", 1000.0)
    meter = make_meter()
    account = meter.account(KEY, 8)
    for number in (1, 2):
        meter.add(account, ONE, 1)
        meter.hurry()
        meter.hurry()
        wait_until(lambda number=number: stored(store, KEY).requests == number)  # type: ignore[misc]


def test_an_idle_thread_ends_and_the_next_usage_starts_another(
    make_meter: MakeMeter, store: UnreliableStore, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "IDLE_SECS", 0.04)
    meter = make_meter()
    account = meter.account(KEY, 8)
    assert meter._thread is None
    for number in (1, 2, 3):
        meter.add(account, ONE, 1)
        thread = meter._thread
        assert thread is not None
        thread.join(10)
        assert not thread.is_alive()
        assert meter._thread is None
        assert stored(store, KEY).requests == number


class Stream:
    """An open stream, and what becomes of it."""

    def __init__(self) -> None:
        self.abandoned = 0

    def abandon(self) -> None:
        self.abandoned += 1


def test_an_open_stream_keeps_the_thread_for_its_settlement(
    make_meter: MakeMeter, store: UnreliableStore, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "IDLE_SECS", 0.04)
    meter = make_meter()
    account = meter.account(KEY, 8)
    stream = Stream()
    meter.opened(stream)
    meter.opened(stream)
    assert meter.open_streams() == [stream]
    thread = meter._thread
    assert thread is not None
    weakref.finalize(stream, meter.defer, lambda: meter.add(account, ONE, 1))
    thread.join(0.2)
    assert thread.is_alive()
    del stream
    gc.collect()
    wait_until(lambda: stored(store, KEY).requests == 1)
    assert meter.open_streams() == []
    thread.join(10)
    assert not thread.is_alive()


def test_streams_may_be_opened_while_the_open_ones_are_listed(still: Meter) -> None:
    kept = [Stream() for _ in range(2000)]
    done = threading.Event()
    failures: list[BaseException] = []

    def list_them() -> None:
        try:
            while not done.is_set():
                still.open_streams()
        except BaseException as exc:
            failures.append(exc)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=list_them)
        thread.start()
        for stream in kept:
            still.opened(stream)
        done.set()
        thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_a_stream_opened_after_the_end_starts_no_thread(make_meter: MakeMeter) -> None:
    meter = make_meter()
    meter.close()
    stream = Stream()
    meter.opened(stream)
    assert meter._thread is None


def test_deferred_settlements_are_part_of_a_flush(still: Meter, store: UnreliableStore) -> None:
    account = still.account(KEY, 8)
    for _ in range(3):
        still.defer(lambda: still.add(account, ONE, 1))
    assert still.flush()
    assert stored(store, KEY).requests == 3


def test_a_deferred_settlement_that_fails_stops_neither_the_others_nor_the_thread(
    make_meter: MakeMeter, store: UnreliableStore, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    meter = make_meter()
    account = meter.account(KEY, 8)

    def fail() -> None:
        raise ZeroDivisionError

    meter.add(account, ONE, 1)
    wait_until(lambda: stored(store, KEY).requests == 1)
    meter.defer(fail)
    meter.defer(lambda: meter.add(account, ONE, 1))
    wait_until(lambda: stored(store, KEY).requests == 2)
    assert "could not be settled" in caplog.text
    meter.add(account, ONE, 1)
    wait_until(lambda: stored(store, KEY).requests == 3)


def test_a_process_that_can_start_no_thread_keeps_its_usage_for_the_end(
    make_meter: MakeMeter, store: UnreliableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    meter = make_meter()
    meter.add(meter.account(KEY, 8), ONE, 1)
    meter.add(meter.account(KEY, 8), ONE, 1)
    assert meter._thread is None
    meter.at_exit(5)
    assert stored(store, KEY).requests == 2


# --- metering="sync"


def test_in_sync_mode_usage_is_written_when_add_returns(make_meter: MakeMeter, store: UnreliableStore) -> None:
    meter = make_meter(sync=True)
    account = meter.account(KEY, 8)
    for number in range(1, 4):
        meter.add(account, ONE, 1)
        assert stored(store, KEY).requests == number
    assert meter._thread is None


def test_in_sync_mode_many_threads_share_writes_and_each_waits_for_its_own(
    make_meter: MakeMeter, store: UnreliableStore
) -> None:
    meter = make_meter(sync=True)
    account = meter.account(KEY, 8)
    store.open.clear()
    threads = [threading.Thread(target=meter.add, args=(account, ONE, 1)) for _ in range(8)]
    threads[0].start()
    wait_until(lambda: store.waiting == 1)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: account.added == 8)
    assert all(thread.is_alive() for thread in threads)
    store.open.set()
    for thread in threads:
        thread.join(10)
    assert stored(store, KEY).requests == 8
    assert [batch.amounts.requests for batch in store.batches] == [1, 7]


def test_in_sync_mode_a_failed_write_is_repeated_in_the_background(
    make_meter: MakeMeter, store: UnreliableStore, quick: None
) -> None:
    meter = make_meter(sync=True)
    store.lose_replies = 1
    store.writes_fail = AWAY
    account = meter.account(KEY, 8)
    meter.add(account, ONE, 1)  # does not raise
    assert meter.error is not None
    store.come_back()
    wait_until(lambda: not meter._outbox.dirty)
    assert stored(store, KEY).requests == 1


def test_in_sync_mode_who_waited_for_a_failed_write_does_not_wait_for_another(
    make_meter: MakeMeter, store: UnreliableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "FLUSH_SECS", 1000.0)
    meter = make_meter(sync=True)
    account = meter.account(KEY, 8)
    store.open.clear()
    store.writes_fail = AWAY
    threads = [threading.Thread(target=meter.add, args=(account, ONE, 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: account.added == 8 and store.waiting == 1)
    store.open.set()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert len(store.batches) < 8


# --- flush and close


def test_flush_with_nothing_to_do_is_true_even_if_the_store_is_away(still: Meter, store: UnreliableStore) -> None:
    store.go_away()
    assert still.flush(timeout=0)
    assert store.calls == []


def test_flush_answers_for_what_was_added_before_it_while_more_comes_in(
    make_meter: MakeMeter, store: UnreliableStore, quick: None
) -> None:
    meter = make_meter()
    account = meter.account(KEY, 8)
    done = threading.Event()

    def add() -> None:
        while not done.is_set():
            meter.add(account, ONE, 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            before = account.added
            assert meter.flush(timeout=10)
            assert stored(store, KEY).requests >= before
    finally:
        done.set()
        for thread in threads:
            thread.join(10)
    assert meter.flush()
    assert stored(store, KEY).requests == account.added


def test_flush_without_a_timeout_waits_for_the_store_to_come_back(still: Meter, store: UnreliableStore) -> None:
    store.writes_fail = AWAY
    still.add(still.account(KEY, 8), ONE, 1)
    flushed: list[bool] = []
    thread = threading.Thread(target=lambda: flushed.append(still.flush()))
    thread.start()
    wait_until(lambda: len(store.batches) >= 2)
    assert flushed == []
    store.come_back()
    thread.join(10)
    assert flushed == [True]


def test_flush_gives_up_in_time_though_the_store_is_only_slow(
    still: Meter, store: UnreliableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    monkeypatch.setattr(meter_module, "monotonic", lambda: seconds[0])

    def slow(name: str, batch: object) -> None:
        seconds[0] += 1.0

    store.fails = slow
    for number in range(100):
        still.add(still.account(key(number), 8), ONE, 1)
    assert not still.flush(timeout=5)
    assert 1 <= len(store.batches) <= 7
    still.close(timeout=5)  # but the end goes on for as long as the store takes what it is given
    assert stored(store, *(key(number) for number in range(100))).requests == 100


def test_close_writes_what_is_left_ends_the_thread_and_may_be_repeated(
    make_meter: MakeMeter, store: UnreliableStore
) -> None:
    meter = make_meter()
    account = meter.account(KEY, 8)
    meter.add(account, ONE, 1)
    thread = meter._thread
    assert thread is not None
    assert meter.close()
    assert stored(store, KEY).requests == 1
    thread.join(10)
    assert not thread.is_alive()
    assert meter.close()
    meter.at_exit(5)
    assert len(store.batches) == 1


def test_usage_after_close_is_written_at_once(make_meter: MakeMeter, store: UnreliableStore) -> None:
    meter = make_meter()
    account = meter.account(KEY, 8)
    meter.close()
    meter.add(account, ONE, 1)
    assert stored(store, KEY).requests == 1
    store.writes_fail = AWAY
    meter.add(account, ONE, 1)
    store.come_back()
    meter.add(account, ONE, 1)
    assert stored(store, KEY).requests == 3
    assert meter._thread is None


def test_close_with_the_store_away_says_what_is_not_written_and_can_be_tried_again(
    make_meter: MakeMeter, store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    meter = make_meter()
    store.writes_fail = AWAY
    meter.add(meter.account(KEY, 8), ONE, 2_500_000_000_000)
    meter.add(meter.account(key(1), 8), ONE, 1)
    assert not meter.close(timeout=0.05)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "$2.5" in errors[0]
    assert "2 (scope, label, day)" in errors[0]
    assert "the store is away" in errors[0]
    store.come_back()
    assert meter.close()
    assert stored(store, KEY, key(1)).requests == 2


def test_closing_stops_the_repetition_of_the_background_thread(
    make_meter: MakeMeter, store: UnreliableStore, quick: None
) -> None:
    meter = make_meter()
    store.writes_fail = AWAY
    meter.add(meter.account(KEY, 8), ONE, 1)
    wait_until(lambda: len(store.batches) > 2)
    thread = meter._thread
    assert thread is not None
    meter.close(timeout=0.01)
    thread.join(10)
    assert not thread.is_alive()


def test_an_interrupt_in_the_middle_of_a_write_leaves_the_batch_to_be_repeated(
    make_meter: MakeMeter, store: UnreliableStore
) -> None:
    meter = make_meter(sync=True)
    account = meter.account(KEY, 8)
    interrupts = [KeyboardInterrupt()]

    def interrupt(name: str, batch: object) -> None:
        if interrupts:
            raise interrupts.pop()

    store.fails = interrupt
    with pytest.raises(KeyboardInterrupt):
        meter.add(account, ONE, 1)
    assert not account.sending
    assert meter.flush(timeout=5)
    assert store.batches[0] == store.batches[1]
    assert stored(store, KEY).requests == 1


# --- many threads, any schedule


def test_sixteen_threads_lose_and_double_nothing(make_meter: MakeMeter, store: UnreliableStore, quick: None) -> None:
    meter = make_meter()
    accounts = [meter.account(key(number), 8) for number in range(3)]
    store.lose_replies = 20
    conflicts = [SequenceConflict("another program")] * 3
    store.fails = lambda name, batch: conflicts.pop() if conflicts and batch.sequence % 7 == 0 else None
    start = threading.Barrier(16)

    def add(number: int) -> None:
        start.wait()
        for turn in range(500):
            meter.add(accounts[(number + turn) % 3], ONE, number + 1)
            if turn % 100 == 0:
                meter.hurry()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=add, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert meter.close()
    total = stored(store, *(account.key for account in accounts))
    assert total.requests == 16 * 500
    assert total.cost_pico_usd == 500 * sum(range(1, 17))
    assert total.usage == Usage(*(8000 * count for count in ONE))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, 10**13)),
        st.tuples(st.just("flush"), st.sampled_from(["ok", "away", "lost", "conflict"]), st.integers(1, 4)),
        st.tuples(st.just("look"), st.integers(0, 2), st.integers(0, 0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from(["background", "sync"]))
def test_for_any_schedule_of_failures_the_store_has_the_sum_once_it_is_back(
    steps: list[tuple[str, object, int]], metering: str
) -> None:
    store = UnreliableStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Meter, "_start_thread", lambda self: None)
        meter = Meter(store, SystemClock(), sync=metering == "sync")
        accounts = [meter.account(key(number), 8) for number in range(3)]
        added = [0, 0, 0]
        broken: list[Exception] = []

        def fail(name: str, batch: Batch) -> Exception | None:
            if not broken:
                return None
            # An applied batch that conflicts nevertheless cannot be told from one that was not applied.
            seen = store.inner.read_shards({batch.key: 8}, writer_id=batch.writer_id)[batch.key].writer_sequence
            if isinstance(broken[-1], SequenceConflict) and seen >= batch.sequence:
                return None
            return broken.pop()

        store.fails = fail
        for kind, which, amount in steps:
            if kind == "add":
                assert isinstance(which, int)
                meter.add(accounts[which], ONE, amount)
                added[which] += amount
            elif kind == "look":
                assert isinstance(which, int)
                begun = meter.begin_look()
                found = store.inner.read_shards({key(which): 8}, writer_id=meter.writer_id)[key(which)]
                with meter.lock:
                    unseen = accounts[which].saw_shards(found.amounts.cost_pico_usd, found.writer_sequence, begun)
                if not any(batch.writer_id != meter.writer_id for batch in store.batches):
                    assert found.amounts.cost_pico_usd + unseen.cost_pico_usd == added[which]
                    assert accounts[which].spend == added[which]
            elif which == "lost":
                store.lose_replies = amount
                meter.flush(timeout=0)
                store.lose_replies = 0
            else:
                broken[:] = {
                    "ok": [],
                    "away": [StoreError("away")] * amount,
                    "conflict": [SequenceConflict("another program")] * amount,
                }[str(which)]
                meter.flush(timeout=0)
                broken.clear()
            for account, truth in zip(accounts, added, strict=True):
                assert account.spend >= truth
        assert meter.flush(timeout=10)
        assert [stored(store, key(number)).cost_pico_usd for number in range(3)] == added


# --- forks


def test_a_forked_child_starts_afresh_as_another_writer(still: Meter, store: UnreliableStore) -> None:
    account = still.account(KEY, 8)
    still.add(account, ONE, 1)
    still.defer(lambda: still.add(account, ONE, 1))
    before = still.writer_id
    still.after_fork_in_child()
    assert still.writer_id != before
    assert still.flush()
    assert store.batches == []
    mine = still.account(KEY, 8)
    assert mine is not account
    still.add(mine, ONE, 1)
    assert still.flush()
    assert [batch.writer_id for batch in store.batches] == [still.writer_id]

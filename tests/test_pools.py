"""A process's slices: threads that race, stores that fail, what goes back and when, forks and Lambda."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from doubles import AWAY, UnreliableStore, wait_until
from metered import HELLO, budget, metered, record_of
from programs import environment_of_tests
from stores.threads import THREADS, in_threads

from bedrock_budget import pools as module
from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.hold import Hold
from bedrock_budget.journal.journal import Journal
from bedrock_budget.journal.replay import replay_unlocked
from bedrock_budget.meter import Meter
from bedrock_budget.pool import LONGEST_PAUSE_SECS, Claim, Pool
from bedrock_budget.pools import IDLE_SECS, WAIT_SECS, Pools
from bedrock_budget.stores import DynamoDBStore, MemoryStore, SequenceConflict, SQLiteStore, Store
from bedrock_budget.stores.tables import LEASES
from bedrock_budget.testing import LocalBedrock, ManualClock
from bedrock_budget.writers import new_writer_id

KEY = UsageKey("ORG#acme#APP#chat", "premium", "20260115")
CAP = KEY._replace(label="*")
QUOTA = 40_000  # a slice: 100


journals: list[Journal] = []  # of the test under way


class Process:
    """The parts of a process that strict enforcement has, with no background threads."""

    def __init__(
        self, store: Store, clock: ManualClock | None = None, *, root: Path | None = None, keep_nothing: bool = False
    ) -> None:
        self.store = store
        self.clock = clock or ManualClock()
        self.quotas: dict[UsageKey, int] = {}
        self.journal = None if root is None else Journal(root, "memory://")
        if self.journal is not None:
            journals.append(self.journal)
        self.meter = Meter(store, self.clock, journal=self.journal)
        self.meter._start_thread = lambda: None  # type: ignore[method-assign]
        self.meter._take_over = None
        self.pools = Pools(store, self.meter, self.clock, journal=self.journal, keep_nothing=keep_nothing)
        self.meter.settled_all = lambda: not self.pools.outstanding
        self.meter.begin()

    def pool(self, key: UsageKey = KEY, quota: int = QUOTA) -> Pool:
        expires = int(ManualClock().now().timestamp()) + 3 * 86_400
        pool = self.pools.pool(key, expires, (self.meter.account(key, 1),))
        self.quotas[pool.slice.key] = quota
        return pool

    def claims(self, *pools: Pool) -> list[Claim]:
        """What calls are held out of, as the quotas were said last."""
        return [Claim(pool.slice.key.label, pool, self.quotas[pool.slice.key]) for pool in pools or (self.pool(),)]

    def try_hold(self, worst_case: int, *pools: Pool) -> Hold | None:
        found = self.pools.hold(self.claims(*pools), worst_case)
        return found if isinstance(found, Hold) else None

    def hold(self, worst_case: int, *pools: Pool) -> Hold:
        found = self.try_hold(worst_case, *pools)
        assert found is not None
        return found

    def granted(self, key: UsageKey = KEY) -> int:
        return granted(self.store, key)


def granted(store: Store, key: UsageKey = KEY) -> int:
    inner = store.inner if isinstance(store, UnreliableStore) else store
    return inner.read_granted([key]).get(key, 0)


@pytest.fixture
def store() -> Iterator[UnreliableStore]:
    yield UnreliableStore()
    for journal in journals:
        journal.after_fork_in_child()  # closes its files, as the kernel does
    journals.clear()


@pytest.fixture
def process(store: UnreliableStore) -> Process:
    return Process(store)


def test_there_is_one_pool_a_key_for_all_who_ask(process: Process) -> None:
    assert process.pool() is process.pool()
    assert process.pool(CAP) is not process.pool()


# -- threads


@pytest.fixture(params=["memory", "sqlite"])
def some_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "budget.db")
    yield store
    store.close()


def test_racing_threads_of_two_processes_get_the_last_money_exactly(some_store: Store) -> None:
    processes = [Process(some_store), Process(some_store)]
    admitted: list[int] = []

    def work(number: int) -> None:
        process = processes[number % 2]
        while (hold := process.try_hold(10, process.pool(quota=1005))) is not None:
            hold.settle(10)
            admitted.append(1)

    in_threads(THREADS, work)
    for process in processes:
        process.pools.close()
    assert (len(admitted), granted(some_store)) == (100, 1000)


def test_a_thread_waits_for_the_one_that_takes_a_slice(process: Process, store: UnreliableStore) -> None:
    store.open.clear()
    holds: list[Hold] = []
    threads = [threading.Thread(target=lambda: holds.append(process.hold(10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: store.waiting)
    store.open.set()
    for thread in threads:
        thread.join()
    assert (len(holds), store.count("write_grant")) == (3, 1)


def test_who_has_waited_too_long_is_told(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WAIT_SECS > 0
    monkeypatch.setattr(module, "WAIT_SECS", 0.0)
    pool = process.pool()
    pool.busy = True
    with pytest.raises(StoreError, match="another call is waiting for the store"):
        process.try_hold(10)


# -- stores that fail


@pytest.mark.parametrize("applied", [True, False])
def test_a_take_whose_outcome_is_unknown_is_repeated_and_counts_once(
    process: Process, store: UnreliableStore, applied: bool
) -> None:
    if applied:
        store.lose_grant_replies = 1
    else:
        store.writes_fail = AWAY
    with pytest.raises(StoreError):
        process.try_hold(10)
    assert process.granted() == (100 if applied else 0)
    store.come_back()
    process.hold(10)
    assert process.granted() == 100
    sent = [grant for name, grant in store.calls if name == "write_grant"]
    assert sent[0] == sent[1]


def test_money_on_its_way_back_is_not_held(process: Process, store: UnreliableStore) -> None:
    pool = process.pool()
    process.hold(10).settle(4)
    process.clock.advance(IDLE_SECS + 1)
    store.lose_grant_replies = 1
    process.pools.tend()
    assert process.granted() == 4  # and this process does not know
    other = Process(store)
    other.hold(39_996, other.pool())
    assert process.try_hold(10) is None
    assert pool.slice.held == 0
    assert granted(store) == QUOTA


def test_an_error_of_another_kind_frees_the_pool(process: Process, store: UnreliableStore) -> None:
    store.writes_fail = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        process.try_hold(10)
    store.come_back()
    process.hold(10).settle(10)
    process.pools.close()
    assert process.granted() == 10


def test_an_id_that_another_program_uses_is_given_up_and_the_holds_go_on(
    process: Process, store: UnreliableStore
) -> None:
    pool = process.pool()
    hold = process.hold(60)
    before = pool.slice.holder_id
    store.fails = lambda name, subject: SequenceConflict("taken") if name == "write_grant" else None
    with pytest.raises(SequenceConflict):
        process.try_hold(60)
    store.fails = lambda name, subject: None
    assert pool.slice.holder_id != before
    assert (pool.slice.held, pool.slice.granted) == (60, 100)
    hold.settle(50)
    process.pools.close()
    assert process.granted() == 50


def test_who_waited_while_the_id_changed_holds_out_of_the_new_slice(process: Process, store: UnreliableStore) -> None:
    pool = process.pool()
    process.hold(60)
    store.fails = lambda name, subject: SequenceConflict("taken") if name == "write_grant" else None
    pool.busy = True
    found: list[Hold] = []
    waiting = threading.Thread(target=lambda: found.append(process.hold(60)))
    waiting.start()
    wait_until(lambda: process.pools._changed._waiters)  # type: ignore[attr-defined]
    with pytest.raises(SequenceConflict):
        process.pools._write(pool, pool.slice.take(60))
    store.fails = lambda name, subject: None
    process.pools._free(pool)
    waiting.join()
    assert pool.slice.held == 120 <= pool.slice.granted


def test_one_pool_that_fails_does_not_keep_the_others(process: Process, store: UnreliableStore) -> None:
    for number in range(3):
        process.hold(10, process.pool(KEY._replace(label=f"label{number}"))).settle(4)
    store.fails = lambda name, subject: AWAY if getattr(subject, "key", KEY).label == "label0" else None
    process.pools.close()
    assert [granted(store, KEY._replace(label=f"label{number}")) for number in range(3)] == [100, 4, 4]
    assert process.pools.outstanding


def test_a_pool_that_was_deleted_is_opened_again_and_what_was_spent_counts(process: Process) -> None:
    process.hold(10).settle(10)
    inner = process.store.inner  # type: ignore[attr-defined]
    batch = Batch(KEY, new_writer_id(), 1, 0, 1, Amounts(10, Usage(1), 1))
    inner.write_batch(batch, now_epoch=0.0)
    del inner._pools[KEY]
    process.clock.advance(IDLE_SECS + 1)
    process.pools.tend()  # ends
    process.hold(10)
    assert process.granted() == 110


# -- refusals


def test_a_refusal_speaks_for_a_while_and_for_longer_each_time(process: Process, store: UnreliableStore) -> None:
    def asks() -> bool:
        before = store.count("write_grant")
        assert process.try_hold(41, pool) is None
        return store.count("write_grant") > before

    pool = process.pool(quota=40)
    original = store.inner.write_grant

    def slowly(grant: Any, *, once: bool = False) -> Any:
        process.clock.advance(0.5)
        return original(grant, once=once)

    store.inner.write_grant = slowly  # type: ignore[method-assign]
    assert asks()
    assert not asks()
    process.clock.advance(9.0)
    assert not asks()
    process.clock.advance(1.5)
    assert asks()  # 20 times as long as asking took
    process.clock.advance(3600)
    assert asks()
    process.clock.advance(LONGEST_PAUSE_SECS - 1)
    assert not asks()
    process.clock.advance(2)
    assert asks()


def test_a_smaller_need_and_a_raised_quota_ask_at_once(process: Process) -> None:
    pool = process.pool(quota=40)
    pool_refused = process.try_hold(41, pool)
    assert pool_refused is None
    pool.retry_at = 1e9  # the refusal speaks for long
    assert process.try_hold(41, pool) is None
    process.hold(40, pool)
    assert process.try_hold(1, pool) is None
    assert process.pool(quota=50) is pool
    process.hold(10, pool)


def test_a_refusal_gives_the_rest_to_others(process: Process, store: UnreliableStore) -> None:
    process.hold(10, process.pool(quota=100)).settle(0)
    hold = process.hold(30, process.pool(quota=100))
    assert process.try_hold(90, process.pool(quota=100)) is None
    other = Process(store)
    other.hold(70, other.pool(quota=100))
    hold.settle(30)
    assert granted(store) == 100


def test_what_others_leave_is_taken_to_the_last(process: Process, store: UnreliableStore) -> None:
    process.hold(39_950)
    other = Process(store)
    other.hold(20, other.pool())  # not a whole slice: there is none
    assert granted(store) == QUOTA
    other.hold(30, other.pool())


def test_a_hold_is_in_all_pools_or_in_none(process: Process, store: UnreliableStore) -> None:
    first, cap = process.pool(), process.pool(CAP, 5)
    assert process.pools.hold(process.claims(first, cap), 10) == process.claims(cap)[0]
    assert (first.slice.held, cap.slice.held) == (0, 0)
    store.fails = lambda name, subject: AWAY if getattr(subject, "key", KEY) == CAP else None
    cap.retry_at = 0.0
    with pytest.raises(StoreError):
        process.pools.hold(process.claims(first, cap), 10)
    assert first.slice.held == 0


# -- back


def test_what_nobody_uses_goes_back_after_a_while(process: Process, store: UnreliableStore) -> None:
    process.hold(10).settle(4)
    process.clock.advance(IDLE_SECS - 1)
    process.pools.tend()
    assert process.granted() == 100
    process.clock.advance(module.TEND_SECS)
    process.pools.tend()
    assert process.granted() == 4
    assert not process.pools.outstanding


def test_a_call_that_ends_after_its_scope_was_forgotten_is_tended_all_the_same(process: Process) -> None:
    hold = process.hold(10)
    process.pools.forget([process.pool()])
    assert process.granted() == 10
    process.clock.advance(3600)
    hold.settle(4)
    process.pools.tend()
    assert process.granted() == 4


def test_a_pool_that_comes_again_goes_on_under_its_id(process: Process, store: UnreliableStore) -> None:
    ids: set[str] = set()
    for _ in range(3):
        hold = process.hold(30)
        ids.update(pool.slice.holder_id for pool in hold.pools)
        hold.settle(10)
        process.pools.forget(hold_pools := [process.pool()])
        del hold, hold_pools  # nobody has it any more
    assert len(ids) == 1  # each is an entry in the item for the day
    assert process.granted() == 30
    assert len({grant.sequence for name, grant in store.calls if name == "write_grant"}) == 6
    process.clock.advance(4 * 86_400)
    process.pools.tend()
    assert process.pools._holders == {}


def test_a_day_that_is_over_for_long_is_dropped(process: Process, store: UnreliableStore) -> None:
    process.hold(10).settle(4)
    process.clock.advance(timedelta(days=4))
    before = store.count("write_grant")
    process.pools.forget([process.pool()])
    assert store.count("write_grant") == before
    assert not process.pools.outstanding


def test_a_call_under_way_at_the_close_is_settled_late(process: Process) -> None:
    hold = process.hold(10)
    process.pools.close()
    assert process.granted() == 10
    hold.settle(4)
    hold.settle(4)
    assert process.granted() == 4
    late = process.hold(10)
    late.settle(12)  # more than it held
    assert process.granted() == 16


def test_who_finds_the_pool_busy_at_the_end_has_it_given_back_by_the_other(process: Process) -> None:
    pool = process.pool()
    hold = process.hold(10)
    process.pools.close()
    pool.busy = True
    hold.settle(4)
    assert process.granted() == 10
    process.pools._free(pool)
    assert process.granted() == 4


def test_an_estimate_or_a_repeated_call_keeps_its_hold(process: Process) -> None:
    for cost in (4, 14):
        hold = process.hold(10)
        hold.keep = True
        hold.settle(cost)
    process.pools.close()
    assert process.granted() == 24


def test_a_call_that_had_nothing_to_hold_and_cost_something_is_told(process: Process) -> None:
    process.hold(0).settle(7)
    process.pools.close()
    assert process.granted() == 7


# -- forks


def test_in_a_child_the_parents_holds_are_nobodys(process: Process, store: UnreliableStore) -> None:
    hold = process.hold(10)
    before = store.count("write_grant")
    process.meter.after_fork_in_child()
    process.pools.close()
    hold.settle(4)
    assert store.count("write_grant") == before
    assert process.pool().slice.granted == 0
    assert process.pools._changed._lock is process.meter.lock  # type: ignore[attr-defined]


FORKS = """
import os, sys
from bedrock_budget import lifecycle
sys.path.insert(0, "tests")
from test_pools import KEY, Process, granted
from bedrock_budget.stores import SQLiteStore
process = Process(SQLiteStore(sys.argv[1]))
lifecycle.register(process.meter)
hold = process.hold(10)
child = os.fork()
if child == 0:
    hold.settle(4)  # the parent's
    own = process.hold(10)
    own.settle(3)
    process.pools.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert granted(process.store) == 103, granted(process.store)
hold.settle(5)
process.pools.close()
assert granted(process.store) == 8, granted(process.store)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_parent_and_child_have_slices_of_their_own(tmp_path: Path) -> None:
    program = [sys.executable, "-c", FORKS, str(tmp_path / "budget.db")]
    environment = environment_of_tests(traced=False)
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -- AWS Lambda


def test_nothing_is_kept_between_calls(store: UnreliableStore) -> None:
    process = Process(store, keep_nothing=True)
    for cost in (4, 10, 12):
        hold = process.hold(10)
        assert process.granted() == sum(c for c in (4, 10, 12) if c < cost) + 10
        hold.settle(cost)
    assert process.granted() == 26
    assert not process.pools.outstanding


def test_a_call_that_its_cap_refuses_leaves_nothing_set_aside(store: UnreliableStore) -> None:
    process = Process(store, keep_nothing=True)
    assert process.try_hold(10, process.pool(), process.pool(CAP, 5)) is None
    assert (process.granted(), process.granted(CAP)) == (0, 0)


@pytest.mark.parametrize("what", ["take", "return"])
def test_a_write_in_doubt_for_too_long_is_not_repeated(
    store: UnreliableStore, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(store, keep_nothing=True)
    if what == "take":
        store.lose_grant_replies = 1
        with pytest.raises(StoreError):
            process.try_hold(10)
    else:
        hold = process.hold(10)
        store.lose_grant_replies = 1
        hold.settle(4)
    before = process.granted()
    process.clock.advance(600)  # frozen
    process.hold(10).settle(10)
    assert process.granted() == before + 10  # neither taken nor returned twice
    assert "in doubt: $0.000000" in caplog.text


def test_in_lambda_the_items_name_no_holder(
    dynamodb_store: DynamoDBStore, local_bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    config = budget(daily_total_usd_micros=10_000_000)
    with metered(local_bedrock, config=config, store=dynamodb_store, enforcement="strict") as bedrock:
        costs = [
            record_of(bedrock.converse(messages=HELLO, inferenceConfig={"maxTokens": 100}))["cost_pico_usd"]
            for _ in range(3)
        ]
        assert bedrock._keeper.pools._keep_nothing
        assert dynamodb_store.read_granted([KEY, CAP]) == {KEY: sum(costs), CAP: sum(costs)}
        calls = dynamodb_store._leases._calls
        found = calls.call("Scan", LEASES, TableName=calls.physical(LEASES))["Items"]
    names = {"lease_key", "date_key", "granted_usd_micros", "expires_at_epoch"}
    assert [set(item) for item in found] == [names, names]


# -- journals


def replay(root: Path, store: Store) -> int:
    def skipped(path: Path, exc: Exception) -> None:
        raise exc

    now_epoch = ManualClock().now().timestamp()
    done = replay_unlocked(
        root, store, store_url=None, now_epoch=lambda: now_epoch, new_writer_id=new_writer_id, skipped=skipped
    )
    return sum(each.returned_pico_usd for each in done)


def kill(process: Process) -> None:
    assert process.journal is not None
    process.journal.after_fork_in_child()


def test_a_replay_returns_what_was_neither_spent_nor_held(store: UnreliableStore, tmp_path: Path) -> None:
    process = Process(store, root=tmp_path / "journal")
    process.hold(10).settle(4)
    process.hold(20)
    kill(process)
    assert replay(tmp_path / "journal", store) == 76
    assert granted(store) == 24


def test_what_a_failed_disk_did_not_see_is_not_returned(store: UnreliableStore, tmp_path: Path) -> None:
    process = Process(store, root=tmp_path / "journal")
    process.hold(10).settle(4)
    assert process.journal is not None
    process.journal._failed(OSError("the disk is full"))
    before = store.count("write_grant")
    process.hold(60)
    assert store.count("write_grant") == before + 1  # what the journal says no longer holds
    process.hold(30)
    assert store.count("write_grant") == before + 1
    kill(process)
    assert replay(tmp_path / "journal", store) == 0
    assert granted(store) == 100


def test_a_hold_that_the_disk_failed_to_take_is_taken_again(
    store: UnreliableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(store, root=tmp_path / "journal")
    process.hold(10).settle(4)
    journal = process.journal
    assert journal is not None

    def held(*_: object) -> None:
        if journal._file is not None:
            journal._failed(OSError("the disk is full"))

    monkeypatch.setattr(journal, "held", held)
    before = store.count("write_grant")
    process.hold(60)
    assert (store.count("write_grant"), process.pool().slice.held) == (before + 1, 60)
    kill(process)
    assert replay(tmp_path / "journal", store) == 0


def test_a_refused_take_does_not_make_an_old_journal_void(store: UnreliableStore, tmp_path: Path) -> None:
    process = Process(store, root=tmp_path / "journal")
    process.hold(10).settle(4)
    assert process.journal is not None
    process.journal._failed(OSError("the disk is full"))
    pool = process.pool()
    pool.busy = True
    grant = pool.slice.take(50_000)
    process.pools._write(pool, grant)  # refused: the store has no number of it
    assert not process.pools._is_covered(pool)


def test_a_new_segment_tells_a_return_under_way_once(store: UnreliableStore, tmp_path: Path) -> None:
    process = Process(store, root=tmp_path / "journal")
    process.hold(10).settle(4)
    store.lose_grant_replies = 1
    process.pools.give_back([process.pool()])
    assert process.journal is not None
    with process.meter.lock:
        process.journal.begin([], process.meter.writer_id, 0)
    kill(process)
    replay(tmp_path / "journal", store)
    assert granted(store) == 4


def test_the_journal_goes_when_the_last_call_has_ended_after_the_close(store: UnreliableStore, tmp_path: Path) -> None:
    process = Process(store, root=tmp_path / "journal")
    hold = process.hold(10)
    process.pools.close()
    process.meter.close(0)
    assert len(list((tmp_path / "journal").iterdir())) == 1
    hold.settle(4)
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_replay_goes_on_under_the_id_that_took_over(store: UnreliableStore, tmp_path: Path) -> None:
    process = Process(store, root=tmp_path / "journal")
    process.hold(60)
    store.fails = lambda name, subject: SequenceConflict("taken") if name == "write_grant" else None
    with pytest.raises(SequenceConflict):
        process.try_hold(60)
    taken = process.store.inner  # type: ignore[attr-defined]
    store.fails = lambda name, subject: None
    process.hold(30)
    taken.write_grant(next(grant for name, grant in store.calls if name == "write_grant")._replace(sequence=9))
    kill(process)
    assert replay(tmp_path / "journal", store) == 10

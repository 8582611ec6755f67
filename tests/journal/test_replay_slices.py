"""Replays under strict enforcement: a process may be killed between any two records, and so may its replay."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles import UnreliableStore

from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.hold import Hold
from bedrock_budget.journal import files
from bedrock_budget.journal.journal import Journal
from bedrock_budget.journal.replay import replay_unlocked
from bedrock_budget.meter import Meter
from bedrock_budget.pool import Claim, Pool
from bedrock_budget.pools import Pools
from bedrock_budget.stores import MemoryStore
from bedrock_budget.stores.contract import StoreSetupError
from bedrock_budget.stores.memory import _Pool
from bedrock_budget.testing import ManualClock
from bedrock_budget.writers import new_writer_id

from .conftest import die

KEY = UsageKey("ORG#acme#APP#chat", "premium", "20260115")
NOW = ManualClock().now().timestamp()


class Killed(BaseException):
    """The replay is killed here."""


class Life:
    """A process whose journal and store are kept as they were before and after every record."""

    def __init__(self, root: Path, store: MemoryStore) -> None:
        self.root = root
        self.store = store
        self.meter = Meter(store, ManualClock(), journal=Journal(root, store.url))
        self.meter._take_over = None
        self.journal = self.meter._journal
        assert self.journal is not None
        self.pools = Pools(store, self.meter, ManualClock(), journal=self.journal)
        with self.meter.lock:
            self.journal.tend([], self.meter.writer_id, 0)
        self.pool: Pool = self.pools.pool(KEY, int(NOW) + 86_400, (self.meter.account(KEY, 1),))
        self.left: tuple[int, int] = (0, 0)  # what may stay granted: before and after what is being done
        self.moments: list[tuple[bytes, int | None, dict[str, int], tuple[int, int]]] = []
        append = self.journal.append

        def kept(line: bytes) -> None:
            self.keep()
            append(line)
            self.keep()

        self.journal.append = kept  # type: ignore[method-assign]

    def keep(self) -> None:
        (segment,) = self.root.glob("*/*.log")
        pool = self.store._pools.get(KEY)
        granted, sequences = (pool.granted_pico_usd, dict(pool.sequences)) if pool else (None, {})
        self.moments.append((segment.read_bytes(), granted, sequences, self.left))

    def hold(self, worst_case: int) -> Hold:
        self.left = (self.left[1], self.left[1] + worst_case)
        hold = self.pools.hold((Claim("premium", self.pool, 40_000),), worst_case)
        assert isinstance(hold, Hold)
        return hold

    def settle(self, hold: Hold, cost: int) -> None:
        self.left = (self.left[1], self.left[1] - hold.worst_case + cost)
        hold.settle(cost)


def replay(root: Path, store: MemoryStore) -> int:
    def skipped(path: Path, exc: Exception) -> None:
        raise exc

    done = replay_unlocked(
        root, store, store_url=None, now_epoch=lambda: NOW, new_writer_id=new_writer_id, skipped=skipped
    )
    return sum(each.returned_pico_usd for each in done)


@pytest.fixture
def life(root: Path) -> Life:
    life = Life(root, MemoryStore())
    first, second = life.hold(10), life.hold(20)
    life.settle(first, 4)
    life.hold(90)
    life.settle(second, 25)  # more than it held
    life.left = (life.left[1], life.left[1])
    life.pools.give_back([life.pool])
    life.settle(life.hold(30), 10)
    die(life.meter)
    return life


def as_it_was(moment: tuple[bytes, int | None, dict[str, int], tuple[int, int]], root: Path) -> UnreliableStore:
    """Journal and store at a moment of a process that ended then."""
    journal, granted, sequences, _ = moment
    shutil.rmtree(root)
    folder = files.make_folder(root, "1-wexampleOne")
    folder.segment(1).write_bytes(journal)
    folder.release()
    store = UnreliableStore()
    if granted is not None:
        pools = store.inner._pools
        pools[KEY] = _Pool(granted, sequences)
    return store


def granted(store: UnreliableStore) -> int:
    return store.inner.read_granted([KEY]).get(KEY, 0)


def test_wherever_it_was_killed_what_was_neither_spent_nor_held_comes_back(life: Life, root: Path) -> None:
    assert len(life.moments) > 20
    for moment in life.moments:
        store = as_it_was(moment, root)
        replay(root, store)
        assert granted(store) in moment[3]
        assert list(root.iterdir()) == []


@pytest.mark.parametrize("applied", [True, False])
def test_a_replay_that_is_killed_and_repeated_returns_once(life: Life, root: Path, applied: bool) -> None:
    for moment in life.moments:
        store = as_it_was(moment, root)
        write = store.inner.write_grant

        def once_only(*args: object, write: Callable[..., object] = write, **keywords: object) -> object:
            if applied:
                write(*args, **keywords)
            raise Killed

        for _ in range(2):
            store.inner.write_grant = once_only  # type: ignore[method-assign, assignment]
            try:
                replay(root, store)
            except Killed:
                assert len(files.folders_in(root)) == 1
        store.inner.write_grant = write  # type: ignore[method-assign]
        replay(root, store)
        assert granted(store) in moment[3]


def test_a_store_without_pools_leaves_them_and_the_journal_goes(life: Life, root: Path) -> None:
    store = as_it_was(life.moments[-1], root)
    store.fails = lambda name, subject: StoreSetupError("none") if name == "write_grant" else None
    assert replay(root, store) == 0
    assert list(root.iterdir()) == []


def test_a_store_that_is_away_leaves_the_journal(life: Life, root: Path) -> None:
    store = as_it_was(life.moments[-1], root)
    store.go_away()
    with pytest.raises(StoreError):
        replay(root, store)
    assert len(files.folders_in(root)) == 1


def test_a_pool_that_is_gone_takes_nothing_back(life: Life, root: Path) -> None:
    store = as_it_was(life.moments[-1], root)
    del store.inner._pools[KEY]
    assert replay(root, store) == 0
    assert granted(store) == 0


def test_a_pool_of_long_ago_is_left_alone(life: Life, root: Path) -> None:
    store = as_it_was(life.moments[-1], root)
    late = NOW + 10 * 86_400
    replay_unlocked(
        root,
        store,
        store_url=None,
        now_epoch=lambda: late,
        new_writer_id=new_writer_id,
        skipped=lambda path, exc: None,
    )
    assert store.count("write_grant") == 0

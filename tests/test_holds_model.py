"""Strict enforcement against a model of it: whatever happens to processes, no quota is exceeded and nothing is lost.

Real `Pools`, meters, journals and replays of several processes work on one real store. They die anywhere (also
between a store's change and its answer), answers are lost, disks fail, quotas change and days end. The model knows no
more than a ledger would: what each process was granted, what its calls have cost, and what it held when it died.

How many steps that were: ``python -m pytest tests/test_holds_model.py -s``.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import pytest
from doubles import AWAY
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.holds import Grant, Granted
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.hold import Hold
from bedrock_budget.journal import files
from bedrock_budget.journal.journal import Journal
from bedrock_budget.journal.replay import replay_unlocked
from bedrock_budget.meter import Meter
from bedrock_budget.pool import Claim
from bedrock_budget.pools import Pools
from bedrock_budget.stores import MemoryStore, SQLiteStore, Store
from bedrock_budget.testing import ManualClock
from bedrock_budget.writers import new_writer_id

Fault = Literal["none", "fails", "loses the answer", "dies before", "dies after"]
FAULTS = st.sampled_from(["none"] * 6 + ["fails", "loses the answer", "dies before", "dies after"])
LABELS = ("premium", "*")
#: The pools of a call: with a quota and a cap, with one of them.
KINDS = st.sampled_from([("premium",), ("premium", "*"), ("*",)])
QUOTAS = st.sampled_from([0, 90, 3_000, 24_000])  # a slice of the last: 60
COSTS = st.sampled_from(["nothing", "half", "all", "more"])
WORST_CASES = st.integers(0, 40)
SPENT_BEFORE = 17
DAY_SECS = 86_400
MOST_PROCESSES = 4
START = ManualClock().now().timestamp()


class Died(BaseException):
    """The end of a process, in the middle of what it did."""


class FullDisk:
    """A file that takes no more."""

    def __init__(self, file: IO[bytes]) -> None:
        self.truncate, self.close, self.fileno = file.truncate, file.close, file.fileno

    def write(self, data: bytes) -> int:
        raise OSError("no space left on device")


class Process:
    """A process at work, or what is left of it."""

    def __init__(self, model: "Model", skew_secs: float, *, journaled: bool, keep_nothing: bool) -> None:
        self.model = model
        now = datetime.fromtimestamp(START + model.now_secs + skew_secs, UTC)
        self.clock = ManualClock(now, monotonic=skew_secs)
        self.journal = Journal(model.root, "memory://") if journaled else None
        self.store = Connection(model, self)
        self.meter = Meter(self.store, self.clock, journal=self.journal)
        self.meter._start_thread = lambda: None  # type: ignore[method-assign]
        self.meter._take_over = None  # replays are the model's
        self.pools = Pools(self.store, self.meter, self.clock, journal=self.journal, keep_nothing=keep_nothing)
        self.meter.settled_all = lambda: not self.pools.outstanding
        self.meter.begin()
        self.keep_nothing = keep_nothing
        self.dead = self.closed = False
        self.exact = True  # what is granted to it can be told exactly once all is over
        self.calm = True  # no write has failed yet
        self.quotas = dict(model.quotas)
        self.calls: list[tuple[Hold, tuple[UsageKey, ...]]] = []
        self.granted: Counter[UsageKey] = Counter()
        self.charged: Counter[UsageKey] = Counter()
        self.excess: Counter[UsageKey] = Counter()  # of this, what cost more than its hold

    def claim(self, key: UsageKey) -> Claim:
        account = self.meter.account(key, 1)
        day = int(key.day)
        pool = self.pools.pool(key, int(START) + (day + 3) * DAY_SECS, (account,))
        return Claim(key.label, pool, self.quotas[key.label])

    def held(self) -> Counter[UsageKey]:
        found: Counter[UsageKey] = Counter()
        for hold, keys in self.calls:
            for key in keys:
                found[key] += hold.worst_case
        return found

    def die(self) -> None:
        """As the kernel does it: nothing is written any more, files are closed and locks given back."""
        self.dead = True
        self.exact = self.exact and self.journal is not None and not self.closed
        if self.journal is not None:
            self.journal.after_fork_in_child()


class Connection(MemoryStore):  # not of `Store`, among whose kinds it does not count
    """The store as a process sees it. ``fault``: what happens at the next grant."""

    def __init__(self, model: "Model", process: "Process | None") -> None:
        super().__init__()
        self.model = model
        self.process = process
        self.fault: Fault = "none"

    def read_shards(self, keys: Any, *, writer_id: str | None = None) -> Any:
        return self.model.store.read_shards(keys, writer_id=writer_id)

    def write_grant(self, grant: Grant, *, once: bool = False) -> Granted:
        process = self.process
        if process is not None:
            self.model.owners[grant.holder_id] = process
            if process.dead:
                raise Died
        fault, self.fault = self.fault, "none"
        if fault != "none" and process is not None:
            process.calm = False
        if fault == "dies before":
            self._die()
        if fault == "fails":
            raise AWAY
        outcome = self.model.apply(grant, once)
        if fault == "dies after":
            self._die()
        if fault == "loses the answer":
            raise AWAY
        return outcome

    def _die(self) -> None:
        if self.process is not None:
            self.process.die()
        raise Died


class Model(RuleBasedStateMachine):
    """See the module's text."""

    steps: ClassVar[Counter[str]] = Counter()

    def make_store(self) -> Store:
        return MemoryStore()

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="holds-model-"))
        self.root = self.folder / "journal"
        self.store = self.make_store()
        self.now_secs = 0.0
        self.day = 0
        self.quotas = {"premium": 24_000, "*": 24_000}
        self.highest = dict(self.quotas)
        self.processes: list[Process] = []
        self.owners: dict[str, Process] = {}
        self.keys: list[UsageKey] = []
        self.transactions: dict[tuple[str, int], tuple[float, str]] = {}
        self.begin_day()

    def begin_day(self) -> None:
        new = [UsageKey("ORG#acme", label, f"{self.day:08}") for label in LABELS]
        self.keys += new
        for key in new:  # normal enforcement was in force before
            writer = new_writer_id()
            self.store.write_batch(Batch(key, writer, 1, 0, 1, Amounts(SPENT_BEFORE, Usage(1), 1)), now_epoch=START)

    # -- the store

    def apply(self, grant: Grant, once: bool) -> Granted:
        before = self.store.read_granted([grant.key]).get(grant.key)
        # A transaction leaves no number in the item; the store knows it again for ten minutes.
        sent = grant
        if once:
            first, holder = self.transactions.setdefault(
                (grant.holder_id, grant.sequence), (self.now_secs, new_writer_id())
            )
            if self.now_secs - first > 600:
                holder = new_writer_id()
            sent = grant._replace(holder_id=holder, sequence=1)
        outcome = self.store.write_grant(sent, once=once)
        after = self.store.read_granted([grant.key]).get(grant.key)
        assert after is None or after == outcome.granted_pico_usd
        if after is not None:
            change = after - (SPENT_BEFORE if before is None else before)
            assert change in (0, grant.change_pico_usd)
            if change > 0 and grant.quota_pico_usd is not None:
                assert after <= grant.quota_pico_usd
            self.owners[grant.holder_id].granted[grant.key] += change
        return outcome

    # -- processes

    def living(self) -> list[Process]:
        return [process for process in self.processes if not process.dead]

    def pick(self, number: int) -> Process:
        living = self.living()
        return living[number % len(living)]

    def note(self, name: str) -> None:
        Model.steps[name] += 1

    def during(self, process: Process, fault: Fault, work: Any) -> Any:
        """What ``work`` returns; None if it failed or the process died of it."""
        process.store.fault = fault
        try:
            return work()
        except StoreError:
            return None
        except Died:
            return None
        finally:
            process.store.fault = "none"

    @initialize(skew=st.floats(-5, 5), journaled=st.booleans())
    def first(self, skew: float, journaled: bool) -> None:
        self.processes.append(Process(self, skew, journaled=journaled, keep_nothing=False))

    @precondition(lambda self: len(self.living()) < MOST_PROCESSES)
    @rule(skew=st.floats(-5, 5), kind=st.sampled_from(["journal", "journal", "plain", "lambda"]))
    def start(self, skew: float, kind: str) -> None:
        self.note("start")
        lambda_ = kind == "lambda"
        self.processes.append(Process(self, skew, journaled=kind == "journal", keep_nothing=lambda_))

    @precondition(lambda self: self.living())
    @rule(number=st.integers(0, 9), labels=KINDS, worst_case=WORST_CASES, fault=FAULTS, times=st.integers(1, 4))
    def call(self, number: int, labels: tuple[str, ...], worst_case: int, fault: Fault, times: int) -> None:
        process = self.pick(number)
        keys = tuple(UsageKey("ORG#acme", label, f"{self.day:08}") for label in labels)
        for _ in range(times):
            if process.dead:
                return
            self.note("call")
            claims = [process.claim(key) for key in keys]
            found = self.during(process, fault, lambda claims=claims: process.pools.hold(claims, worst_case))
            if isinstance(found, Hold):
                assert not process.dead
                process.calls.append((found, keys))
            elif isinstance(found, Claim):
                assert found in claims
            self.check()

    @precondition(lambda self: self.living())
    @rule(
        number=st.integers(0, 9),
        labels=KINDS,
        calls=st.lists(st.tuples(WORST_CASES, COSTS), min_size=1, max_size=5),
        fault=FAULTS,
    )
    def calls_at_once(self, number: int, labels: tuple[str, ...], calls: list[tuple[int, str]], fault: Fault) -> None:
        process = self.pick(number)
        for worst_case, _ in calls:
            self.call(number=self.living().index(process), labels=labels, worst_case=worst_case, fault="none", times=1)
        for _, cost in calls:
            if process.calls and not process.dead:
                self.note("settle")
                self.settle_one(process, 0, cost, False, fault)

    @precondition(lambda self: any(process.calls for process in self.living()))
    @rule(
        number=st.integers(0, 9),
        which=st.integers(0, 99),
        cost=COSTS,
        keep=st.booleans(),
        fault=FAULTS,
    )
    def settle(self, number: int, which: int, cost: str, keep: bool, fault: Fault) -> None:
        self.note("settle")
        busy = [process for process in self.living() if process.calls]
        process = busy[number % len(busy)]
        self.settle_one(process, which, cost, keep, fault)

    def settle_one(self, process: Process, which: int, cost: str, keep: bool, fault: Fault) -> None:
        hold, keys = process.calls.pop(which % len(process.calls))
        worst_case = hold.worst_case
        amount = {"nothing": 0, "half": worst_case // 2, "all": worst_case, "more": worst_case + 7}[cost]
        if not worst_case:
            amount = 0  # what has no price has neither a worst case nor a cost
        hold.keep = keep
        charge = max(amount, worst_case) if keep else amount
        for key in keys:
            process.charged[key] += charge
            process.excess[key] += max(charge - worst_case, 0)
        self.during(process, fault, lambda: hold.settle(amount))
        hold.settle(amount)  # again is nothing

    @precondition(lambda self: any(process.calls for process in self.living()))
    @rule(number=st.integers(0, 9))
    def crash(self, number: int) -> None:
        self.note("crash")
        self.pick(number).die()

    @precondition(lambda self: self.living())
    @rule(number=st.integers(0, 9), secs=st.sampled_from([0.5, 31.0, 700.0]), fault=FAULTS)
    def pass_time_and_tend(self, number: int, secs: float, fault: Fault) -> None:
        self.note("tend")
        process = self.pick(number)
        self.pass_time(secs)
        self.during(process, fault, process.pools.tend)

    def pass_time(self, secs: float) -> None:
        self.now_secs += secs
        for process in self.living():
            process.clock.advance(secs)
            if secs > 500 and process.keep_nothing and not process.calm:
                process.exact = False  # what was in doubt then stays granted

    @precondition(lambda self: self.living())
    @rule(number=st.integers(0, 9), fault=FAULTS)
    def close(self, number: int, fault: Fault) -> None:
        self.note("close")
        process = self.pick(number)
        self.close_one(process, fault)

    def close_one(self, process: Process, fault: Fault) -> None:
        self.during(process, fault, process.pools.close)
        if not process.dead:
            self.during(process, "none", lambda: process.meter.close(0))
            process.closed = True

    @rule(label=st.sampled_from(LABELS), quota=QUOTAS)
    def change_quota(self, label: str, quota: int) -> None:
        self.note("change quota")
        self.quotas[label] = quota
        self.highest[label] = max(self.highest[label], quota)

    @precondition(lambda self: self.living())
    @rule(number=st.integers(0, 9))
    def look(self, number: int) -> None:
        self.note("look")
        process = self.pick(number)
        process.quotas = dict(self.quotas)

    @precondition(lambda self: self.day < 2)
    @rule(fault=FAULTS)
    def end_day(self, fault: Fault) -> None:
        self.note("end day")
        over = self.keys[-2:]
        self.day += 1
        self.pass_time(DAY_SECS)
        self.begin_day()
        for process in self.living():
            pools = [process.claim(key).pool for key in over]
            self.during(process, fault, lambda pools=pools, process=process: process.pools.forget(pools))

    # -- disks and journals

    @precondition(lambda self: any(process.journal for process in self.living()))
    @rule(number=st.integers(0, 9), what=st.sampled_from(["fails", "works again", "begins a segment"]))
    def disk(self, number: int, what: str) -> None:
        self.note("disk")
        journaled = [process for process in self.living() if process.journal]
        process = journaled[number % len(journaled)]
        journal = process.journal
        assert journal is not None
        if what == "fails":
            if journal._file is not None:
                journal._file = FullDisk(journal._file)  # type: ignore[assignment]
                process.exact = False
        elif not process.closed and (what == "works again" or journal._file is not None):
            with process.meter.lock:
                journal.begin([], process.meter.writer_id, 0)

    @rule(fault=FAULTS)
    def replay(self, fault: Fault) -> None:
        self.note("replay")
        self.replay_all(fault)

    def replay_all(self, fault: Fault) -> None:
        connection = Connection(self, None)
        connection.fault = fault
        with suppress(StoreError, Died):
            replay_unlocked(
                self.root,
                connection,
                store_url="memory://",
                now_epoch=lambda: START + self.now_secs,
                new_writer_id=new_writer_id,
                skipped=self.skipped,
            )

    @staticmethod
    def skipped(path: Path, exc: Exception) -> None:
        raise exc

    # -- what must hold

    @invariant()
    def check(self) -> None:
        found = self.store.read_granted(self.keys)
        for key in self.keys:
            granted = found.get(key)
            if granted is None:
                assert not any(process.granted[key] for process in self.processes)
            else:
                assert granted == SPENT_BEFORE + sum(process.granted[key] for process in self.processes)
                excess = sum(process.excess[key] for process in self.processes)
                assert granted <= max(self.highest[key.label], SPENT_BEFORE) + excess
        for process in self.processes:
            held = process.held()
            for key in self.keys:
                covered = process.granted[key] + process.excess[key]
                assert process.charged[key] + held[key] <= covered, (key, "spent or held what was not granted")
                if process.keep_nothing and process.calm and not process.calls:
                    assert process.granted[key] == process.charged[key]

    def teardown(self) -> None:
        try:
            for process in self.living():
                while process.calls:
                    self.settle_one(process, 0, "half", False, "none")
                self.close_one(process, "none")
            for _ in range(2):
                self.replay_all("none")
            self.check()
            for process in self.processes:
                held = process.held()  # when it died: nobody knows what became of it
                for key in self.keys:
                    if process.exact or (not process.dead and not process.keep_nothing):
                        assert process.granted[key] == process.charged[key] + held[key], (
                            key,
                            vars(process),
                            "set aside for nobody",
                        )
            for path in files.folders_in(self.root) if self.root.exists() else ():
                assert not path.name.startswith(files.IN_DOUBT)
        finally:
            self.store.close()
            for process in self.living():
                process.die()
            shutil.rmtree(self.folder)


class SQLiteModel(Model):
    """The same on a file."""

    def make_store(self) -> Store:
        return SQLiteStore(self.folder / "budget.db")


@pytest.fixture
def steps() -> Iterator[Counter[str]]:
    Model.steps.clear()
    yield Model.steps
    print(f"\n{sum(Model.steps.values())} steps: {dict(Model.steps.most_common())}")


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_no_quota_is_exceeded_and_nothing_is_lost_in_ten_thousand_steps(steps: Counter[str]) -> None:
    some = settings(max_examples=400, stateful_step_count=50, deadline=None, suppress_health_check=SLOW, database=None)
    run_state_machine_as_test(Model, settings=some)
    assert sum(steps.values()) >= 10_000


def test_nor_in_a_file(steps: Counter[str]) -> None:
    some = settings(max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=SLOW, database=None)
    run_state_machine_as_test(SQLiteModel, settings=some)
    assert sum(steps.values()) > 0

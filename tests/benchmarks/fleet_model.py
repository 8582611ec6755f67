"""A fleet at work on one quota, as discrete events in simulated time: what is overshot and what DynamoDB bills.

The rules are the library's own: `core.refresh` (when to look, and at what), `core.account` (effective spend),
`core.selection` (where a call goes, when the sticky state moves), `core.keys` (which shard a writer adds to). Modelled
are only what surrounds them: Poisson arrivals, calls that cost the same and take the same time, a meter that writes
once a second (at most every 0.2 s when a quota is near), a refresher, an aggregator, and a store that answers at once.

The same scenario and seed give the same result. Amounts are pico-USD; a call costs `CALL_COST`.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil, inf
from typing import NamedTuple

from bedrock_budget.core.account import Account
from bedrock_budget.core.budget import Refresh
from bedrock_budget.core.keys import (
    ACTIVE_BUCKETS,
    SLOT_SECS,
    WRITER_ID_LENGTH,
    UsageKey,
    active_key,
    shard_key,
    shard_of,
)
from bedrock_budget.core.refresh import CONTROLS_SECS, Intervals, Schedule, total_is_stale
from bedrock_budget.core.selection import Choice, select, sticky_target
from bedrock_budget.core.usage import Usage
from bedrock_budget.meter import HURRY_SECS, IDLE_SECS
from bedrock_budget.refresher import FORGET_SECS

CALL_COST = 10_000_000_000  # a US cent
CALL_USAGE = Usage(2_000, 500)
SCOPE = "ORG#acme#APP#chat"
DAY = "20260115"
STARTS_AT_EPOCH = 1_768_435_200  # midnight: every hour that begins is one on the clock
TIGHT_PCT = 95
AGGREGATOR_SECS = 60.0

WRITE_UNIT_BYTES = 1024
READ_UNIT_BYTES = 4096
WRITE_UNIT_USD = 0.625e-6
READ_UNIT_USD = 0.125e-6
#: The Config items of app and org, their overrides and stops, and the sticky state: eventually consistent.
CONTROLS_READ_UNITS = 7 * 0.5
TOTAL_READ_UNITS = 0.5


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fleet of ``processes`` that would use up a quota of ``calls`` calls in ``burn_secs``.

    ``skewed``: the first process makes half of the calls. ``sync``: each call writes its own usage before it returns.
    """

    processes: int
    burn_secs: float
    latency_secs: float = 3.0
    calls: int = 20_000
    skewed: bool = False
    aggregator: bool = True
    flush_secs: float = 1.0
    shard_count: int = 8
    refresh: Refresh = "adaptive"
    sync: bool = False
    seed: int = 1


class Units(NamedTuple):
    """DynamoDB capacity units on demand, in us-east-1. The aggregator's are left out: it is the same for all."""

    write: float
    read: float

    @property
    def usd(self) -> float:
        return self.write * WRITE_UNIT_USD + self.read * READ_UNIT_USD


@dataclass(frozen=True, slots=True)
class Result:
    """``in_flight``: calls that had started and not settled when the settled spend of the fleet reached the quota.
    ``at_crossing``: the units by then; ``units``: until every process had moved on and all was written."""

    scenario: Scenario
    started: int
    in_flight: int
    crossed_at_secs: float
    ended_at_secs: float
    writes: int
    looks: int
    at_crossing: Units
    units: Units

    @property
    def overshoot_pct(self) -> float:
        """Spend beyond the quota and beyond what was in flight when it was crossed, in per cent of the quota."""
        return 100 * (self.started - self.scenario.calls - self.in_flight) / self.scenario.calls

    @property
    def in_flight_pct(self) -> float:
        return 100 * self.in_flight / self.scenario.calls


class Label:
    """A label of the ordering as one process sees it."""

    __slots__ = ("account", "label", "position", "quota_pico_usd")

    def __init__(self, label: str, position: int, quota_pico_usd: int | None, shard_count: int) -> None:
        self.label = label
        self.position = position
        self.quota_pico_usd = quota_pico_usd
        self.account = Account(UsageKey(SCOPE, label, DAY), shard_count)


@dataclass(slots=True)
class Shard:
    """An item of ``UsageAggSharded``: its cost, and the sequence number of each writer."""

    cost: int = 0
    size: int = 0
    slot: int = -1  # of the index
    writers: dict[str, int] = field(default_factory=dict)


class Store:
    """The shards and the daily total of the label, the sticky state, and what it all costs."""

    def __init__(self, shard_count: int) -> None:
        self.shards = [Shard(size=item_bytes(number)) for number in range(shard_count)]
        self.cost = 0
        self.total: tuple[int, int] | None = None  # and the epoch of its pass
        self.sticky = 0
        self.write_units = 0.0
        self.read_units = 0.0
        self.writes = 0

    def add(self, shard: Shard, writer_id: str, sequence: int, cost: int, now: float) -> None:
        before = shard.size
        previous = shard.writers.get(writer_id)
        assert previous is None or previous < sequence
        if previous is None:
            shard.size += WRITER_ID_LENGTH
        shard.size += number_bytes(sequence) - (0 if previous is None else number_bytes(previous))
        shard.writers[writer_id] = sequence
        shard.cost += cost
        self.cost += cost
        self.writes += 1
        self.write_units += ceil(max(before, shard.size) / WRITE_UNIT_BYTES)
        slot = int(now // SLOT_SECS)
        if slot != shard.slot:  # the index: put; and delete the old entry, if there is one
            self.write_units += 1 if shard.slot < 0 else 2
            shard.slot = slot

    def sum_shards(self) -> int:
        self.read_units += sum(ceil(shard.size / READ_UNIT_BYTES) for shard in self.shards)
        return self.cost

    @property
    def units(self) -> Units:
        return Units(self.write_units, self.read_units)


def number_bytes(value: int) -> int:
    """The size of a DynamoDB number: a byte for two digits, and one."""
    return (len(str(value)) + 1) // 2 + 1


def item_bytes(shard: int) -> int:
    """The size of a shard item before any writer's entry: names and values, with counters of a day in full swing."""
    texts = {
        "shard_key": shard_key(SCOPE, "premium", shard),
        "date_key": f"DAY#{DAY}",
        "active_hour": active_key(f"{DAY}12", shard % ACTIVE_BUCKETS),
    }
    numbers = {"cost_usd_micros": 10**9, "requests": 10**4, "updated_at_epoch": STARTS_AT_EPOCH, "shard_count": 8}
    numbers |= dict.fromkeys(Usage._fields, 10**7)
    return sum(len(name) + len(value) for name, value in texts.items()) + sum(
        len(name) + number_bytes(value) for name, value in numbers.items()
    )


class Process:
    """One process: its labels, its schedule, and what it has on the way."""

    __slots__ = (
        "flush_at",
        "flushed_at",
        "gap_secs",
        "known",
        "labels",
        "look_ticket",
        "looked_at",
        "moved",
        "order",
        "phase",
        "schedule",
        "sequence",
        "shard",
        "sticky",
        "used_at",
        "writer_id",
    )

    def __init__(self, number: int, gap_secs: float, phase: float, shard_count: int) -> None:
        self.writer_id = f"w{number:010d}"
        self.shard = shard_of(self.writer_id, shard_count)
        self.gap_secs = gap_secs  # from one call to the next, on average
        self.phase = phase  # of its meter's seconds
        self.known = False  # the scope is looked at
        self.moved = False  # its calls go to the next label
        self.labels: tuple[Label, ...] = ()
        self.schedule = Schedule()
        self.sticky = 0
        self.used_at = 0.0
        self.looked_at = 0.0  # the last look, at the spend or at controls alone
        self.look_ticket = 0
        self.flush_at = inf
        self.flushed_at = -inf
        self.sequence = 0
        self.order = 0


class Fleet:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.quota = scenario.calls * CALL_COST
        self.intervals = Intervals(scenario.refresh, 300.0, 60.0, AGGREGATOR_SECS, TIGHT_PCT)
        self.store = Store(scenario.shard_count)
        self.random = random.Random(scenario.seed)
        self.now = 0.0
        self.settled = 0
        self.started = 0
        self.crossed_at = inf
        self.in_flight_at_crossing = 0
        self.at_crossing: Units | None = None
        self.looks = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = 0
        self.processes = list(self._new_processes())
        self.still_here = len(self.processes)

    def _new_processes(self) -> Iterator[Process]:
        count = self.scenario.processes
        rate = self.scenario.calls / self.scenario.burn_secs
        for number in range(count):
            share = 1 / count
            if self.scenario.skewed and count > 1:
                share = 0.5 if number == 0 else 0.5 / (count - 1)
            phase = self.random.random() * self.scenario.flush_secs
            yield Process(number, 1 / (rate * share), phase, self.scenario.shard_count)

    def run(self) -> Result:
        for process in self.processes:
            self._at(self.random.expovariate(1 / process.gap_secs), self._call, process)
        if self.scenario.aggregator:
            self._at(self.random.random() * AGGREGATOR_SECS, self._pass)
        while self._events:
            self.now, _, do, args = heapq.heappop(self._events)
            do(*args)
        assert sum(shard.cost for shard in self.store.shards) == self.store.cost == self.started * CALL_COST
        return Result(
            self.scenario,
            self.started,
            self.in_flight_at_crossing,
            self.crossed_at,
            self.now,
            self.store.writes,
            self.looks,
            self.at_crossing or self.store.units,
            self.store.units,
        )

    def _at(self, at: float, do: Callable[..., None], *args: object) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, do, args))

    # -- calls

    def _call(self, process: Process) -> None:
        self._catch_up(process)
        process.used_at = self.now
        if not process.known:
            self._enter(process)
        if process.moved:
            return
        choice = select(process.labels, sticky=process.sticky)
        assert isinstance(choice, Choice)
        if choice.place > 0:
            self._move_on(process)
            return
        self.started += 1
        self._at(self.now + self.scenario.latency_secs, self._settle, process, process.labels[0])
        self._at(self.now + self.random.expovariate(1 / process.gap_secs), self._call, process)

    def _settle(self, process: Process, label: Label) -> None:
        account = label.account
        account.add(CALL_USAGE, CALL_COST)
        self.settled += CALL_COST
        if self.settled >= self.quota and self.crossed_at == inf:
            self.crossed_at = self.now
            self.in_flight_at_crossing = self.started - self.settled // CALL_COST
            for each in self.processes:
                self._catch_up(each)  # so that looks by now are counted
            self.at_crossing = self.store.units
        if self.scenario.sync:
            self._write(process, label)
            return
        secs = self.scenario.flush_secs
        if self.now - process.flushed_at > IDLE_SECS:  # its thread has ended; a new one begins its seconds now
            process.phase = self.now + max(secs - HURRY_SECS, 0.0)
        at = process.phase + max(ceil((self.now - process.phase) / secs), 0) * secs
        if account.spend * 100 >= self.quota * TIGHT_PCT or account.unsent_cost * 100 >= self.quota:
            at = min(at, max(self.now, process.flushed_at + HURRY_SECS))  # a quota is near
        if at < process.flush_at:
            process.flush_at = at
            self._at(at, self._flush, process, label)

    # -- the meter

    def _flush(self, process: Process, label: Label) -> None:
        if label.account.dirty:
            self._write(process, label)
        process.flush_at = inf
        process.flushed_at = self.now

    def _write(self, process: Process, label: Label) -> None:
        account = label.account
        process.sequence += 1
        batch = account.seal(process.writer_id, process.sequence)
        self.store.add(
            self.store.shards[batch.shard], batch.writer_id, batch.sequence, batch.amounts.cost_pico_usd, self.now
        )
        process.order += 1
        account.acknowledge(STARTS_AT_EPOCH + self.now, process.order)
        if process.known and not process.moved and process.schedule.is_surprised(self.intervals, process.labels):
            process.schedule = process.schedule.brought_forward()
            self._look(process)

    # -- looks

    def _enter(self, process: Process) -> None:
        """The first look, for which the call waits."""
        if not (process.labels and process.labels[0].account.dirty):  # else it is kept until it is written
            count = self.scenario.shard_count
            process.labels = (Label("premium", 0, self.quota, count), Label("standard", 1, None, count))
        process.schedule = Schedule()
        process.known = True
        self._look(process)

    def _look(self, process: Process) -> None:
        """A look at the spend, as `looks.Observer` makes it."""
        self._look_at_controls(process)
        if process.moved:
            return
        self.looks += 1
        labels = process.labels
        schedule = process.schedule
        read: set[str] = set()
        while True:
            shards, totals = schedule.to_read(self.intervals, labels, process.sticky)
            unread = [label for label in (*shards, *totals) if label.label not in read]
            if not unread:
                break
            for label in unread:
                read.add(label.label)
                if label in shards or not self._read_total(label):
                    self._sum_shards(process, label)
        first = labels[0]
        sticky_is_due = False
        if first.account.spend >= self.quota:
            for label in labels:
                self._sum_shards(process, label)
            settled = [self.store.cost if label is first else 0 for label in labels]
            target = sticky_target(labels, settled, process.sticky)
            if target is not None:
                self.store.write_units += 1
                self._move_sticky(target)
                self._move_on(process)
                return
            sticky_is_due = True
        process.schedule = schedule.after_look(
            self.intervals, labels, read, begun_secs=self.now, sticky=process.sticky, sticky_is_due=sticky_is_due
        )
        process.look_ticket += 1
        self._at(process.schedule.due_at_secs, self._look_when_due, process, process.look_ticket)

    def _look_when_due(self, process: Process, ticket: int) -> None:
        if ticket == process.look_ticket and process.known and not process.moved:
            self._catch_up(process)
            if process.known:
                self._look(process)
                self._forget_if_unused(process, self.now)

    def _look_at_controls(self, process: Process) -> None:
        self.store.read_units += CONTROLS_READ_UNITS
        process.looked_at = self.now
        if self.store.sticky > process.sticky:
            process.sticky = self.store.sticky
            self._move_on(process)

    def _catch_up(self, process: Process) -> None:
        """Count the looks at controls alone since the last time. Until the sticky state moves they change nothing."""
        while process.known and not process.moved and process.looked_at + CONTROLS_SECS < self.now:
            process.looked_at += CONTROLS_SECS
            self.store.read_units += CONTROLS_READ_UNITS
            self._forget_if_unused(process, process.looked_at)

    def _forget_if_unused(self, process: Process, now: float) -> None:
        if now - process.used_at > FORGET_SECS:
            process.known = False

    def _sum_shards(self, process: Process, label: Label) -> None:
        process.order += 1
        if label.position == 0:
            label.account.saw_shards(self.store.sum_shards(), process.sequence, process.order)
        else:  # nothing there, and each shard asked for is a read unit all the same
            self.store.read_units += self.scenario.shard_count
            label.account.saw_shards(0, 0, process.order)

    def _read_total(self, label: Label) -> bool:
        """Whether the daily total will do."""
        self.store.read_units += TOTAL_READ_UNITS
        if label.quota_pico_usd is None:
            return True
        total = self.store.total
        now_epoch = STARTS_AT_EPOCH + self.now
        if total is None or total_is_stale(self.intervals, now_epoch=now_epoch, updated_at_epoch=total[1]):
            return False
        label.account.saw_total(*total)
        return True

    # -- moving on

    def _move_sticky(self, target: int) -> None:
        if target <= self.store.sticky:
            return
        for each in self.processes:
            self._catch_up(each)
        self.store.sticky = target
        for each in self.processes:
            if each.known and not each.moved:
                self._at(each.looked_at + CONTROLS_SECS, self._see_sticky, each)

    def _see_sticky(self, process: Process) -> None:
        if process.known and not process.moved:
            self._look_at_controls(process)

    def _move_on(self, process: Process) -> None:
        if not process.moved:
            process.moved = True
            self.still_here -= 1

    # -- the aggregator

    def _pass(self) -> None:
        self.store.total = (self.store.cost, int(STARTS_AT_EPOCH + self.now))
        if self.still_here:
            self._at(self.now + AGGREGATOR_SECS, self._pass)


def simulate(scenario: Scenario) -> Result:
    """Run a scenario to its end."""
    return Fleet(scenario).run()


def predict(*, processes: int, burn_secs: float, latency_secs: float, calls: int, seed: int = 1) -> Result:
    """What the library's defaults make of a fleet that would use up a quota of ``calls`` calls in ``burn_secs``."""
    return simulate(Scenario(processes, burn_secs, latency_secs, calls, seed=seed))

"""What a run has left behind, and which promises it breaks. Costs are pico-USD, and every comparison is exact."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from faults import traffic

from bedrock_budget.core.account import ZERO, Amounts
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.meter import FLUSH_SECS, HURRY_SECS
from bedrock_budget.testing import LedgerEntry

#: For a thread that is ready to run and waits for a processor.
SCHEDULING_SECS = 0.5
#: A killed worker without a journal may lose what returned within this much *quiet* time; see `quiet_secs`.
MOST_QUIET_SECS = FLUSH_SECS + HURRY_SECS + SCHEDULING_SECS


class Returned(NamedTuple):
    """A worker's note of a call that returned."""

    at: float
    request_id: str
    key: UsageKey


class Write(NamedTuple):
    """A worker's note of a batch. ``what``: ``begin`` of an attempt to write it, ``failed``, or ``end``: the store
    has acknowledged it."""

    at: float
    what: str
    key: UsageKey
    cost_pico_usd: int = 0
    requests: int = 0


class Generation(NamedTuple):
    """One worker process. ``killed_at`` None: it ended cleanly."""

    number: int
    killed_at: float | None
    returned: Sequence[Returned] = ()
    writes: Sequence[Write] = ()


class Journaled(Protocol):
    """A call's usage on a journal."""

    @property
    def key(self) -> UsageKey: ...
    @property
    def cost_pico_usd(self) -> int: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def request_id(self) -> str | None: ...


@dataclass
class Evidence:
    """All that is known after a run. ``shards``: the sums of all keys, read past the proxy."""

    day: str
    threads: int
    entries: Sequence[LedgerEntry]
    shards: Mapping[UsageKey, Amounts]
    generations: Sequence[Generation]
    journaled: Sequence[Journaled] = ()

    def __post_init__(self) -> None:
        prices = traffic.Prices()
        self.billed = {entry.request_id: entry for entry in self.entries if entry.billed}
        self.cost = {name: prices.cost(entry) for name, entry in self.billed.items()}

    def amounts(self, request_ids: Iterable[str]) -> dict[UsageKey, Amounts]:
        """What the ledger says that these calls cost, by key."""
        sums: dict[UsageKey, Amounts] = {}
        for name in request_ids:
            entry = self.billed[name]
            key = traffic.key_of(entry, self.day)
            sums[key] = sums.get(key, ZERO).plus(Amounts(self.cost[name], entry.usage, 1))
        return sums


@dataclass
class Report:
    """``broken``: promises, one a line; none is the only good outcome."""

    broken: list[str] = field(default_factory=list[str])
    figures: dict[str, Any] = field(default_factory=dict[str, Any])


def _common(evidence: Evidence) -> Report:
    generations = evidence.generations
    report = Report()
    report.figures.update(
        {
            "generations": len(generations),
            "kills": sum(each.killed_at is not None for each in generations),
            "killed before a call returned": sum(
                each.killed_at is not None and not each.returned for each in generations
            ),
            "calls billed": len(evidence.billed),
            "calls returned": sum(len(each.returned) for each in generations),
            "calls in the shards": sum(found.requests for found in evidence.shards.values()),
            "billed pico-USD": sum(evidence.cost.values()),
            "shards pico-USD": sum(found.cost_pico_usd for found in evidence.shards.values()),
        }
    )
    for each in generations:
        for call in each.returned:
            entry = evidence.billed.get(call.request_id)
            if entry is None:
                report.broken.append(f"{call.request_id} returned and is not in the ledger")
            elif traffic.key_of(entry, evidence.day) != call.key:
                report.broken.append(f"{call.request_id} was recorded under {call.key}, not {entry}")
    return report


def with_journals(evidence: Evidence) -> Report:
    """Shards = the calls on the journals, exactly; every call that returned is on one; the billed rest was in flight
    at a kill, at most one a thread."""
    report = _common(evidence)
    broken = report.broken
    named = [each for each in evidence.journaled if each.request_id is not None]
    nameless = [each for each in evidence.journaled if each.request_id is None]
    on_journals = {str(each.request_id) for each in named}
    for name, times in Counter(each.request_id for each in named).items():
        if times > 1:
            broken.append(f"{name} is on the journals {times} times")
    for each in named:
        entry = evidence.billed.get(str(each.request_id))
        if entry is None:
            broken.append(f"{each.request_id} is on a journal and not in the ledger")
        elif (traffic.key_of(entry, evidence.day), entry.usage) != (each.key, each.usage):
            broken.append(f"{each} is on a journal, and {entry} in the ledger")
        elif each.cost_pico_usd != evidence.cost[entry.request_id]:
            broken.append(f"{each} is on a journal, and costs {evidence.cost[entry.request_id]} by the ledger")

    expected = evidence.amounts(on_journals & evidence.billed.keys())
    for each in nameless:  # estimates of calls whose answer was lost
        expected[each.key] = expected.get(each.key, ZERO).plus(Amounts(each.cost_pico_usd, each.usage, 1))
    for key in sorted(expected.keys() | evidence.shards.keys()):
        found, right = evidence.shards.get(key, ZERO), expected.get(key, ZERO)
        if found != right:
            off = found.cost_pico_usd - right.cost_pico_usd
            broken.append(f"{key}: the shards say {found}, the calls on the journals {right} ({off:+d} pico-USD)")

    for generation in evidence.generations:
        for call in generation.returned:
            if call.request_id not in on_journals:
                broken.append(f"{call.request_id} returned in generation {generation.number} and is on no journal")
    missing = sorted(evidence.billed.keys() - on_journals, key=lambda name: evidence.billed[name].started_at)
    in_flight = Counter(traffic.generation_of(evidence.billed[name]) for name in missing)
    most_in_flight = max(in_flight.values(), default=0)
    for generation in evidence.generations:
        most = 0 if generation.killed_at is None else evidence.threads
        count = in_flight.pop(generation.number, 0)
        if count > most:
            ended = "ended cleanly" if generation.killed_at is None else "was killed"
            broken.append(f"{count} calls of generation {generation.number}, which {ended}, are on no journal")
    if in_flight:  # what no generation has claimed
        broken.append(f"calls of generations that never were are billed: {in_flight}")
    report.figures["calls on the journals"] = len(on_journals)
    report.figures["estimates on the journals"] = len(nameless)
    report.figures["calls in flight at a kill"] = len(missing)
    report.figures["most of one generation"] = most_in_flight
    report.figures["their request ids"] = missing
    return report


def without_journals(evidence: Evidence) -> Report:
    """The shards are the batches that the store acknowledged, and of those that were under way at a kill some: so
    nothing is counted twice, and nothing acknowledged is lost. A worker that ends cleanly loses nothing; a killed one
    only what returned within `MOST_QUIET_SECS` of quiet time before."""
    report = _common(evidence)
    broken = report.broken
    ledger = evidence.amounts(evidence.billed)
    returned: Counter[UsageKey] = Counter()
    may_be_lost: Counter[UsageKey] = Counter()
    acknowledged: dict[UsageKey, list[Write]] = {}
    pending: dict[UsageKey, list[Write]] = {}
    oldest = 0.0
    for generation in evidence.generations:
        written = _acknowledged(generation)
        for write in written:
            acknowledged.setdefault(write.key, []).append(write)
        for write in _pending(generation):
            pending.setdefault(write.key, []).append(write)
        costs = _costs(written)
        covered: Counter[UsageKey] = Counter()
        for call in sorted(generation.returned):
            cost = evidence.cost.get(call.request_id, 0)
            returned[call.key] += cost
            covered[call.key] += cost
            if generation.killed_at is None or covered[call.key] <= costs[call.key]:
                continue
            quiet = quiet_secs(generation, call.at)
            oldest = max(oldest, quiet)
            if quiet <= MOST_QUIET_SECS:
                may_be_lost[call.key] += cost
            else:
                broken.append(
                    f"{call.request_id} of generation {generation.number} had returned {quiet:.2f} s of quiet time "
                    "before the kill, and was not written"
                )
        if generation.killed_at is None:
            _check_clean_end(evidence, generation, costs, broken)
    for key in sorted(ledger.keys() | evidence.shards.keys()):
        found, right = evidence.shards.get(key, ZERO), ledger.get(key, ZERO)
        if found.cost_pico_usd > right.cost_pico_usd or found.requests > right.requests:
            broken.append(f"{key}: the shards say {found}, more than the ledger's {right}")
        batches = acknowledged.get(key, [])
        cost = found.cost_pico_usd - sum(write.cost_pico_usd for write in batches)
        requests = found.requests - sum(write.requests for write in batches)
        if not is_sum_of_some((cost, requests), pending.get(key, [])):
            broken.append(
                f"{key}: the shards say {cost:+d} pico-USD and {requests:+d} calls more than was acknowledged, which "
                f"is no sum of the batches under way at a kill, {pending.get(key, [])}"
            )
        lost = returned[key] - found.cost_pico_usd
        if lost > may_be_lost[key]:
            broken.append(f"{key}: {lost} lost, of which {may_be_lost[key]} could be unsent at a kill")
    report.figures["batches acknowledged"] = sum(map(len, acknowledged.values()))
    report.figures["batches under way at a kill"] = sum(map(len, pending.values()))
    report.figures["returned pico-USD"] = sum(returned.values())
    report.figures["lost pico-USD, by key at least"] = sum(
        max(0, cost - evidence.shards.get(key, ZERO).cost_pico_usd) for key, cost in returned.items()
    )
    report.figures["could be unsent at a kill, pico-USD"] = sum(may_be_lost.values())
    report.figures["oldest of these, quiet seconds"] = round(oldest, 3)
    report.figures["allowed"] = MOST_QUIET_SECS
    return report


def _check_clean_end(
    evidence: Evidence, generation: Generation, written: Mapping[UsageKey, int], broken: list[str]
) -> None:
    """All that a worker was billed is acknowledged."""
    billed = evidence.amounts(
        name for name, entry in evidence.billed.items() if traffic.generation_of(entry) == generation.number
    )
    for key in sorted(billed.keys() | written.keys()):
        wrote, should = written.get(key, 0), billed.get(key, ZERO).cost_pico_usd
        if wrote != should:
            broken.append(f"{key}: generation {generation.number} ended cleanly and wrote {wrote}, not {should}")


def is_sum_of_some(wanted: tuple[int, int], batches: Sequence[Write]) -> bool:
    """Whether cost and requests are the sum of some of the batches, none or all included."""
    reached = {(0, 0)}
    for batch in batches:
        sums = {(cost + batch.cost_pico_usd, requests + batch.requests) for cost, requests in reached}
        reached |= {each for each in sums if each[0] <= wanted[0] and each[1] <= wanted[1]}
        if len(reached) > 1_000_000:  # too many to tell apart
            return 0 <= wanted[0] <= sum(each.cost_pico_usd for each in batches)
    return wanted in reached


def quiet_secs(generation: Generation, since: float) -> float:
    """Seconds from ``since`` to the kill in which no write was under way and none had failed and not yet succeeded.

    In quiet time the meter only waits for its next pass, so usage gets old in it by one interval at most. The rest
    depends on the store: each write takes until its answer or time-out, and a failed one until it succeeds.
    """
    assert generation.killed_at is not None
    quiet = 0.0
    now = since
    waiting: set[UsageKey] = set()  # for the outcome of a write or, after a failure, of its repetition
    for write in sorted(generation.writes, key=lambda write: write.at):
        if write.at > generation.killed_at:
            break
        if write.at > now:
            quiet += 0.0 if waiting else write.at - now
            now = write.at
        if write.what == "end":
            waiting.discard(write.key)
        else:
            waiting.add(write.key)
    if not waiting:
        quiet += max(0.0, generation.killed_at - now)
    return quiet


def _acknowledged(generation: Generation) -> list[Write]:
    return [write for write in generation.writes if write.what == "end"]


def _pending(generation: Generation) -> list[Write]:
    """Batches that may be in the store although nobody was told: one a key at most."""
    last = {write.key: write for write in sorted(generation.writes, key=lambda write: write.at)}
    return [write for write in last.values() if write.what != "end"]


def _costs(writes: Iterable[Write]) -> Counter[UsageKey]:
    costs: Counter[UsageKey] = Counter()
    for write in writes:
        costs[write.key] += write.cost_pico_usd
    return costs

"""What one process knows of one (scope, label, day): its own usage on the way to the store, and others' spend.

Own usage moves ``unsent -> in flight -> acknowledged -> seen`` and is counted in exactly one of these places:

- *unsent* usage merges;
- one batch at a time is *in flight*: frozen (item, sequence, amounts) and repeated unchanged until its outcome is
  known, because a write whose reply was lost may have been applied;
- an *acknowledged* batch still counts as own until a look at the store is sure to include it;
- what a look has *seen* is part of its sum.

Effective spend = what the last look showed + own spend not in it yet. It never goes down within a day.
Not thread-safe: the meter's lock guards it.
"""

from collections.abc import Iterable
from typing import NamedTuple

from .keys import UsageKey, shard_of
from .outcomes import NOT_METERED, Outcome
from .usage import Usage

#: Own batches acknowledged up to this long before a daily total's pass began may be missing from the total.
TOTAL_SLACK_SECS = 5

#: Acknowledged batches kept apart; beyond that each two neighbours merge, and the older counts as own for as long as
#: the younger: a moment longer.
MOST_ACKNOWLEDGED = 512


class Amounts(NamedTuple):
    """What a batch adds to its shard: exact cost in pico-USD, tokens by kind, and settled calls."""

    cost_pico_usd: int
    usage: Usage
    requests: int

    def plus(self, other: "Amounts") -> "Amounts":
        return Amounts(
            self.cost_pico_usd + other.cost_pico_usd, self.usage.plus(other.usage), self.requests + other.requests
        )


ZERO = Amounts(0, Usage(), 0)


def sum_of(amounts: Iterable[Amounts]) -> Amounts:
    """The exact sum."""
    total = ZERO
    for each in amounts:
        total = total.plus(each)
    return total


class Batch(NamedTuple):
    """One frozen write: these amounts, once, to one shard item, under a writer's sequence number."""

    key: UsageKey
    writer_id: str
    sequence: int
    shard: int
    shard_count: int
    amounts: Amounts


class Acknowledged(NamedTuple):
    """A batch that the store has. ``order`` counts acknowledgements and looks of this process."""

    sequence: int
    amounts: Amounts
    at_epoch: float
    order: int


def _coarser(batches: list[Acknowledged]) -> list[Acknowledged]:
    """Each two neighbours as one; the odd one out, the newest, stays as it is."""
    pairs = zip(batches[::2], batches[1::2], strict=False)
    merged = [second._replace(amounts=first.amounts.plus(second.amounts)) for first, second in pairs]
    return [*merged, *batches[2 * len(merged) :]]


class Account:
    """See the module's text. All amounts are pico-USD."""

    __slots__ = (
        "__weakref__",
        "_acknowledged",
        "_base",
        "_flying_seen",
        "_own",
        "_requests",
        "_sealed",
        "_tokens",
        "added",
        "in_flight",
        "key",
        "outcomes",
        "sending",
        "shard_count",
        "spend",
        "unsent_cost",
        "written",
    )

    def __init__(self, key: UsageKey, shard_count: int) -> None:
        self.key = key
        self.shard_count = shard_count
        self.in_flight: Batch | None = None
        self._flying_seen = False  # a look has shown the batch in flight; only the store's answer is missing
        self.sending = False  # a thread is waiting for the store's answer to the batch in flight
        self.added = 0  # calls added so far
        self._sealed = 0  # of these, put into batches
        self.written = 0  # of these, acknowledged
        self.unsent_cost = 0  # of what is unsent
        self._tokens = [0, 0, 0, 0, 0]
        self._requests = 0
        self._acknowledged: list[Acknowledged] = []
        self._own = 0
        self._base = 0
        self.outcomes: dict[Outcome, int] = {}  # how often each but "complete"
        self.spend = 0  # effective spend: the most that base + own has been today

    def add(self, usage: Usage, cost_pico_usd: int, requests: int = 1) -> None:
        """Add settled usage to what is unsent."""
        self.added += 1
        self.unsent_cost += cost_pico_usd
        self._own += cost_pico_usd
        spend = self._base + self._own
        if spend > self.spend:  # noqa: PLR1730 - a call of max() costs more, and this runs in every call
            self.spend = spend
        self._requests += requests
        tokens = self._tokens
        tokens[0] += usage[0]
        tokens[1] += usage[1]
        if usage[2] or usage[3] or usage[4]:
            tokens[2] += usage[2]
            tokens[3] += usage[3]
            tokens[4] += usage[4]

    def count(self, outcome: Outcome) -> None:
        """Count an outcome other than "complete"."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def outcome_counts(self) -> dict[Outcome, int]:
        """How often each outcome came, "complete" first."""
        complete = self.added - sum(times for name, times in self.outcomes.items() if name not in NOT_METERED)
        return {"complete": complete, **self.outcomes}

    @property
    def own(self) -> int:
        """Own spend that no look has shown yet."""
        return self._own

    @property
    def unsent(self) -> Amounts:
        """What has not been put into a batch."""
        return Amounts(self.unsent_cost, Usage(*self._tokens), self._requests)

    @property
    def unwritten_cost(self) -> int:
        """What the store is not known to have."""
        return self.unsent_cost + (self.in_flight.amounts.cost_pico_usd if self.in_flight else 0)

    @property
    def dirty(self) -> bool:
        """Whether anything is left to write."""
        return self.written < self.added

    def seal(self, writer_id: str, sequence: int) -> Batch:
        """Freeze what is unsent into the batch in flight; there must be none already."""
        assert self.in_flight is None
        self.in_flight = Batch(
            self.key, writer_id, sequence, shard_of(writer_id, self.shard_count), self.shard_count, self.unsent
        )
        self._sealed = self.added
        self.unsent_cost = 0
        self._tokens = [0, 0, 0, 0, 0]
        self._requests = 0
        return self.in_flight

    def acknowledge(self, at_epoch: float, order: int) -> None:
        """The store has applied the batch in flight."""
        batch, self.in_flight = self.in_flight, None
        assert batch is not None
        self.written = self._sealed
        if not self._flying_seen:
            self._acknowledged.append(Acknowledged(batch.sequence, batch.amounts, at_epoch, order))
            if len(self._acknowledged) > MOST_ACKNOWLEDGED:  # nobody looks, or many are written between two looks
                self._acknowledged = _coarser(self._acknowledged)
        self._flying_seen = False

    def reopen(self, writer_id: str, sequence: int) -> Batch:
        """Put the amounts of the batch in flight into a new one under another writer: the store refused it for good."""
        assert self.in_flight is not None
        self.in_flight = self.in_flight._replace(
            writer_id=writer_id, sequence=sequence, shard=shard_of(writer_id, self.shard_count)
        )
        return self.in_flight

    def saw_shards(self, cost_pico_usd: int, own_sequence: int, begun: int) -> Amounts:
        """A strongly consistent look at the shards: their sum, the sequence number of this process's writer in its
        item, and the ``order`` at which the look began. Returns own usage that is not in the sum."""
        kept = [ack for ack in self._acknowledged if ack.sequence > own_sequence and ack.order > begun]
        if self.in_flight and self.in_flight.sequence <= own_sequence:
            self._flying_seen = True
        self._saw(cost_pico_usd, kept)
        unseen = [ack.amounts for ack in kept]
        if self.in_flight and not self._flying_seen:
            unseen.append(self.in_flight.amounts)
        return sum_of([*unseen, self.unsent])

    def saw_total(self, cost_pico_usd: int, updated_at_epoch: float) -> None:
        """A look at the daily total, whose pass began to read at ``updated_at_epoch``."""
        kept = [ack for ack in self._acknowledged if ack.at_epoch >= updated_at_epoch - TOTAL_SLACK_SECS]
        self._saw(cost_pico_usd, kept)

    def _saw(self, cost_pico_usd: int, kept: list[Acknowledged]) -> None:
        self._acknowledged = kept
        self._base = max(self._base, cost_pico_usd)
        self._own = self.unsent_cost + sum(ack.amounts.cost_pico_usd for ack in kept)
        if self.in_flight and not self._flying_seen:
            self._own += self.in_flight.amounts.cost_pico_usd
        self.spend = max(self.spend, self._base + self._own)

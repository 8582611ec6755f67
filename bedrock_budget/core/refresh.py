"""When to look at the store again, and at what.

``adaptive``: the first look is at the first call; then after 1 s, doubling up to the normal interval (the tight one
in tight mode), but never later than half the time in which the observed fleet-wide rate would use up what is left of
a label in use, and not more often than every 0.5 s. ``fixed``: the normal interval, in tight mode the tight one (the
Price Keeper schema specification, "Model Selection Decision").

Why half: each look halves what is left, so about seven looks lead from a whole quota to a hundredth of it, however
fast it is used up, and a rate that doubles meanwhile surprises nobody. That makes the end cheap to watch closely: an
interval that stays longer there was simulated, saves a look or two and overshoots by more (docs/concepts/overshoot.md
has the figures of this schedule).

A look is brought forward when this process alone spends more than was expected of the whole fleet
(`Schedule.is_surprised`); the intervals then start again at 1 s.

Below 60 % of the quota the daily total is read; the shards above that, while the interval is still under 60 s, or
when the daily total is older than 3 aggregator intervals: a stopped aggregator costs reads, not control. While looks
are frequent only labels in use are read, the one in force and those that calls have gone to: the sum of a label's
shards is the dearest part of a look, and a label that this process spends nothing on can wait for a rarer one.

A look has three steps, between which the shell reads the store: `Schedule.to_read`, `total_is_stale`,
`Schedule.after_look`. Times are seconds of a monotonic clock, amounts pico-USD.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import NamedTuple, Protocol, TypeVar

from .budget import Refresh
from .selection import Spender, mode_of

FIRST_SECS = 1.0
SHORTEST_SECS = 0.5
#: Sticky state, overrides and stops are read at least this often: every process follows within 60 s, by a look that
#: takes its time and a thread that is late.
CONTROLS_SECS = 50.0
#: Adaptive looks that are closer than this sum the shards.
FREQUENT_SECS = 60.0
SHARDS_FROM_PCT = 60
TOTAL_GOOD_FOR_INTERVALS = 3
#: Own spend since a look surprises from this part of the quota on.
SURPRISING_PART = 10_000


class Intervals(NamedTuple):
    """The configured refresh of a scope: seconds, and the per cent of a quota from which a label is tight."""

    refresh: Refresh
    normal_secs: float
    tight_secs: float
    aggregator_secs: float
    tight_pct: int = 95


#: The place of a cap: it counts whatever calls ask for, and whoever makes them.
EVERYWHERE = -1


class OwnSpender(Spender, Protocol):
    """Effective spend, and the part of it that is this process's own and no look has shown yet."""

    @property
    def own(self) -> int: ...


class Watched(Protocol):
    """A label, its quota (None: unlimited), what is known of its spend, and its place in the ordering (None: outside
    it, a chain of itself); or a cap over several labels, whose place is `EVERYWHERE`."""

    @property
    def label(self) -> str: ...

    @property
    def account(self) -> OwnSpender: ...

    @property
    def quota_pico_usd(self) -> int | None: ...

    @property
    def position(self) -> int | None: ...


W = TypeVar("W", bound=Watched)


class Seen(NamedTuple):
    """What a look showed of a label: its effective spend, when, and the rate (pico-USD per second) at which the whole
    fleet has been spending on it since the look before."""

    spend: int
    at_secs: float
    rate: float


UNSEEN = Seen(0, -inf, 0.0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What earlier looks showed and when the next one is due. Each look replaces it.

    ``interval_secs``: from the last look to the next; None: no look yet, or the intervals are to start again.
    ``sticky_is_due``: the effective spend of the sticky label is over its quota, and its shards did not show it yet.
    """

    interval_secs: float | None = None
    due_at_secs: float = -inf
    seen: Mapping[str, Seen] = field(default_factory=dict[str, Seen])
    sticky_is_due: bool = False

    def brought_forward(self) -> "Schedule":
        """The next look is due now, and the intervals start again at 1 s."""
        return replace(self, interval_secs=None, due_at_secs=-inf)

    # -- where to look

    def to_read(self, intervals: Intervals, labels: Sequence[W], sticky: int) -> tuple[list[W], list[W]]:
        """The labels whose shards this look is to sum, and those whose daily total will do.

        Ask again when they are read: a label that turns out to be over puts the next one in force.
        """
        if not self.seen:
            return list(labels), []
        shards: list[W] = []
        totals: list[W] = []
        frequent = intervals.refresh == "adaptive" and (self.interval_secs or 0.0) < FREQUENT_SECS
        in_use = self._in_use(labels, sticky)
        for label in labels:
            quota = label.quota_pico_usd
            if (frequent and label not in in_use) or (label.position is None and quota is None):
                continue
            if label.position is not None and EVERYWHERE < label.position < sticky:
                continue  # no call can go there any more
            if quota is not None and (frequent or label.account.spend * 100 >= quota * SHARDS_FROM_PCT):
                shards.append(label)
            else:
                totals.append(label)
        return shards, totals

    # -- when to look again

    def after_look(
        self,
        intervals: Intervals,
        labels: Sequence[Watched],
        read: Collection[str],
        *,
        begun_secs: float,
        sticky: int,
        sticky_is_due: bool,
    ) -> "Schedule":
        """The schedule after a look that began at ``begun_secs`` and has ``read`` these labels."""
        seen = dict(self.seen)
        for label in labels:
            if label.label in read:
                seen[label.label] = _seen(label.account.spend, begun_secs, self.seen.get(label.label))
        after = replace(self, seen=seen, sticky_is_due=sticky_is_due)
        in_use = after._in_use(labels, sticky)
        tight = any(
            mode_of(label.account.spend, label.quota_pico_usd, intervals.tight_pct) == "tight" for label in in_use
        )
        previous = self.interval_secs
        if not in_use:  # all is used up: only an operator or midnight can change that
            previous, tight = inf, True
        elif sticky_is_due and not self.sticky_is_due:  # the shards will show soon what effective spend already does
            previous = SHORTEST_SECS / 2
        secs_left = min((after._secs_left(label) for label in in_use), default=inf)
        secs = next_look_secs(intervals, previous, tight=tight, secs_left=secs_left)
        return replace(after, interval_secs=secs, due_at_secs=begun_secs + secs)

    def _in_use(self, labels: Sequence[W], sticky: int) -> list[W]:
        """The label in force, and others with quota left that calls have gone to of late."""
        left = [
            label
            for label in labels
            if (label.position is None or label.position == EVERYWHERE or label.position >= sticky)
            and (label.quota_pico_usd is None or label.account.spend < label.quota_pico_usd)
        ]
        in_force = next((label for label in left if label.position is not None and label.position >= 0), None)
        return [
            label for label in left if label is in_force or label.position == EVERYWHERE or self._is_spent_on(label)
        ]

    def _is_spent_on(self, label: Watched) -> bool:
        seen = self.seen.get(label.label, UNSEEN)
        return seen.rate > 0 or label.account.spend > seen.spend

    def _secs_left(self, label: Watched) -> float:
        """How long the quota of a label lasts at the fleet's rate."""
        quota = label.quota_pico_usd
        rate = self.seen.get(label.label, UNSEEN).rate
        return inf if quota is None or rate <= 0 else (quota - label.account.spend) / rate

    # -- when not to wait for it

    def is_surprised(self, intervals: Intervals, labels: Sequence[Watched]) -> bool:
        """Whether this process spends so fast that the next look should not wait until it is due."""
        if intervals.refresh == "fixed" or self.interval_secs is None or self.interval_secs <= FIRST_SECS:
            return False
        return any(
            label.quota_pico_usd is not None
            and is_surprising(label.account.own, self._expected(label), label.quota_pico_usd)
            for label in labels
        )

    def _expected(self, label: Watched) -> float:
        """What the whole fleet is expected to spend on a label from one look to the next."""
        return max(self.seen.get(label.label, UNSEEN).rate, 0.0) * (self.interval_secs or 0.0)


def _seen(spend: int, at_secs: float, before: Seen | None) -> Seen:
    if before is None:
        return Seen(spend, at_secs, 0.0)
    if at_secs <= before.at_secs:
        return before
    return Seen(spend, at_secs, (spend - before.spend) / (at_secs - before.at_secs))


def next_look_secs(
    intervals: Intervals, previous_secs: float | None, *, tight: bool = False, secs_left: float = inf
) -> float:
    """Seconds from one look to the next.

    ``previous_secs``: the interval before (None: this is the first). ``secs_left``: how long what is left of a quota
    lasts at the fleet's rate.
    """
    longest = intervals.tight_secs if tight else intervals.normal_secs
    if intervals.refresh == "fixed":
        return longest
    secs = FIRST_SECS if previous_secs is None else previous_secs * 2
    return max(min(secs, secs_left / 2, longest), SHORTEST_SECS)


def is_surprising(own_pico_usd: int, expected_pico_usd: float, quota_pico_usd: int) -> bool:
    """Whether a look is out of date although the next one is not due: this process alone has spent twice what the
    whole fleet was expected to spend until then, and at least 0.01 % of the quota. So a burst after a quiet hour does
    not wait for the end of a long interval."""
    return own_pico_usd > 2 * expected_pico_usd and own_pico_usd * SURPRISING_PART >= quota_pico_usd


def total_is_stale(intervals: Intervals, *, now_epoch: float, updated_at_epoch: float | None) -> bool:
    """Whether a daily total (None: there is none) is too old to decide from."""
    if updated_at_epoch is None:
        return True
    return now_epoch - updated_at_epoch > TOTAL_GOOD_FOR_INTERVALS * intervals.aggregator_secs

"""What this process knows of one org and app in one org day: the budget, who is where, and how fresh that is."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from math import inf
from typing import Any, cast

from .core.account import Account
from .core.budget import UNLABELLED, ModelLabel, ScopeBudget
from .core.days import OrgDay
from .core.keys import UsageKey
from .core.model_ids import request_format
from .core.money import PICO_PER_MICRO
from .core.pricing import Price
from .core.refresh import FIRST_SECS, Intervals, is_surprising
from .core.selection import Fits
from .stores.contract import Override, Sticky, Stop

PriceOf = Callable[[ModelLabel, date], Price | None]
AccountOf = Callable[[UsageKey, int], Account]


class Route:
    """A label as calls need it: where it leads, what it costs, its quota and its account, all in pico-USD."""

    __slots__ = (
        "account",
        "fits",
        "format",
        "hurry_at",
        "label",
        "model_id",
        "position",
        "price",
        "quota_pico_usd",
        "tight_at",
    )

    def __init__(
        self,
        label: ModelLabel,
        *,
        price: Price | None,
        quota_usd_micros: int | None,
        tight_pct: int,
        account: Account,
        position: int | None,
    ) -> None:
        self.label = label.label
        self.model_id = label.model_id
        self.format = body_format = request_format(label.model_id)
        self.fits: Fits = lambda candidate: cast(Route, candidate).format == body_format  # a body made for this label
        self.price = price
        self.account = account
        self.position = position  # in the ordering; None: outside it, a chain of itself
        self.quota_pico_usd = quota = None if quota_usd_micros is None else quota_usd_micros * PICO_PER_MICRO
        # From these amounts on, of spend and of unsent usage, the meter writes at once. Unlimited: never.
        self.tight_at = inf if quota is None else -(-quota * tight_pct // 100)
        self.hurry_at = inf if quota is None else quota // 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent view, replaced whole by each look."""

    budget: ScopeBudget
    routes: Mapping[str, Route]  # by label
    by_asked: Mapping[str, Route]  # by label and by model id
    chain: tuple[Route, ...]  # the ordering
    serve_last: bool  # on_exhausted
    one_format: bool  # every label of the ordering takes the same invoke_model bodies
    sticky: int  # place in the ordering
    override: Override | None
    override_route: Route | None
    accounts: tuple[Account, ...]  # all that the scope can spend from
    stop: Stop | None = None  # as of the last look; see `stop_at`

    def stop_at(self, now: datetime) -> Stop | None:
        """The stop in force, if any; it may have expired since the last look."""
        stop = self.stop
        if stop is None or (stop.expires_at_epoch is not None and now.timestamp() >= stop.expires_at_epoch):
            return None
        return stop

    def override_at(self, now: datetime) -> Route | None:
        """The label of the override in force, if any; it may have expired since the last look."""
        override = self.override
        if override is None or now.timestamp() >= override.expires_at_epoch:
            return None
        return self.override_route

    def with_stop(self, stop: Stop | None) -> "Snapshot":
        """The same, stopped or not."""
        return self if stop == self.stop else replace(self, stop=stop)

    def with_controls(self, override: Override | None, sticky: Sticky | None, stop: Stop | None) -> "Snapshot":
        """The same budget under other controls. The sticky label counts by its name: the ordering may have changed."""
        ordering = self.budget.ordering
        place = ordering.index(sticky.label) if sticky is not None and sticky.label in ordering else 0
        return Snapshot(
            self.budget,
            self.routes,
            self.by_asked,
            self.chain,
            self.serve_last,
            self.one_format,
            place if self.budget.sticky_fallback_enabled else 0,
            override,
            self.routes.get(override.label) if override is not None else None,
            self.accounts,
            stop,
        )


def snapshot_of(budget: ScopeBudget, day: OrgDay, *, price_of: PriceOf, account_of: AccountOf) -> Snapshot:
    """A budget's snapshot for a day, before anything is known of sticky state and overrides."""
    on = day.starts_at.date()
    routes: dict[str, Route] = {}
    for label in (*budget.ordering, *budget.labels):
        if label not in routes:
            routes[label] = Route(
                budget.labels[label],
                price=price_of(budget.labels[label], on),
                quota_usd_micros=budget.quota_usd_micros(label),
                tight_pct=budget.tight_mode_threshold_pct,
                account=account_of(UsageKey(budget.scope, label, day.name), budget.shard_count),
                position=budget.ordering.index(label) if label in budget.ordering else None,
            )
    chain = tuple(routes[label] for label in budget.ordering)
    by_asked: dict[str, Route] = {}
    for route in routes.values():  # the ordering comes first, so its first label wins a model id
        by_asked.setdefault(route.model_id, route)
    by_asked.update(routes)
    accounts = [route.account for route in routes.values()]
    if budget.settings.on_unknown_model == "pass":
        accounts.append(account_of(UsageKey(budget.scope, UNLABELLED, day.name), budget.shard_count))
    return Snapshot(
        budget=budget,
        routes=routes,
        by_asked=by_asked,
        chain=chain,
        serve_last=budget.settings.on_exhausted == "last",
        one_format=len({route.format for route in chain}) == 1,
        sticky=0,
        override=None,
        override_route=None,
        accounts=tuple(accounts),
    )


class ScopeDay:
    """One org and app in one org day. Calls read it without a lock; looks replace its fields one by one."""

    snapshot: Snapshot  # set by who makes it

    def __init__(self, org_id: str, app_id: str | None, day: OrgDay) -> None:
        self.org_id = org_id
        self.app_id = app_id
        self.day = day
        self.starts_at = day.starts_at
        self.ends_at = day.ends_at
        self.items: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] | None = None
        self.fresh_until = day.starts_at  # calls before this need nothing more; see `KnownScopes.ready`
        self.used_at: datetime = day.starts_at  # the start of the last call
        # How fresh it is. Times are the clock's monotonic seconds.
        self.tried = threading.Event()  # a look has been tried
        self.asked = False  # a call waits for it
        self.looking = False  # it is under way in the background
        self.looked = False  # a look has succeeded
        self.error: Exception | None = None  # why the last look failed
        self.trusted = False  # its budget was good when it was last looked at, perhaps the day before
        self.ticket = -1  # its newest place in the refresher's heap
        self.due_at = 0.0
        self.spend_due_at = 0.0
        self.interval_secs: float | None = None
        self.failures = 0
        self.sticky_is_due = False  # effective spend is over, the shards do not show it yet
        self.may_stop_itself = True  # no automatic stop of the day has been lifted, as far as is known
        self.seen: dict[str, tuple[int, float]] = {}  # label -> spend at the last look, and when
        self.rates: dict[str, float] = {}  # label -> observed pico-USD per second
        self.expected: dict[str, float] = {}  # label -> pico-USD the fleet may spend until the next look
        self._blind_before = 0
        self._own_at_look = 0
        self._earlier: tuple[Account, ...] = ()  # of days before, not yet written

    @property
    def intervals(self) -> Intervals:
        budget = self.snapshot.budget
        return Intervals(
            budget.settings.refresh,
            budget.refresh_interval_normal_secs,
            budget.refresh_interval_tight_secs,
            budget.aggregator_interval_secs,
        )

    def is_surprised(self) -> bool:
        """Whether this process spends so fast that the next look should not wait until it is due."""
        if self.intervals.refresh == "fixed" or self.interval_secs is None or self.interval_secs <= FIRST_SECS:
            return False
        return any(
            route.quota_pico_usd is not None
            and is_surprising(route.account.own, self.expected.get(route.label, 0.0), route.quota_pico_usd)
            for route in self.snapshot.routes.values()
        )

    @property
    def degraded(self) -> bool:
        """Whether the last look failed."""
        return self.error is not None

    def awaits_look(self, now: datetime) -> bool:
        """Whether a call has to wait: no look has been tried, or the last was too long ago (the process was frozen)."""
        return not self.tried.is_set() or (self.error is None and now >= self.fresh_until)

    def succeeded(self) -> None:
        """A look has succeeded: blind spending starts from here."""
        self.error = None
        self.looked = True
        self.failures = 0
        self._blind_before = 0
        self._own_at_look = self._own()

    def follow(self, before: "ScopeDay") -> None:
        """Take over what was spent and the store does not know yet: only its coming back ends that, not midnight. So
        with a stop: it stands until a look says otherwise."""
        self.snapshot = self.snapshot.with_stop(before.snapshot.stop)
        if before.degraded:
            self._blind_before = before.blind_pico_usd()
            shared = set(before.snapshot.accounts).intersection(self.snapshot.accounts)  # it may be the same day
            self._own_at_look = sum(account.own for account in shared)
        self._earlier = before.unwritten()

    def failed(self, error: Exception) -> None:
        self.error = error
        self.failures += 1
        self.fresh_until = self.starts_at

    def blind_pico_usd(self) -> int:
        """What this process has spent in the scope since its last successful look."""
        return self._blind_before + max(self._own() - self._own_at_look, 0)

    def unwritten(self) -> tuple[Account, ...]:
        """The accounts of the scope, this day's and earlier ones, of which something is not written."""
        return tuple(each for each in dict.fromkeys((*self._earlier, *self.snapshot.accounts)) if each.dirty)

    def unwritten_pico_usd(self) -> int:
        """What this process has spent in the scope and the store is not known to have."""
        return sum(account.unwritten_cost for account in self.unwritten())

    def _own(self) -> int:
        return sum(account.own for account in self.snapshot.accounts)

    def leave(self) -> None:
        """End the day for this process now: the next call enters it afresh."""
        self.ends_at = self.fresh_until = self.starts_at

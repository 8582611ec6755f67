"""What this process knows of one org and app in one org day: the budget, who is where, and how fresh that is."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from math import inf
from typing import Any, cast

from .core.account import Account
from .core.budget import ALL_LABELS, UNLABELLED, ModelLabel, ScopeBudget
from .core.days import OrgDay
from .core.keys import UsageKey, scope_key
from .core.model_ids import request_format
from .core.money import PICO_PER_MICRO
from .core.pricing import Price
from .core.refresh import Intervals, Schedule
from .core.selection import Fits
from .core.worst_case import WorstCase
from .pool import Pool
from .stores.contract import Override, Sticky

PriceOf = Callable[[ModelLabel, date], Price | None]
WorstCaseOf = Callable[[ModelLabel, Price], WorstCase]
AccountOf = Callable[[UsageKey, int], Account]
PoolOf = Callable[[UsageKey, int, int, Sequence[Account]], Pool]

#: Pools outlive their day by this much, for calls that end late and journals that are replayed late.
POOL_TTL_SECS = 2 * 86_400


class Route:
    """A label as calls need it: where it leads, what it costs, its quota and its account, all in pico-USD."""

    __slots__ = (
        "account",
        "fits",
        "format",
        "hurry_at",
        "label",
        "model_id",
        "pool",
        "pools",
        "position",
        "price",
        "quota_pico_usd",
        "tight_at",
        "worst_case",
    )

    def __init__(
        self,
        label: ModelLabel,
        *,
        price: Price | None,
        worst_case: WorstCase | None,
        quota_usd_micros: int | None,
        tight_pct: int,
        account: Account,
        position: int | None,
        pool: Pool | None = None,
    ) -> None:
        self.label = label.label
        self.model_id = label.model_id
        self.format = body_format = request_format(label.model_id)
        self.fits: Fits = lambda candidate: cast(Route, candidate).format == body_format  # a body made for this label
        self.price = price
        self.worst_case = worst_case  # of a call; None: it costs nothing that is known
        self.account = account
        self.pool = pool  # strict enforcement: what calls are held out of
        self.pools: tuple[Pool, ...] = ()  # and the caps'
        self.position = position  # in the ordering; None: outside it, a chain of itself
        self.quota_pico_usd = quota = None if quota_usd_micros is None else quota_usd_micros * PICO_PER_MICRO
        # From these amounts on, of spend and of unsent usage, the meter writes at once. Unlimited: never.
        self.tight_at = inf if quota is None else -(-quota * tight_pct // 100)
        self.hurry_at = inf if quota is None else quota // 100


class Cap:
    """A limit over several labels, or over several apps: what may be spent of them in all, in pico-USD."""

    __slots__ = ("accounts", "name", "pool", "quota_pico_usd", "tight_at")

    def __init__(
        self, name: str, *, quota_usd_micros: int, tight_pct: int, accounts: tuple[Account, ...], pool: Pool | None
    ) -> None:
        self.name = name  # of the key that sets it, for messages
        self.accounts = accounts
        self.quota_pico_usd = quota = quota_usd_micros * PICO_PER_MICRO
        self.tight_at = -(-quota * tight_pct // 100)
        self.pool = pool

    @property
    def spend(self) -> int:
        """Effective spend of all that it covers."""
        return sum(account.spend for account in self.accounts)


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
    caps: tuple[Cap, ...]
    org_account: Account | None  # what all apps of the org spend, where a cap needs it
    pools: tuple[Pool, ...]  # of the caps: strict enforcement
    strict: bool
    max_cost_pico_usd: int | None  # of one call's worst case
    guarded: bool  # a call's worst case has to be known before it is sent

    @property
    def all_pools(self) -> tuple[Pool, ...]:
        """Those of the labels as well."""
        return (*self.pools, *(route.pool for route in self.routes.values() if route.pool is not None))

    def override_at(self, now: datetime) -> Route | None:
        """The label of the override in force, if any; it may have expired since the last look."""
        override = self.override
        if override is None or now.timestamp() >= override.expires_at_epoch:
            return None
        return self.override_route

    @property
    def intervals(self) -> Intervals:
        budget = self.budget
        return Intervals(
            budget.settings.refresh,
            budget.refresh_interval_normal_secs,
            budget.refresh_interval_tight_secs,
            budget.aggregator_interval_secs,
            budget.tight_mode_threshold_pct,
        )

    def with_controls(self, override: Override | None, sticky: Sticky | None) -> "Snapshot":
        """The same budget under other controls. The sticky label counts by its name: the ordering may have changed."""
        ordering = self.budget.ordering
        place = ordering.index(sticky.label) if sticky is not None and sticky.label in ordering else 0
        return replace(
            self,
            sticky=place if self.budget.sticky_fallback_enabled else 0,
            override=override,
            override_route=self.routes.get(override.label) if override is not None else None,
        )


def snapshot_of(
    budget: ScopeBudget,
    day: OrgDay,
    *,
    price_of: PriceOf,
    worst_case_of: WorstCaseOf,
    account_of: AccountOf,
    pool_of: PoolOf,
) -> Snapshot:
    """A budget's snapshot for a day, before anything is known of sticky state and overrides."""
    on = day.starts_at.date()
    strict = budget.settings.enforcement == "strict"
    expires_at_epoch = int(day.ends_at.timestamp()) + POOL_TTL_SECS

    def pool(key: UsageKey, quota_usd_micros: int | None, accounts: Sequence[Account]) -> Pool | None:
        if not strict or quota_usd_micros is None:
            return None
        return pool_of(key, quota_usd_micros * PICO_PER_MICRO, expires_at_epoch, accounts)

    routes: dict[str, Route] = {}
    for label in (*budget.ordering, *budget.labels):
        if label not in routes:
            key = UsageKey(budget.scope, label, day.name)
            account = account_of(key, budget.shard_count)
            quota = budget.quota_usd_micros(label)
            price = price_of(budget.labels[label], on)
            bounded = price or budget.settings.price_anyway
            routes[label] = Route(
                budget.labels[label],
                price=price,
                worst_case=None if bounded is None else worst_case_of(budget.labels[label], bounded),
                quota_usd_micros=quota,
                tight_pct=budget.tight_mode_threshold_pct,
                account=account,
                position=budget.ordering.index(label) if label in budget.ordering else None,
                pool=pool(key, quota, (account,)),
            )
    chain = tuple(routes[label] for label in budget.ordering)
    by_asked: dict[str, Route] = {}
    for route in routes.values():  # the ordering comes first, so its first label wins a model id
        by_asked.setdefault(route.model_id, route)
    by_asked.update(routes)
    accounts = [route.account for route in routes.values()]
    if budget.settings.on_unknown_model == "pass":
        accounts.append(account_of(UsageKey(budget.scope, UNLABELLED, day.name), budget.shard_count))

    org_scope = scope_key(budget.org_id, None)
    org_account: Account | None = None
    limits = [("daily_total_usd_micros", budget.scope, budget.daily_total_usd_micros)]
    limits.append(("org_daily_total_usd_micros", org_scope, budget.org_daily_total_usd_micros))
    limits = [limit for limit in limits if limit[2] is not None]
    if budget.scope == org_scope:
        limits = sorted(limits, key=lambda limit: limit[2] or 0)[:1]  # both are of the same spend: the lower counts
    elif budget.org_daily_total_usd_micros is not None:
        # Other apps' spend is in other scopes, so it is counted for the org as well.
        org_account = account_of(UsageKey(org_scope, ALL_LABELS, day.name), budget.shard_count)
    caps = [
        Cap(
            name,
            quota_usd_micros=quota,
            tight_pct=budget.tight_mode_threshold_pct,
            accounts=counted,
            pool=pool(UsageKey(scope, ALL_LABELS, day.name), quota, counted),
        )
        for name, scope, quota in limits
        for counted in [tuple(accounts) if scope == budget.scope or org_account is None else (org_account,)]
        if quota is not None
    ]
    pools = tuple(cap.pool for cap in caps if cap.pool is not None)
    for route in routes.values():
        route.pools = pools if route.pool is None else (route.pool, *pools)
    max_cost = budget.settings.max_cost_usd_micros
    return Snapshot(
        budget=budget,
        routes=routes,
        by_asked=by_asked,
        chain=chain,
        serve_last=budget.settings.on_exhausted == "last" and not strict,
        one_format=len({route.format for route in chain}) == 1,
        sticky=0,
        override=None,
        override_route=None,
        accounts=tuple(accounts),
        caps=tuple(caps),
        org_account=org_account,
        pools=pools,
        strict=strict,
        max_cost_pico_usd=None if max_cost is None else max_cost * PICO_PER_MICRO,
        guarded=strict or max_cost is not None,
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
        self.due_at = 0.0  # of the next look
        self.schedule = Schedule()  # of looks at the spend
        self.failures = 0
        self._blind_before = 0
        self._own_at_look = 0
        self._earlier: tuple[Account, ...] = ()  # of days before, not yet written

    def is_surprised(self) -> bool:
        """Whether this process spends so fast that the next look should not wait until it is due."""
        return self.schedule.is_surprised(self.snapshot.intervals, tuple(self.snapshot.routes.values()))

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
        """Take over what was spent and the store does not know yet: only its coming back ends that, not midnight."""
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

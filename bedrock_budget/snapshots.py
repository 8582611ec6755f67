"""One consistent view of a scope's budget on a day: what calls are decided by. Each look replaces it whole."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from math import inf
from typing import cast

from .core.account import Account
from .core.budget import ALL_LABELS, UNLABELLED, ModelLabel, ScopeBudget
from .core.days import OrgDay
from .core.equivalents import Equivalent
from .core.keys import SHADOW_MOVED, SHADOW_REFUSED, UsageKey, scope_key, shadow_of
from .core.model_ids import parse_model_id, request_format
from .core.money import PICO_PER_MICRO
from .core.pricing import Price
from .core.refresh import EVERYWHERE, Intervals
from .core.selection import Fits
from .core.worst_case import WorstCase, WorstOf
from .pool import Claim, Pool
from .profiles import Profiles
from .stores.contract import Override, Sticky, Stop

PriceOf = Callable[[ModelLabel, date], Price | None]
ListedPrice = Callable[[str, date], Price | None]
WorstCaseOf = Callable[[ModelLabel, Price], WorstCase | WorstOf]
AccountOf = Callable[[UsageKey, int], Account]
PoolOf = Callable[[UsageKey, int, Sequence[Account]], Pool]

#: Pools outlive their day by this much, for calls that end late and journals that are replayed late.
POOL_TTL_SECS = 2 * 86_400


class Route:
    """A label as calls need it: where it leads, what it costs, its quota and its account, all in pico-USD."""

    __slots__ = (
        "account",
        "accounts",
        "claims",
        "equivalent",
        "fits",
        "format",
        "hurry_at",
        "label",
        "model_id",
        "position",
        "price",
        "price_of_served",
        "problem",
        "quota_pico_usd",
        "registered",
        "tight_at",
        "worst_case",
    )

    def __init__(
        self,
        label: ModelLabel,
        *,
        price: Price | None,
        worst_case: WorstCase | WorstOf | None,
        quota_usd_micros: int | None,
        tight_pct: int,
        account: Account,
        position: int | None,
        equivalent: Equivalent | None = None,
        problem: str | None = None,
        listed_price: Callable[[str], Price | None] | None = None,
    ) -> None:
        self.label = label.label
        self.model_id = label.model_id
        self.registered = label.registered
        self.equivalent = equivalent  # what the model id stands for; None: not known yet
        self.problem = problem  # why its form gives it no list price
        # What the model that a response names costs; None: what is asked is what is served.
        served = label.price is None and parse_model_id(label.model_id).price_kind == "served"
        self.price_of_served = listed_price if served else None
        ids = equivalent.model_ids if equivalent else ()
        self.format = body_format = request_format(ids[0] if len(ids) == 1 else label.model_id)
        self.fits: Fits = lambda candidate: cast(Route, candidate).format == body_format  # a body made for this label
        self.price = price
        self.worst_case = worst_case  # of a call; None: it costs nothing that is known
        self.account = account
        self.claims: tuple[Claim, ...] = ()  # strict enforcement: what calls are held out of
        self.accounts = (account,)
        self.position = position  # in the ordering; None: outside it, a chain of itself
        self.quota_pico_usd = quota = None if quota_usd_micros is None else quota_usd_micros * PICO_PER_MICRO
        # From these amounts on, of spend and of unsent usage, the meter writes at once. Unlimited: never.
        self.tight_at = inf if quota is None else -(-quota * tight_pct // 100)
        self.hurry_at = inf if quota is None else quota // 100


class Cap:
    """A limit over several labels, or over several apps: what may be spent of them in all, in pico-USD.

    The schedule of looks watches it as it does a label. ``name``: the configuration's key that sets it.
    """

    __slots__ = ("account", "accounts", "label", "name", "position", "quota_pico_usd", "tight_at")

    def __init__(self, name: str, quota_pico_usd: int, *, tight_pct: int, accounts: tuple[Account, ...]) -> None:
        self.name = name
        self.label = f"#{name}"  # as no label can be called
        self.accounts = accounts
        self.account = self  # as it has a spend of its own
        self.position = EVERYWHERE
        self.quota_pico_usd = quota_pico_usd
        self.tight_at = -(-quota_pico_usd * tight_pct // 100)

    @property
    def spend(self) -> int:
        """Effective spend of all that it covers."""
        return sum(account.spend for account in self.accounts)

    @property
    def own(self) -> int:
        """This process's own part of it that no look has shown yet."""
        return sum(account.own for account in self.accounts)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """See the module's text."""

    budget: ScopeBudget
    routes: Mapping[str, Route]  # by label
    by_asked: Mapping[str, Route]  # by label and by model id
    chain: tuple[Route, ...]  # the ordering
    serve_last: bool  # on_exhausted
    one_format: bool  # every label of the ordering takes the same invoke_model bodies
    accounts: tuple[Account, ...]  # all that the scope can spend from
    caps: tuple[Cap, ...]
    watched: tuple[Route | Cap, ...]  # what looks read: labels, caps, and what the scope stops itself at
    org_account: Account | None  # what all apps of the org spend, where a cap needs it
    claims: tuple[Claim, ...]  # of the caps: strict enforcement
    strict: bool
    max_cost_pico_usd: int | None  # of one call's worst case
    guarded: bool  # a call's worst case has to be known before it is sent
    real: Mapping[str, Account] | None  # shadow enforcement: what is really spent, by label
    judged: Mapping[str, Account]  # and calls that would have gone elsewhere, `SHADOW_MOVED` and `SHADOW_REFUSED`
    real_org_account: Account | None  # the same of the org
    sticky: int = 0  # place in the ordering
    override: Override | None = None
    override_route: Route | None = None
    stop: Stop | None = None  # as of the last look; see `stop_at`

    @property
    def is_near_cap(self) -> bool:
        """Whether a cap is tight."""
        return any(cap.spend >= cap.tight_at for cap in self.caps)

    @property
    def pools(self) -> dict[Pool, None]:
        """The labels' and the caps', each once."""
        claims = (*self.claims, *(claim for route in self.routes.values() for claim in route.claims))
        return dict.fromkeys(claim.pool for claim in claims)

    @property
    def intervals(self) -> Intervals:
        """When to look, as configured."""
        budget = self.budget
        return Intervals(
            budget.settings.refresh,
            budget.refresh_interval_normal_secs,
            budget.refresh_interval_tight_secs,
            budget.aggregator_interval_secs,
            budget.tight_mode_threshold_pct,
        )

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
        return replace(
            self,
            sticky=place if self.budget.sticky_fallback_enabled else 0,
            override=override,
            override_route=self.routes.get(override.label) if override is not None else None,
            stop=stop,
        )


def snapshot_of(
    budget: ScopeBudget,
    day: OrgDay,
    *,
    price_of: PriceOf,
    listed_price: ListedPrice,
    worst_case_of: WorstCaseOf,
    profiles: Profiles,
    account_of: AccountOf,
    pool_of: PoolOf,
) -> Snapshot:
    """A budget's snapshot for a day, before anything is known of sticky state, overrides and stops."""
    settings = budget.settings
    real_budget, org_scope = budget, scope_key(budget.org_id, None)
    shadow = settings.enforcement == "shadow"
    strict = settings.enforcement == "strict"
    if shadow:  # what would have been spent is counted apart from what is, in a scope of its own
        budget = replace(budget, scope=shadow_of(budget.scope), stop_at_pct=None)
        org_scope = shadow_of(org_scope)
    expires_at_epoch = int(day.ends_at.timestamp()) + POOL_TTL_SECS

    def account(scope: str, label: str) -> Account:
        return account_of(UsageKey(scope, label, day.name), budget.shard_count)

    def claim(name: str, scope: str, label: str, quota_pico_usd: int, accounts: Sequence[Account]) -> list[Claim]:
        if not strict:
            return []
        return [Claim(name, pool_of(UsageKey(scope, label, day.name), expires_at_epoch, accounts), quota_pico_usd)]

    def price_today(model_id: str) -> Price | None:
        return listed_price(model_id, day.date)

    routes: dict[str, Route] = {}
    for label in (*budget.ordering, *budget.labels):
        if label not in routes:
            mapped = budget.labels[label]
            quota = budget.quota_usd_micros(label)
            price = price_of(mapped, day.date)
            bounded = price or settings.price_anyway
            spent = account(budget.scope, label)
            routes[label] = Route(
                mapped,
                price=price,
                worst_case=None if bounded is None else worst_case_of(mapped, bounded),
                quota_usd_micros=quota,
                tight_pct=budget.tight_mode_threshold_pct,
                account=spent,
                position=budget.ordering.index(label) if label in budget.ordering else None,
                equivalent=profiles.equivalent(mapped.model_id),
                problem=profiles.problem(mapped.model_id),
                listed_price=price_today,
            )
    chain = tuple(routes[label] for label in budget.ordering)
    by_asked: dict[str, Route] = {}
    for route in routes.values():  # the ordering comes first, so its first label wins a model id
        by_asked.setdefault(route.model_id, route)
    by_asked.update(routes)
    accounts = tuple(route.account for route in routes.values())
    if shadow or settings.on_unknown_model == "pass":
        accounts = (*accounts, account(budget.scope, UNLABELLED))

    # Other apps' spend is in other scopes, so it is counted for the org as well.
    apart = budget.org_daily_total_usd_micros is not None and budget.scope != org_scope
    org_account = account(org_scope, ALL_LABELS) if apart else None
    caps: list[Cap] = []
    claims: list[Claim] = []
    for name, scope, limit, covered in _limits(budget, org_scope, accounts, org_account):
        caps.append(Cap(name, limit, tight_pct=budget.tight_mode_threshold_pct, accounts=covered))
        claims += claim(name, scope, ALL_LABELS, limit, covered)
    for label, route in routes.items():
        quota = route.quota_pico_usd
        own = [] if quota is None else claim(label, budget.scope, label, quota, route.accounts)
        route.claims = (*own, *claims)
    watched: list[Route | Cap] = [*routes.values(), *caps]
    if (stop_at := budget.stop_at_pico_usd) is not None:
        watched.append(Cap("stop_at_pct", stop_at, tight_pct=100, accounts=accounts))
    max_cost = settings.max_cost_usd_micros
    return Snapshot(
        budget=budget,
        routes=routes,
        by_asked=by_asked,
        chain=chain,
        serve_last=settings.on_exhausted == "last" and not strict,
        one_format=len({route.format for route in chain}) == 1,
        accounts=accounts,
        caps=tuple(caps),
        watched=tuple(watched),
        org_account=org_account,
        claims=tuple(claims),
        strict=strict,
        max_cost_pico_usd=None if max_cost is None else max_cost * PICO_PER_MICRO,
        guarded=strict or max_cost is not None,
        real={label: account(real_budget.scope, label) for label in (*routes, UNLABELLED)} if shadow else None,
        judged={name: account(budget.scope, name) for name in (SHADOW_MOVED, SHADOW_REFUSED)} if shadow else {},
        real_org_account=account(scope_key(budget.org_id, None), ALL_LABELS) if shadow and apart else None,
    )


def _limits(
    budget: ScopeBudget, org_scope: str, accounts: tuple[Account, ...], org_account: Account | None
) -> list[tuple[str, str, int, tuple[Account, ...]]]:
    """The caps of a budget: key, scope, pico-USD, and the accounts covered."""
    own, org = budget.daily_total_usd_micros, budget.org_daily_total_usd_micros
    limits: list[tuple[str, str, int, tuple[Account, ...]]] = []
    if own is not None:
        limits.append(("daily_total_usd_micros", budget.scope, own * PICO_PER_MICRO, accounts))
    if org is not None:
        covered = accounts if org_account is None else (org_account,)
        limits.append(("org_daily_total_usd_micros", org_scope, org * PICO_PER_MICRO, covered))
    # Under quota_scope: ORG both are of the same spend, and the lower one counts.
    return limits if org_account is not None else sorted(limits, key=lambda limit: limit[2])[:1]

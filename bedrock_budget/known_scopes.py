"""The scopes this process works for: their budgets, their days, and whether the store lets calls go on."""

import threading
import weakref
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, ParamSpec

from .clock import Clock
from .config import table_budgets
from .control_plane import LookUp
from .core.budget import ModelLabel, ScopeBudget
from .core.budget_rules import Budgets
from .core.days import org_day
from .core.equivalents import dearest
from .core.errors import ConfigError, StoreError
from .core.keys import id_problem
from .core.money import PICO_PER_MICRO, usd_text
from .core.pricing import Price
from .core.worst_case import WorstCase, WorstOf
from .looks import Observer
from .meter import Meter
from .pools import Pools
from .price_cache import PriceCache
from .prices import bundled
from .profiles import Profiles
from .refresher import Refresher
from .registered import Registered
from .scopes import ScopeDay
from .snapshots import Snapshot, snapshot_of
from .stores.contract import Controls, Store, StoreSetupError

P = ParamSpec("P")

#: A first look waits no longer than this for what models stand for: a call waits for it, up to 3 s. Later ones wait
#: less, so that they are not taken for a slow store.
FIRST_LOOKUP_SECS, LOOKUP_SECS = 2.0, 0.75


def _weakly(method: Callable[P, None]) -> Callable[P, None]:
    """A bound method that does nothing once its object is gone."""
    weak = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        strong = weak()
        if strong is not None:
            strong(*args, **kwargs)

    return call


class Scope:
    """An org and app, and its day as last used: what a view of the client holds."""

    __slots__ = ("app_id", "day", "org_id")

    def __init__(self, org_id: str, app_id: str | None) -> None:
        self.org_id = org_id
        self.app_id = app_id
        self.day: ScopeDay | None = None


class KnownScopes:
    """See the module's text. One for all views of a client."""

    def __init__(
        self,
        store: Store,
        meter: Meter,
        budgets: Budgets | None,
        clock: Clock,
        *,
        keywords: Mapping[str, Any],
        region: str | None,
        pools: Pools,
        look_up: LookUp,
    ) -> None:
        self._store = store
        self._meter = meter
        self._pools = pools
        self._clock = clock
        self._budgets = budgets or table_budgets()
        self._has_file = budgets is not None
        self._keywords = keywords
        self._region = region
        self._prices = PriceCache(store, clock, region)
        self._registered = Registered(store, clock)
        self.profiles = Profiles(look_up, clock)
        self._observer = Observer(
            store,
            meter,
            clock,
            budget_of=self._budget_under,
            snapshot_of=self._snapshot,
            prices_version=self._prices_version,
            renewed=self._renewed,
        )
        # Its threads must not keep a client that nobody has any more, with its looks, for as long as scopes are known.
        self._refresher = Refresher(_weakly(self._look), clock, on_forget=_weakly(self._forget))
        weakref.finalize(self, self._refresher.end_soon).atexit = False
        meter.on_written = _weakly(self._look_again_where_surprised)
        self._lock = threading.Lock()
        self._days: dict[tuple[str, str | None], ScopeDay] = {}
        self._known: dict[tuple[str, str | None], ScopeBudget] = {}
        self._looked_at: set[tuple[str, str | None]] = set()  # their budgets were good at least once

    def enter(self, org_id: str, app_id: str | None) -> Scope:
        """A scope, its ids and configuration checked.

        Raises ConfigError; StoreError where only the Config table can say what the budget is.
        """
        self._budget(org_id, app_id)
        return Scope(org_id, app_id)

    def ready(self, scope: Scope, now: datetime) -> ScopeDay:
        """The scope's day at ``now``, looked at (or tried to) at least once and not too long ago."""
        day = scope.day
        if day is None or not day.starts_at <= now < day.ends_at:
            day = self._today(scope, now)
        day.used_at = now
        if day.awaits_look(now):
            trouble = self._observer.trouble() if day.looked else None
            if trouble is not None:  # not a frozen process: its looks wait for the store, and calls need not
                day.failed(trouble)
                return day
            self._refresher.first_look(day)
            if not day.starts_at <= now < day.ends_at:  # the look found another time zone or scope
                day = self._today(scope, now)
                day.used_at = now
                self._refresher.first_look(day)
        return day

    def close(self) -> None:
        """Stop looking."""
        self._refresher.close()

    def after_fork_in_child(self) -> None:
        """The child knows nothing: what its parent has not written is the parent's."""
        self._lock = threading.Lock()
        for day in self._days.values():
            day.leave()
        self._days = {}
        self._observer.after_fork_in_child()
        self._prices.after_fork_in_child()
        self._refresher.after_fork_in_child()

    # -- budgets

    def _budget(self, org_id: str, app_id: str | None) -> ScopeBudget:
        known = self._known.get((org_id, app_id))
        if known is None:
            try:
                known = self._budgets.scope(org_id, app_id, keywords=self._keywords)
            except ConfigError as exc:
                # Without a file the items say it all; without an app the org's item may say quota_scope: ORG.
                if self._has_file and app_id is not None:
                    raise
                known = self._budget_from_table(org_id, app_id, exc)
            self._known[org_id, app_id] = known
        return known

    def _budget_from_table(self, org_id: str, app_id: str | None, mistake: ConfigError) -> ScopeBudget:
        if id_problem(org_id) or (app_id is not None and id_problem(app_id)):
            raise mistake
        # Which day it is depends on the budget's time zone, so the items are asked for without a day's state.
        epoch = self._clock.now().timestamp()
        try:
            controls = self._store.read_controls(org_id, app_id, scope=f"ORG#{org_id}", day="0", now_epoch=epoch)
            self._registered.refresh(org_id, app_id)
        except StoreError:
            if self._has_file:
                raise mistake from None
            raise
        if controls.org_item is None:
            if self._has_file:
                raise mistake
            raise ConfigError(
                f"org {org_id!r} has no configuration: give config= (a path or a mapping), set $BEDROCK_BUDGET_CONFIG, "
                f"or put the org's item (org_key ORG#{org_id}, resource_key #) into the Config table"
            ) from None
        return self._resolve(org_id, app_id, controls)

    def _budget_under(self, day: ScopeDay, controls: Controls) -> ScopeBudget:
        budget = self._resolve(day.org_id, day.app_id, controls)
        self._known[day.org_id, day.app_id] = budget
        self.profiles.resolve(_model_ids(budget), wait_secs=LOOKUP_SECS if day.looked else FIRST_LOOKUP_SECS)
        return budget

    def _renewed(self, day: ScopeDay) -> bool:
        """Bring up to date what a snapshot rests on beside the controls: whether a new one has to be made. Raises
        StoreError."""
        self._registered.refresh(day.org_id, day.app_id)
        snapshot = day.snapshot
        # A first look is waited for by a call, which has waited for what its models stand for already.
        self.profiles.resolve(_model_ids(snapshot.budget), wait_secs=LOOKUP_SECS if day.looked else 0.0)
        used = {label.label: label.model_id for label in snapshot.budget.labels.values() if label.registered}
        return used != self._registered.labels(day.org_id, day.app_id) or any(
            route.equivalent != (found := self.profiles.equivalent(route.model_id)) and found is not None
            for route in snapshot.routes.values()
        )

    def _resolve(self, org_id: str, app_id: str | None, controls: Controls) -> ScopeBudget:
        return self._budgets.scope(
            org_id,
            app_id,
            org_item=controls.org_item,
            app_item=controls.app_item,
            keywords=self._keywords,
            profiles=self._registered.labels(org_id, app_id),
        )

    # -- days

    def _today(self, scope: Scope, now: datetime) -> ScopeDay:
        budget = self._budget(scope.org_id, scope.app_id)
        key = (scope.org_id, scope.app_id)
        bundled()  # read before anybody could wait for the lock
        self.profiles.resolve(_model_ids(budget))  # as is this asked
        with self._lock:
            before = self._days.get(key)
            if before is None or not before.starts_at <= now < before.ends_at:
                day = ScopeDay(*key, org_day(now, budget.timezone))
                day.snapshot = self._snapshot(budget, day)
                if before is not None:
                    day.follow(before)
                day.trusted = key in self._looked_at
                self._days[key] = before = day
            scope.day = before
            return before

    def _snapshot(self, budget: ScopeBudget, day: ScopeDay) -> Snapshot:
        day.prices_version = self._prices.version  # first: prices that change meanwhile are bound by the next look
        return snapshot_of(
            budget,
            day.day,
            price_of=self._price_of,
            account_of=self._meter.account,
            listed_price=self.listed_price,
            worst_case_of=self.worst_case_of,
            profiles=self.profiles,
            pool_of=self._pools.pool,
        )

    def _look(self, day: ScopeDay) -> None:
        self._observer.look(day)
        if day.error is None:
            self._looked_at.add((day.org_id, day.app_id))
            self._pools.tend()

    def _look_again_where_surprised(self) -> None:
        with self._lock:
            days = list(self._days.values())
        for day in days:
            if day.is_surprised():
                self._refresher.bring_forward(day)
        self._pools.tend()  # calls may end long after anybody looks for their scope

    def _forget(self, day: ScopeDay) -> None:
        day.leave()
        self._pools.forget(day.snapshot.pools)
        with self._lock:
            if self._days.get((day.org_id, day.app_id)) is day and not (day.degraded or day.unwritten()):
                del self._days[day.org_id, day.app_id]  # else the day to follow has to know what was spent blind

    def check_store_error(self, day: ScopeDay) -> None:
        """Whether calls may go on although the store cannot be read or written.

        Raises StoreError where ``on_store_error`` says no or the store was never set up, ConfigError for a mistake in
        a Config item.
        """
        error = day.error
        if isinstance(error, ConfigError) or (isinstance(error, StoreSetupError) and not self._looked_at):
            raise error
        policy = day.snapshot.budget.settings.on_store_error
        what = error or self._meter.error
        if policy == "open" or what is None:  # None: it has come back just now
            return
        if policy == "closed":
            raise StoreError(f"the budget store cannot be used, and on_store_error is 'closed': {what}") from what
        blind = day.blind_pico_usd() if error is not None else day.unwritten_pico_usd()
        if blind >= policy * PICO_PER_MICRO:
            raise StoreError(
                f"the budget store cannot be used, and this process has spent {usd_text(blind)} without it: "
                f"on_store_error allows {usd_text(policy * PICO_PER_MICRO)}. The store says: {what}"
            ) from what

    def check_looked(self, day: ScopeDay) -> None:
        """Whether the limits of the day are known, which the Config table may have set below the file's.

        Raises StoreError if no look has succeeded.
        """
        if not day.looked:
            raise StoreError(
                f"strict enforcement needs the Config items of {day.snapshot.budget.scope}, and the budget store "
                f"cannot be read: {day.error}"
            ) from day.error

    # -- prices

    def _price_of(self, label: ModelLabel, on: date) -> Price | None:
        listed = self.listed_price(label.model_id, on)
        return listed if label.price is None else label.price.over(listed)

    def _prices_version(self, day: ScopeDay) -> int:
        """The version of the prices of a day's labels, read again if that is due."""
        labels = day.snapshot.budget.labels.values()
        known = [self.profiles.equivalent(label.model_id) for label in labels]
        self._prices.read_when_due(model_id for each in known if each is not None for model_id in each.model_ids)
        return self._prices.version

    def worst_case_of(self, label: ModelLabel, price: Price) -> WorstCase | WorstOf:
        """The worst case of a label's calls at a price."""
        stands_for = self.profiles.equivalent(label.model_id)
        cases = [
            WorstCase(
                model_id,
                price,
                bundled().limits(model_id),
                context_window_tokens=label.context_window_tokens,
                max_output_tokens=label.max_output_tokens,
            )
            for model_id in (stands_for.model_ids if stands_for else (label.model_id,))
        ]
        return cases[0] if len(cases) == 1 else WorstOf(cases)

    def listed_price(self, model_id: str, on: date) -> Price | None:
        """The listed price of a model on a day, as far as it has been fetched or is bundled; None if there is none. Of
        a prompt router the dearest of the models that it chooses from."""
        stands_for = self.profiles.equivalent(model_id)
        if stands_for is None:
            return None
        opaque = stands_for.model_ids != (model_id,)
        region = (stands_for.region or self._region) if opaque else self._region
        rows = [self._prices.find(each, on=on, region=region) for each in stands_for.model_ids]
        prices: list[Price] = [row.prices for row in rows if row is not None]
        if len(prices) < len(rows):
            return None
        return prices[0] if len(prices) == 1 else dearest(prices)


def _model_ids(budget: ScopeBudget) -> list[str]:
    return [label.model_id for label in budget.labels.values()]

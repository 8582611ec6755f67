"""One look at the store for one scope: controls, spend, the sticky state, and when to look again.

The store is asked first and the scope changed afterwards, so a look that fails half-way changes nothing.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from math import inf
from time import monotonic  # how long a store takes is real time, whatever the clock of the org days says
from typing import Any

from .clock import Clock
from .core.account import Account
from .core.budget import UNLABELLED, ScopeBudget
from .core.errors import ConfigError, StoreError
from .core.keys import UsageKey
from .core.money import usd_text
from .core.refresh import CONTROLS_SECS, SHORTEST_SECS, look_at_shards, next_look_secs, total_is_stale
from .core.selection import mode_of, sticky_target
from .meter import Meter
from .scopes import Route, ScopeDay, Snapshot
from .stores.contract import Controls, ShardSum, Sticky, Store
from .suspension import left_before_stop, note_stop, with_automatic_stop

log = logging.getLogger("bedrock_budget")

BudgetOf = Callable[[ScopeDay, Controls], ScopeBudget]
SnapshotOf = Callable[[ScopeBudget, ScopeDay], Snapshot]
Items = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]  # the Config items of an org and app

#: A look that is overdue by its interval and this is not waited for any longer by the clock: the process was frozen.
OVERDUE_SECS = 5.0
#: A look that takes longer than this says that the store is slow.
SLOW_SECS = 1.0
#: A failed look speaks for the others for so long: the pause after it, and a little.
FAILED_SECS = CONTROLS_SECS + 5.0
#: Between two warnings of looks that fail, over all scopes; the rest are logged at DEBUG.
WARN_SECS = 60.0
#: Sticky items outlive their day by this much (schema specification, "StickyState TTL").
STICKY_TTL_SECS = 3600


class Observer:
    """Looks at a store on behalf of scopes."""

    def __init__(
        self, store: Store, meter: Meter, clock: Clock, *, budget_of: BudgetOf, snapshot_of: SnapshotOf
    ) -> None:
        self._store = store
        self._meter = meter
        self._clock = clock
        self._budget_of = budget_of
        self._snapshot_of = snapshot_of
        self._failure: Exception | None = None  # why the last look of any scope failed
        self._failed_at = -inf
        self._warned_at = -inf
        self._under_way: dict[ScopeDay, float] = {}  # since when

    def trouble(self) -> Exception | None:
        """Why looks are late, if the store is the reason: the last one failed, or one takes long."""
        if self._failure is not None and monotonic() - self._failed_at < FAILED_SECS:
            return self._failure
        if any(monotonic() - since > SLOW_SECS for since in list(self._under_way.values())):
            return TimeoutError(f"the store has not answered for {SLOW_SECS:g} s")
        return None

    def after_fork_in_child(self) -> None:
        """The looks under way are the parent's."""
        self._under_way = {}

    def look(self, scope: ScopeDay) -> None:
        """Bring a scope up to date. Never raises: what went wrong is in ``scope.error``, and a next look is due."""
        now = self._clock.now()
        if not scope.asked and now < scope.fresh_until:  # under way: if the store hangs, calls do not wait for it
            scope.fresh_until = min(max(scope.fresh_until, now + timedelta(seconds=CONTROLS_SECS)), scope.ends_at)
        self._under_way[scope] = monotonic()
        try:
            self._look(scope)
        except Exception as exc:
            scope.failed(exc)
            self._failed(scope, exc)
            pause = min(SHORTEST_SECS * 2 ** min(scope.failures, 10), CONTROLS_SECS)
            scope.due_at = self._clock.monotonic() + pause
        else:
            if scope.failures:
                level = logging.DEBUG if self._failure is None else logging.WARNING
                log.log(level, "the budget of %s can be read again", scope.snapshot.budget.scope)
            self._failure = None
            scope.succeeded()
            # A process that was frozen comes back overdue: its next call waits for a look.
            secs = scope.due_at - self._clock.monotonic() + (scope.interval_secs or 0.0) + OVERDUE_SECS
            scope.fresh_until = min(self._clock.now() + timedelta(seconds=secs), scope.ends_at)
        finally:
            self._under_way.pop(scope, None)
            scope.tried.set()  # first: who finds nothing asked for asks again
            scope.asked = False

    def _failed(self, scope: ScopeDay, exc: Exception) -> None:
        now = monotonic()
        warn = now - self._warned_at >= WARN_SECS or not isinstance(exc, StoreError)
        if isinstance(exc, StoreError):
            warn = warn or self._failure is None
            self._failure = exc
            self._failed_at = now
        if warn:
            self._warned_at = now
        level = logging.WARNING if warn else logging.DEBUG
        log.log(level, "cannot read the budget of %s: %s", scope.snapshot.budget.scope, exc)

    def _look(self, scope: ScopeDay) -> None:
        now = self._clock.now()
        begun = self._clock.monotonic()
        budget = scope.snapshot.budget
        controls = self._store.read_controls(
            scope.org_id, scope.app_id, scope=budget.scope, day=scope.day.name, now_epoch=now.timestamp()
        )
        snapshot = self._with_controls(scope, controls)
        if snapshot.budget.timezone_name != budget.timezone_name or snapshot.budget.scope != budget.scope:
            scope.leave()
            return  # its next call enters another day or scope
        if snapshot.stop is not None:  # at once, whatever becomes of the rest of the look
            stopped = scope.snapshot.with_stop(snapshot.stop)
            if scope.looked:  # who starts into a stop hears of it from its calls
                note_stop(scope.snapshot.stop, stopped)
            scope.snapshot = stopped
        items = (controls.org_item, controls.app_item)
        # Who asks has not looked for a while, however little of it a clock that stands still in suspension shows.
        if begun >= scope.spend_due_at or not scope.looked or scope.asked:
            was_due = scope.sticky_is_due
            self._read_spend(scope, snapshot)
            snapshot = self._advance_sticky(scope, snapshot, items)
            snapshot = self._with_automatic_stop(scope, snapshot, items)
            self._show(scope, snapshot)
            self._schedule(scope, snapshot, begun, was_due=was_due)
        else:
            self._show(scope, self._with_automatic_stop(scope, snapshot, items))
        scope.items = items
        scope.due_at = min(scope.spend_due_at, begun + CONTROLS_SECS)

    @staticmethod
    def _show(scope: ScopeDay, snapshot: Snapshot) -> None:
        """Have calls decided by a new snapshot."""
        note_stop(scope.snapshot.stop, snapshot)
        scope.snapshot = snapshot

    def _with_controls(self, scope: ScopeDay, controls: Controls) -> Snapshot:
        snapshot = scope.snapshot
        items = (controls.org_item, controls.app_item)
        if scope.items != items and (scope.items is not None or any(items)):
            try:
                snapshot = self._snapshot_of(self._budget_of(scope, controls), scope)
            except ConfigError as exc:
                if not (scope.looked or scope.trusted):
                    raise
                log.error("keeping the last good budget: %s", exc)
        override = controls.override
        if override is not None and override.label not in snapshot.routes and override != scope.snapshot.override:
            log.error("the override of %s names an unknown label: %r", snapshot.budget.scope, override.label)
        sticky = controls.sticky if snapshot.budget.sticky_fallback_enabled else None
        return snapshot.with_controls(controls.override, sticky, controls.stop)

    def _with_automatic_stop(self, scope: ScopeDay, snapshot: Snapshot, items: Items) -> Snapshot:
        return with_automatic_stop(
            scope,
            snapshot,
            store=self._store,
            now=self._clock.now(),
            read_shards=self._read_shards,
            still_configured=lambda: self._is_configured_by(scope, items),
        )

    def _is_configured_by(self, scope: ScopeDay, items: Items) -> bool:
        """Whether the Config items are those that a look rests on: an operator may have raised a quota meanwhile, and
        what is decided for the rest of the day must not rest on the old one."""
        now_epoch = self._clock.now().timestamp()
        budget = scope.snapshot.budget
        controls = self._store.read_controls(
            scope.org_id, scope.app_id, scope=budget.scope, day=scope.day.name, now_epoch=now_epoch, consistent=True
        )
        return items == (controls.org_item, controls.app_item)

    # -- spend

    def _read_spend(self, scope: ScopeDay, snapshot: Snapshot) -> None:
        intervals = scope.intervals
        interval = scope.interval_secs or 0.0
        shards: list[Route] = []
        totals: list[Route] = []
        for route in self._routes_to_read(scope, snapshot):
            quota = route.quota_pico_usd
            if not scope.looked or (
                quota is not None
                and look_at_shards(intervals, interval, spend_pico_usd=route.account.spend, quota_pico_usd=quota)
            ):
                shards.append(route)
            else:
                totals.append(route)
        shards += self._read_totals(scope, totals)
        accounts = [route.account for route in shards]
        if snapshot.budget.stop_at_pct is not None:
            accounts += [account for account in snapshot.accounts if account.key.label == UNLABELLED]
        if accounts:
            self._read_shards(accounts)

    def _routes_to_read(self, scope: ScopeDay, snapshot: Snapshot) -> list[Route]:
        """The labels a call may still go to; at the first look, all. Outside the ordering, those with a quota. Where
        the sum of all labels counts, all."""
        if not scope.looked or snapshot.budget.stop_at_pct is not None:
            return list(snapshot.routes.values())
        others = [
            route for route in snapshot.routes.values() if route.position is None and route.quota_pico_usd is not None
        ]
        return [*snapshot.chain[snapshot.sticky :], *others]

    def _read_totals(self, scope: ScopeDay, routes: Sequence[Route]) -> list[Route]:
        """Take the daily totals. Returns the routes whose total is too old to decide from."""
        if not routes:
            return []
        found = self._store.read_totals([route.account.key for route in routes])
        now_epoch = self._clock.now().timestamp()
        stale: list[Route] = []
        for route in routes:
            total = found.get(route.account.key)
            updated = None if total is None else total.updated_at_epoch
            if (route.quota_pico_usd is not None or scope.snapshot.budget.stop_at_pct is not None) and total_is_stale(
                scope.intervals, now_epoch=now_epoch, updated_at_epoch=updated
            ):
                stale.append(route)
            elif total is not None:
                with self._meter.lock:
                    route.account.saw_total(total.amounts.cost_pico_usd, total.updated_at_epoch)
        return stale

    def _read_shards(self, accounts: Sequence[Account]) -> dict[UsageKey, ShardSum]:
        begun = self._meter.begin_look()
        writer_id = self._meter.writer_id
        sums = self._store.read_shards({each.key: each.shard_count for each in accounts}, writer_id=writer_id)
        with self._meter.lock:
            for account in accounts:
                found = sums[account.key]
                account.saw_shards(found.amounts.cost_pico_usd, found.writer_sequence, begun)
        return dict(sums)

    # -- the sticky state

    def _advance_sticky(self, scope: ScopeDay, snapshot: Snapshot, items: Items) -> Snapshot:
        """Move the sticky state on if the label it stands on, and all before it, are over by their shards."""
        start = snapshot.chain[snapshot.sticky]
        quota = start.quota_pico_usd
        if not snapshot.budget.sticky_fallback_enabled or quota is None or start.account.spend < quota:
            scope.sticky_is_due = False
            return snapshot
        accounts = [route.account for route in snapshot.chain]
        sums = self._read_shards(accounts)
        settled = [sums[account.key].amounts.cost_pico_usd for account in accounts]
        target = sticky_target(snapshot.chain, settled, snapshot.sticky)
        if target is None:
            scope.sticky_is_due = not all(
                each.quota_pico_usd is not None and cost >= each.quota_pico_usd
                for each, cost in zip(snapshot.chain, settled, strict=True)
            )
            return snapshot
        scope.sticky_is_due = not self._is_configured_by(scope, items)
        if scope.sticky_is_due:  # the next look, which is soon, will know
            return snapshot
        sticky = self._store.advance_sticky(
            snapshot.budget.scope,
            scope.day.name,
            Sticky(
                label=snapshot.chain[target].label,
                position=target,
                reason="QUOTA_EXCEEDED",
                previous_label=snapshot.chain[target - 1].label,
                activated_at_epoch=int(self._clock.now().timestamp()),
                expires_at_epoch=int(scope.day.ends_at.timestamp()) + STICKY_TTL_SECS,
            ),
        )
        log.info(
            "%s has used up %s on %s: now %s until %s",
            snapshot.budget.scope,
            snapshot.chain[target - 1].label,
            usd_text(settled[target - 1]),
            sticky.label,
            scope.day.ends_at.isoformat(),
        )
        return snapshot.with_controls(snapshot.override, sticky, snapshot.stop)

    # -- when to look again

    def _schedule(self, scope: ScopeDay, snapshot: Snapshot, begun: float, *, was_due: bool) -> None:
        for route in snapshot.routes.values():
            spend = route.account.spend
            before = scope.seen.get(route.label)
            if before is not None and begun > before[1]:
                scope.rates[route.label] = (spend - before[0]) / (begun - before[1])
            scope.seen[route.label] = (spend, begun)
        in_use = self._in_use(scope, snapshot)
        previous = scope.interval_secs
        remaining: int | None = None
        rate = 0.0
        tight = not in_use
        if not in_use:  # all used up: only an operator or midnight can change that
            previous = CONTROLS_SECS
        secs_left = inf
        for route in in_use:
            quota = route.quota_pico_usd
            if quota is None:
                continue
            spend = route.account.spend
            tight = tight or mode_of(spend, quota, snapshot.budget.tight_mode_threshold_pct) == "tight"
            its_rate = scope.rates.get(route.label, 0.0)
            if its_rate > 0 and (quota - spend) / its_rate < secs_left:
                remaining, rate = quota - spend, its_rate
                secs_left = remaining / rate
        before_stop = left_before_stop(scope, snapshot)
        if before_stop is not None and before_stop[0] / before_stop[1] < secs_left:
            remaining, rate = before_stop
        if scope.sticky_is_due and not was_due:  # the shards will show soon what effective spend already does
            previous = SHORTEST_SECS / 2
        scope.interval_secs = next_look_secs(
            scope.intervals, previous, tight=tight, remaining_pico_usd=remaining, rate_pico_usd_per_sec=rate
        )
        scope.spend_due_at = begun + scope.interval_secs
        scope.expected = {label: max(rate, 0.0) * scope.interval_secs for label, rate in scope.rates.items()}

    def _in_use(self, scope: ScopeDay, snapshot: Snapshot) -> list[Route]:
        """The label in force, and others with quota left that calls have asked for since the look before."""
        left = [
            route
            for route in snapshot.routes.values()
            if (route.position is None or route.position >= snapshot.sticky)
            and (route.quota_pico_usd is None or route.account.spend < route.quota_pico_usd)
        ]
        in_force = next((route for route in left if route.position is not None), None)
        return [route for route in left if route is in_force or scope.rates.get(route.label, 0.0) > 0]

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
from .core.budget import ScopeBudget
from .core.errors import ConfigError, StoreError
from .core.keys import UsageKey
from .core.money import usd_text
from .core.refresh import CONTROLS_SECS, SHORTEST_SECS, Intervals, total_is_stale
from .core.selection import sticky_target
from .meter import Meter
from .scopes import ScopeDay
from .snapshots import Cap, Route, Snapshot
from .stores.contract import Controls, ShardSum, Sticky, Store
from .suspension import note_stop, with_automatic_stop

log = logging.getLogger("bedrock_budget")

BudgetOf = Callable[[ScopeDay, Controls], ScopeBudget]
SnapshotOf = Callable[[ScopeBudget, ScopeDay], Snapshot]
Items = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]  # the Config items of an org and app

#: A call waits for a look that is overdue by this, unless the store is in trouble: the process was frozen. So no call
#: goes by controls that are older than `CONTROLS_SECS` and this.
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
        self,
        store: Store,
        meter: Meter,
        clock: Clock,
        *,
        budget_of: BudgetOf,
        snapshot_of: SnapshotOf,
        prices_version: Callable[[ScopeDay], int] = lambda _: 0,
        renewed: Callable[[ScopeDay], bool],
    ) -> None:
        self._store = store
        self._meter = meter
        self._clock = clock
        self._budget_of = budget_of
        self._snapshot_of = snapshot_of
        self._prices_version = prices_version
        self._renewed = renewed  # whether a budget is new for another reason than its Config items
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
            secs = scope.due_at - self._clock.monotonic() + OVERDUE_SECS
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
        if controls.stop is not None:  # at once, whatever becomes of the rest of the look
            stopped = scope.snapshot.with_stop(controls.stop)
            if scope.looked:  # who starts into a stop hears of it from its calls
                note_stop(scope.snapshot.stop, stopped)
            scope.snapshot = stopped
        snapshot = self._with_controls(scope, controls, renewed=self._renewed(scope))
        if snapshot.budget.timezone_name != budget.timezone_name or snapshot.budget.scope != budget.scope:
            scope.leave()
            return  # its next call enters another day or scope
        items = (controls.org_item, controls.app_item)
        # Who asks has not looked for a while, however little of it a clock that stands still in suspension shows.
        if begun >= scope.schedule.due_at_secs or not scope.looked or scope.asked:
            snapshot = self._look_at_spend(scope, snapshot, items, begun)
        else:
            snapshot = self._with_automatic_stop(scope, snapshot, items)
        self._show(scope, snapshot)
        scope.items = items
        scope.due_at = min(scope.schedule.due_at_secs, begun + CONTROLS_SECS)

    @staticmethod
    def _show(scope: ScopeDay, snapshot: Snapshot) -> None:
        """Have calls decided by a new snapshot."""
        note_stop(scope.snapshot.stop, snapshot)
        scope.snapshot = snapshot

    def _with_controls(self, scope: ScopeDay, controls: Controls, *, renewed: bool) -> Snapshot:
        snapshot = scope.snapshot
        items = (controls.org_item, controls.app_item)
        changed = renewed or (scope.items != items and (scope.items is not None or any(items)))
        version = self._prices_version(scope)  # may read the store, which has just answered
        if changed or scope.prices_version != version:
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

    def _look_at_spend(self, scope: ScopeDay, snapshot: Snapshot, items: Items, begun: float) -> Snapshot:
        """Read what the schedule asks for, move the sticky state on if it is time, and schedule the next look."""
        intervals = snapshot.intervals
        watched = snapshot.watched
        read: set[str] = set()
        while True:
            shards, totals = scope.schedule.to_read(intervals, watched, snapshot.sticky)
            shards = [each for each in shards if each.label not in read]
            totals = [each for each in totals if each.label not in read]
            if not shards and not totals:
                break
            read.update(each.label for each in (*shards, *totals))
            shards += self._read_totals(intervals, totals)
            if shards:
                self._read_shards([account for each in shards for account in each.accounts])
        sticky_is_due = False
        if self._sticky_is_over(snapshot):
            read.update(route.label for route in snapshot.chain)
            snapshot, sticky_is_due = self._advance_sticky(scope, snapshot, items)
        snapshot = self._with_automatic_stop(scope, snapshot, items)
        scope.schedule = scope.schedule.after_look(
            intervals, watched, read, begun_secs=begun, sticky=snapshot.sticky, sticky_is_due=sticky_is_due
        )
        return snapshot

    def _read_totals(self, intervals: Intervals, watched: Sequence[Route | Cap]) -> list[Route | Cap]:
        """Take the daily totals. Returns what of it is too old to decide from."""
        if not watched:
            return []
        found = self._store.read_totals({account.key for each in watched for account in each.accounts})
        now_epoch = self._clock.now().timestamp()
        stale: list[Route | Cap] = []
        for each in watched:
            totals = [(account, found.get(account.key)) for account in each.accounts]
            if each.quota_pico_usd is not None and any(
                total_is_stale(intervals, now_epoch=now_epoch, updated_at_epoch=total and total.updated_at_epoch)
                for _, total in totals
            ):
                stale.append(each)
                continue
            with self._meter.lock:
                for account, total in totals:
                    if total is not None:
                        account.saw_total(total.amounts.cost_pico_usd, total.updated_at_epoch)
        return stale

    def _read_shards(self, accounts: Sequence[Account]) -> dict[UsageKey, ShardSum]:
        begun = self._meter.begin_look()
        writer_id = self._meter.writer_id
        sums = self._store.read_shards({each.key: each.shard_count for each in accounts}, writer_id=writer_id)
        with self._meter.lock:
            for account in dict.fromkeys(accounts):
                found = sums[account.key]
                account.saw_shards(found.amounts.cost_pico_usd, found.writer_sequence, begun)
        return dict(sums)

    # -- the sticky state

    @staticmethod
    def _sticky_is_over(snapshot: Snapshot) -> bool:
        """Whether the label that the sticky state stands on is over its quota by its effective spend."""
        start = snapshot.chain[snapshot.sticky]
        quota = start.quota_pico_usd
        return snapshot.budget.sticky_fallback_enabled and quota is not None and start.account.spend >= quota

    def _advance_sticky(self, scope: ScopeDay, snapshot: Snapshot, items: Items) -> tuple[Snapshot, bool]:
        """Move the sticky state on if the label it stands on, and all before it, are over by their shards. Also:
        whether that is still to come, because the shards do not show it yet."""
        accounts = [route.account for route in snapshot.chain]
        sums = self._read_shards(accounts)
        settled = [sums[account.key].amounts.cost_pico_usd for account in accounts]
        target = sticky_target(snapshot.chain, settled, snapshot.sticky)
        if target is None:
            return snapshot, not all(
                each.quota_pico_usd is not None and cost >= each.quota_pico_usd
                for each, cost in zip(snapshot.chain, settled, strict=True)
            )
        if not self._is_configured_by(scope, items):
            return snapshot, True  # the next look, which is soon, will know
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
        return snapshot.with_controls(snapshot.override, sticky, snapshot.stop), False

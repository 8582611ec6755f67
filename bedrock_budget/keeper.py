"""The keeper: decide before a call, settle after it. Shared by all the views of a client.

The way of one call: `admit` (the label asked for -> a decision from cached totals -> a `Call`), then the service,
then the `Call` settles (usage -> cost -> account -> record). With warm caches neither does I/O.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from time import monotonic  # waiting is in real time, whatever the clock of the org days says
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ParamValidationError
from cachetools import LRUCache

from . import lifecycle
from .call import Call
from .clock import Clock
from .core.budget import AUTO, UNLABELLED, ScopeBudget
from .core.budget_rules import Budgets
from .core.keys import UsageKey
from .core.money import micros_half_up
from .core.pricing import Price
from .core.selection import Fits, Mode, Refusal, select
from .draining import Drainer
from .explanation import explain
from .known_scopes import KnownScopes, Scope
from .meter import CLOSE_SECS, Meter
from .record import Decision, LabelStatus
from .refusals import exhausted, not_portable, stopped, unknown_model, unknown_price
from .scopes import Route, ScopeDay, Snapshot
from .status import read_status, route_in_force
from .stores.contract import Store

if TYPE_CHECKING:
    from .journal.journal import Journal

MAX_UNLABELLED_PRICES = 512


class Keeper:
    """See the module's text."""

    def __init__(
        self,
        store: Store,
        budgets: Budgets | None,
        clock: Clock,
        *,
        keywords: Mapping[str, Any],
        region: str | None,
        sync: bool = False,
        transactions: bool = False,
        journal: "Journal | None" = None,
        drain_abandoned: bool = True,
    ) -> None:
        self.store = store
        self.clock = clock
        self.drainer = Drainer() if drain_abandoned else None
        self.meter = Meter(store, clock, sync=sync, transactions=transactions, journal=journal)
        self.scopes = KnownScopes(store, self.meter, budgets, clock, keywords=keywords, region=region)
        self._region = region
        self._prices: LRUCache[tuple[str, date], Price | None] = LRUCache(MAX_UNLABELLED_PRICES)
        self._prices_lock = threading.Lock()
        self._used = False
        lifecycle.register(self)  # a fork may come before the first call

    # -- deciding

    def admit(
        self, scope: Scope, asked: object, operation: str, request: Mapping[str, Any], fixed_body: bool = False
    ) -> Call:
        """Decide where a call goes.

        ``asked``: its ``modelId``. ``fixed_body``: its ``invoke_model`` body fits one request format only.
        Raises BudgetStopped, UnknownModel, UnknownPrice, BodyNotPortable, BudgetExhausted, StoreError, ConfigError, and
        botocore's ParamValidationError for a ``modelId`` that is not text.
        """
        meter = self.meter
        if meter.deferred:
            meter.run_deferred()
        now = self.clock.now()
        day = scope.day
        if day is None or not day.starts_at <= now < day.fresh_until:
            day = self._ready(scope, now)
        day.used_at = now
        degraded = day.error is not None or meter.error is not None
        if degraded:
            self.scopes.check_store_error(day)
        snapshot = day.snapshot
        if snapshot.stop is not None and (stop := snapshot.stop_at(now)):
            raise stopped(meter, day, stop, asked, operation, degraded)
        if asked is None or asked == AUTO:
            first = snapshot.chain[0]
            explicit = False
        else:
            if not isinstance(asked, str):
                given = f"value: {asked!r}, type: {type(asked)}, valid types: {str}"
                raise ParamValidationError(report=f"Invalid type for parameter modelId, {given}")
            found = snapshot.by_asked.get(asked)
            if found is None:
                return self._admit_unlabelled(day, snapshot, asked, degraded, request)
            first = found
            explicit = True
        chain: Sequence[Route] = snapshot.chain
        override: Route | None = None
        fits: Fits | None = None
        if first.position is None:
            chain = (first,)
            outcome = select(chain, 0, True, serve_last=snapshot.serve_last)
        else:
            if snapshot.override is not None:
                override = snapshot.override_at(now)
            if fixed_body and (override is not None or not snapshot.one_format):
                fits = first.fits
            outcome = select(chain, first.position, explicit, snapshot.sticky, override, fits, snapshot.serve_last)
        if isinstance(outcome, Refusal):
            raise self._refused(outcome, day, chain, first, override, operation, degraded)
        route = chain[outcome.place] if outcome.place >= 0 else override
        assert route is not None
        price = route.price
        if price is None:
            price = self._price_anyway(snapshot.budget, route.label, route.model_id)
        account = route.account
        mode: Mode = "tight" if account.spend >= route.tight_at else "normal"
        return Call(
            meter,
            account,
            route,
            price,
            snapshot,
            request,
            route.label,
            route.model_id,
            first.label,
            outcome.reason,
            mode,
            day.day.name,
            degraded,
        )

    def _ready(self, scope: Scope, now: datetime) -> ScopeDay:
        if not self._used:
            self._used = True
            lifecycle.register(self)
            self.meter.begin()
        return self.scopes.ready(scope, now)

    def _admit_unlabelled(
        self, day: ScopeDay, snapshot: Snapshot, model_id: str, degraded: bool, request: Mapping[str, Any]
    ) -> Call:
        budget = snapshot.budget
        if budget.settings.on_unknown_model == "reject":
            raise unknown_model(model_id, snapshot)
        on = day.day.starts_at.date()
        with self._prices_lock:
            if (model_id, on) not in self._prices:
                self._prices[model_id, on] = self.scopes.listed_price(model_id, on)
            price = self._prices[model_id, on]
        if price is None:
            price = self._price_anyway(budget, UNLABELLED, model_id)
        account = self.meter.account(UsageKey(budget.scope, UNLABELLED, day.day.name), budget.shard_count)
        asked_and_served = (UNLABELLED, model_id, UNLABELLED)
        return Call(
            self.meter,
            account,
            None,
            price,
            snapshot,
            request,
            *asked_and_served,
            "unlabelled",
            "normal",
            day.day.name,
            degraded,
        )

    def _price_anyway(self, budget: ScopeBudget, label: str, model_id: str) -> Price | None:
        """What ``on_unknown_price`` says of a model without a price; None to track it at cost 0."""
        policy = budget.settings.on_unknown_price
        if policy == "reject":
            raise unknown_price(label, model_id, self._region)
        return None if policy == "track" else policy

    def _refused(
        self,
        refusal: Refusal,
        day: ScopeDay,
        chain: Sequence[Route],
        first: Route,
        override: Route | None,
        operation: str,
        degraded: bool,
    ) -> Exception:
        if refusal.kind == "not_portable":
            skipped = [chain[place] if place >= 0 else override for place in refusal.skipped]
            return not_portable(first, [route for route in skipped if route])
        nowhere = (None, None, first.label)
        call = Call(
            self.meter,
            first.account,
            None,
            None,
            day.snapshot,
            {},
            *nowhere,
            "exhausted",
            "tight",
            day.day.name,
            degraded,
        )
        return exhausted(call, day, chain[first.position or 0 :] if len(chain) > 1 else chain, operation)

    # -- asking

    def decide(self, scope: Scope, asked: str | None) -> Decision:
        """What `admit` would do now, explained. Raises what it would raise."""
        return self.decision_of(self.admit(scope, asked, "Decide", {}))

    def decision_of(self, call: Call) -> Decision:
        """The decision of an admitted call."""
        quota = call.route.quota_pico_usd if call.route else None
        spend = call.account.spend
        record = call.record
        return Decision(
            label=record["label"],
            model_id=record["model_id"],
            label_asked=record["label_asked"],
            reason=record["reason"],
            mode=record["mode"],
            org_day=record["org_day"],
            spend_usd_micros=micros_half_up(spend),
            quota_usd_micros=None if quota is None else micros_half_up(quota),
            degraded=record["degraded"],
            explanation=explain(call),
        )

    def model_id_for_counting(self, scope: Scope, asked: object) -> object:
        """The model id that ``count_tokens`` is sent to: a label's, the label in force, or ``asked`` unchanged."""
        now = self.clock.now()
        snapshot = self._ready(scope, now).snapshot
        if asked is not None and asked != AUTO:
            route = snapshot.by_asked.get(asked) if isinstance(asked, str) else None
            return route.model_id if route else asked
        return (route_in_force(snapshot, now) or snapshot.chain[0]).model_id

    def status(self, scope: Scope) -> list[LabelStatus]:
        """Every label of the ordering, read fresh. Raises StoreError if the store cannot be read, ConfigError for a
        mistake in a Config item."""
        self.meter.run_deferred()
        now = self.clock.now()
        return read_status(self._ready(scope, now), now, self.store, self.meter)

    # -- the end

    def flush(self, timeout: float | None = None) -> bool:
        """Write all usage metered so far, that of streams being drained included. False if that takes longer."""
        deadline = None if timeout is None else monotonic() + timeout
        self.meter.run_deferred()
        drained = self.drainer is None or self.drainer.wait(timeout)
        return self.meter.flush(None if deadline is None else max(deadline - monotonic(), 0.0)) and drained

    def close(self) -> None:
        """As `flush`, within `CLOSE_SECS`; then no more looks, and usage that comes later is written at once."""
        deadline = monotonic() + CLOSE_SECS
        self.scopes.close()
        self.meter.run_deferred()
        if self.drainer is not None:
            self.drainer.wait(CLOSE_SECS)
        self.meter.close(max(deadline - monotonic(), 0.0))

    def at_exit(self, timeout: float) -> None:
        if not self._used:  # never used in this process
            return
        if self.drainer is not None:
            self.drainer.take_no_more()
        self.meter.run_deferred()
        for stream in self.meter.open_streams():
            stream.abandon("stream_open")
        self.scopes.close()
        self.meter.close(timeout)

    def after_fork_in_child(self) -> None:
        self._prices_lock = threading.Lock()
        if self.drainer is not None:
            self.drainer.after_fork_in_child()
        self.scopes.after_fork_in_child()
        self.meter.after_fork_in_child()

"""The keeper: decide before a call, settle after it. Shared by all the views of a client.

The way of one call: `admit` (the label asked for -> a decision from cached totals -> a `Call`), then the service,
then the `Call` settles (usage -> cost -> account -> record). With warm caches neither does I/O.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from time import monotonic  # waiting is in real time, whatever the clock of the org days says
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ParamValidationError
from cachetools import LRUCache

from . import lifecycle
from .call import Call
from .clock import Clock
from .control_plane import ControlPlane, LookUp
from .core.budget import AUTO, UNLABELLED, ModelLabel, ScopeBudget
from .core.budget_rules import Budgets
from .core.keys import UsageKey
from .core.pricing import Price
from .core.selection import Fits, Mode, Refusal, select
from .draining import Drainer
from .explanation import decision_of
from .known_scopes import KnownScopes, Scope
from .meter import CLOSE_SECS, Meter
from .pool import Pool
from .pools import Pools
from .record import Decision, LabelStatus
from .refusals import (
    cost_limit,
    exhausted,
    exhausted_cap,
    not_portable,
    refused_call,
    stopped,
    unknown_model,
    unknown_price,
)
from .scopes import ScopeDay
from .shadow import admit_in_shadow
from .snapshots import Route, Snapshot
from .status import read_status, route_in_force
from .stores.contract import Store

if TYPE_CHECKING:
    from .journal.journal import Journal

MAX_UNLABELLED_ROUTES = 512

#: Gives the request of a call, with the body that its label takes.
MakeBody = Callable[[Call], Mapping[str, Any]]


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
        look_up: LookUp | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.drainer = Drainer() if drain_abandoned else None
        self.meter = Meter(store, clock, sync=sync, transactions=transactions, journal=journal)
        self.pools = Pools(store, self.meter, clock, journal=journal, keep_nothing=transactions)
        self.meter.settled_all = lambda: not self.pools.outstanding
        look_up = look_up or ControlPlane().look_up
        self.scopes = KnownScopes(
            *(store, self.meter, budgets, clock), keywords=keywords, region=region, pools=self.pools, look_up=look_up
        )
        self._region = region
        self._unlabelled_routes: LRUCache[tuple[UsageKey, str], Route] = LRUCache(MAX_UNLABELLED_ROUTES)
        self._unlabelled_lock = threading.Lock()
        self._used = False
        lifecycle.register(self)  # a fork may come before the first call

    # -- deciding

    def admit(
        self,
        scope: Scope,
        asked: object,
        operation: str,
        request: Mapping[str, Any],
        fixed_body: bool = False,
        make_body: MakeBody | None = None,
        max_cost_pico_usd: int | None = None,
        dry: bool = False,
        judging: bool = False,
    ) -> Call:
        """Decide where a call goes.

        ``asked``: its ``modelId``. ``fixed_body``: its ``invoke_model`` body fits one request format only.
        ``make_body`` gives the request with the body for a call's label, for each label tried. ``max_cost_pico_usd``:
        refuse it if it could cost more. ``dry``: nothing is held for it. ``judging``: decide as if the budget were
        enforced, though it is in shadow.
        Raises BudgetStopped, UnknownModel, UnknownPrice, BodyNotPortable, BudgetExhausted, CostLimitExceeded,
        StoreError, ConfigError, and botocore's ParamValidationError for a ``modelId`` that is not text.
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
        snapshot = day.snapshot
        if snapshot.real is not None and not judging:
            return admit_in_shadow(
                *(self, scope, day, asked, operation, request),
                fixed_body=fixed_body,
                make_body=make_body,
                max_cost_pico_usd=max_cost_pico_usd,
                degraded=degraded,
            )
        if degraded:
            self.scopes.check_store_error(day)
        if snapshot.stop is not None and (stop := snapshot.stop_at(now)):
            raise stopped(meter, day, stop, asked, operation, degraded)
        if asked is None or asked == AUTO:
            first = snapshot.chain[0]
            explicit = False
        else:
            first = self.route_of(day, snapshot, asked)
            explicit = True
        chain: Sequence[Route] = snapshot.chain
        override: Route | None = None
        fits: Fits | None = None
        if first.position is None:
            chain = (first,)
            sticky = place = 0
        else:
            place = first.position
            sticky = snapshot.sticky
            if snapshot.override is not None:
                override = snapshot.override_at(now)
            if fixed_body and (override is not None or not snapshot.one_format):
                fits = first.fits
        if snapshot.caps and override is None:
            for cap in snapshot.caps:
                if cap.spend >= cap.quota_pico_usd:
                    call = refused_call(meter, day, first.account, first.label, degraded)
                    raise exhausted_cap(call, day, cap, operation)
        unheld: list[int] = []
        while True:
            outcome = select(chain, place, explicit, sticky, override, fits, snapshot.serve_last, unheld)
            if isinstance(outcome, Refusal):
                raise self._refused(outcome, day, chain, first, override, operation, degraded)
            route = chain[outcome.place] if outcome.place >= 0 else override
            assert route is not None
            price = route.price
            if price is None:
                price = self._price_anyway(snapshot.budget, route.label, route.model_id)
            account = route.account
            mode: Mode = "tight" if account.spend >= route.tight_at else "normal"
            call = Call(
                meter,
                account,
                route,
                price,
                snapshot,
                request,
                route.label,
                route.model_id,
                first.label,
                "unlabelled" if route.label == UNLABELLED else outcome.reason,
                mode,
                day.day.name,
                degraded,
            )
            if snapshot.org_account is not None:
                call.also = ((snapshot.org_account, price),)
            if make_body is not None:
                call.request = make_body(call)
            guarded = (snapshot.guarded or max_cost_pico_usd is not None) and (judging or not dry)
            if not guarded or self._held(call, route, max_cost_pico_usd):
                return call
            unheld.append(outcome.place)

    def _held(self, call: Call, route: Route, max_cost_pico_usd: int | None) -> bool:
        """Set aside the worst case of a call, under strict enforcement. False if there is no room for it.

        Raises CostLimitExceeded if one call may not cost as much.
        """
        worst_case = 0 if route.worst_case is None else route.worst_case.pico_usd(call.bounded_request())
        snapshot = call.snapshot
        limit = snapshot.max_cost_pico_usd if max_cost_pico_usd is None else max_cost_pico_usd
        if limit is not None and worst_case > limit:
            raise cost_limit(call, worst_case, limit)
        if snapshot.strict and route.pools:
            hold = self.pools.hold(route.pools, worst_case)
            if isinstance(hold, Pool):
                return False
            call.hold = hold
        return True

    def _ready(self, scope: Scope, now: datetime) -> ScopeDay:
        if not self._used:
            self._used = True
            lifecycle.register(self)
            self.meter.begin()
        return self.scopes.ready(scope, now)

    def route_of(self, day: ScopeDay, snapshot: Snapshot, asked: object, any_model: bool = False) -> Route:
        """The route that a ``modelId`` asks for; ``any_model``: whatever ``on_unknown_model`` says.

        Raises UnknownModel, ParamValidationError.
        """
        if not isinstance(asked, str):
            given = f"value: {asked!r}, type: {type(asked)}, valid types: {str}"
            raise ParamValidationError(report=f"Invalid type for parameter modelId, {given}")
        known = snapshot.by_asked.get(asked)
        if known is not None:
            return known
        if not any_model and snapshot.budget.settings.on_unknown_model == "reject":
            raise unknown_model(asked, snapshot)
        return self._unlabelled(day, snapshot, asked)

    def _unlabelled(self, day: ScopeDay, snapshot: Snapshot, model_id: str) -> Route:
        """The route of a model outside the configuration: no quota, no rules."""
        budget = snapshot.budget
        key = UsageKey(budget.scope, UNLABELLED, day.day.name)
        with self._unlabelled_lock:
            route = self._unlabelled_routes.get((key, model_id))
        if route is None or route.account is not snapshot.accounts[-1]:
            label, on = ModelLabel(UNLABELLED, model_id), day.day.starts_at.date()
            profiles = self.scopes.profiles
            profiles.resolve((model_id,))
            price = self.scopes.listed_price(model_id, on)
            bounded = price or budget.settings.price_anyway
            route = Route(
                label,
                price=price,
                worst_case=None if bounded is None else self.scopes.worst_case_of(label, bounded),
                quota_usd_micros=None,
                tight_pct=budget.tight_mode_threshold_pct,
                account=snapshot.accounts[-1],
                position=None,
                equivalent=profiles.equivalent(model_id),
                listed_price=partial(self.scopes.listed_price, on=on),
            )
            route.pools = snapshot.pools
            if route.equivalent is not None:  # else it will be looked up again
                with self._unlabelled_lock:
                    self._unlabelled_routes[key, model_id] = route
        return route

    def _price_anyway(self, budget: ScopeBudget, label: str, model_id: str) -> Price | None:
        """What ``on_unknown_price`` says of a model without a price; None to track it at cost 0."""
        policy = budget.settings.on_unknown_price
        if policy == "reject":
            raise unknown_price(label, model_id, self._region, self.scopes.profiles.problem(model_id))
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
        call = refused_call(self.meter, day, first.account, first.label, degraded)
        return exhausted(call, day, chain[first.position or 0 :] if len(chain) > 1 else chain, operation)

    # -- asking

    def decide(self, scope: Scope, asked: str | None) -> Decision:
        """What `admit` would do now, explained. Raises what it would raise."""
        return decision_of(self.admit(scope, asked, "Decide", {}, dry=True))

    def model_id_for_counting(self, scope: Scope, asked: object) -> object:
        """The model id that ``count_tokens`` is sent to: a label's, the label in force, or ``asked`` unchanged."""
        now = self.clock.now()
        snapshot = self._ready(scope, now).snapshot
        if asked is not None and asked != AUTO:
            route = snapshot.by_asked.get(asked) if isinstance(asked, str) else None
            return route.model_id if route else asked
        in_force = route_in_force(snapshot, now) if snapshot.real is None else None
        return (in_force or snapshot.chain[0]).model_id

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
        self.pools.close()
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
        self.pools.close()
        self.meter.close(timeout)

    def after_fork_in_child(self) -> None:
        self._unlabelled_lock = threading.Lock()
        if self.drainer is not None:
            self.drainer.after_fork_in_child()
        self.scopes.after_fork_in_child()
        self.meter.after_fork_in_child()
        self._used = False

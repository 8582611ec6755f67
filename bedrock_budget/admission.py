"""Where one call goes, by one snapshot of its scope's budget: the rules of `core.selection`, and what they rest on."""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from botocore.exceptions import ParamValidationError
from cachetools import LRUCache

from .call import Call
from .core.budget import AUTO, UNLABELLED, ModelLabel, ScopeBudget
from .core.pricing import Price
from .core.selection import Fits, Mode, Refusal, select
from .hold import Hold
from .known_scopes import KnownScopes
from .meter import Meter
from .pools import Pools
from .refusals import (
    Lacking,
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
from .snapshots import Route, Snapshot

MAX_UNLABELLED_ROUTES = 512

#: Gives the request of a call, with the body that its label takes.
MakeBody = Callable[[Call], Mapping[str, Any]]


class Admission:
    """See the module's text. One for all scopes of a client."""

    def __init__(self, meter: Meter, pools: Pools, scopes: KnownScopes, region: str | None) -> None:
        self._meter = meter
        self._pools = pools
        self._scopes = scopes
        self._region = region
        self._unlabelled: LRUCache[tuple[str, str], tuple[ScopeBudget, Route]] = LRUCache(MAX_UNLABELLED_ROUTES)
        self._lock = threading.Lock()

    @property
    def meter(self) -> Meter:
        """What the calls are metered by."""
        return self._meter

    def check_store_error(self, day: ScopeDay) -> None:
        """See `KnownScopes.check_store_error`."""
        self._scopes.check_store_error(day)

    def after_fork_in_child(self) -> None:
        """The lock may have been held by a thread of the parent's."""
        self._lock = threading.Lock()

    def choose(
        self,
        day: ScopeDay,
        snapshot: Snapshot,
        now: datetime,
        asked: object,
        operation: str,
        request: Mapping[str, Any],
        fixed_body: bool,
        make_body: MakeBody | None,
        max_cost_pico_usd: int | None,
        dry: bool,
        degraded: bool,
    ) -> Call:
        """Apply the rules, as if they were enforced: see `keeper.Keeper.admit`, which raises what this does."""
        meter = self._meter
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
                    refused = refused_call(meter, day, snapshot, first.account, first.label, degraded)
                    raise exhausted_cap(refused, day, cap, operation)
        unheld: dict[int, Lacking] = {}
        while True:
            outcome = select(chain, place, explicit, sticky, override, fits, snapshot.serve_last, unheld)
            if isinstance(outcome, Refusal):
                if outcome.kind == "not_portable":
                    skipped = [chain[each] if each >= 0 else override for each in outcome.skipped]
                    raise not_portable(first, [route for route in skipped if route])
                refused = refused_call(meter, day, snapshot, first.account, first.label, degraded)
                routes = [override] if override is not None else chain[place:]
                raise exhausted(refused, day, routes, unheld.values(), operation)
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
            if dry or not (snapshot.guarded or max_cost_pico_usd is not None):
                return call
            lacking = self._hold(day, call, route, max_cost_pico_usd)
            if lacking is None:
                return call
            unheld[outcome.place] = lacking

    def _hold(self, day: ScopeDay, call: Call, route: Route, max_cost_pico_usd: int | None) -> Lacking | None:
        """Set aside the worst case of a call, under strict enforcement; or what there is no room in.

        Raises CostLimitExceeded if one call may not cost as much, StoreError if the store has to be asked and fails.
        """
        worst_case = 0 if route.worst_case is None else route.worst_case.pico_usd(call.bounded_request())
        snapshot = call.snapshot
        limit = snapshot.max_cost_pico_usd if max_cost_pico_usd is None else max_cost_pico_usd
        if limit is not None and worst_case > limit:
            raise cost_limit(call, worst_case, limit)
        if not snapshot.strict:
            return None
        if not route.claims:
            if call.record["degraded"]:  # nothing is held for it, so nothing else bounds it
                self._scopes.check_store_error(day)
            return None
        self._scopes.check_looked(day)
        hold = self._pools.hold(route.claims, worst_case)
        if isinstance(hold, Hold):
            call.hold = hold
            return None
        return Lacking(route.label, hold, worst_case)

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
        return self._unlabelled_route(day, snapshot, asked)

    def _unlabelled_route(self, day: ScopeDay, snapshot: Snapshot, model_id: str) -> Route:
        """The route of a model outside the configuration: no quota, no rules."""
        budget = snapshot.budget
        account = snapshot.accounts[-1]
        with self._lock:
            cached = self._unlabelled.get((budget.scope, model_id))
        if cached is not None and cached[0] is budget and cached[1].account is account:
            return cached[1]
        label, on = ModelLabel(UNLABELLED, model_id), day.day.date
        profiles = self._scopes.profiles
        profiles.resolve((model_id,))
        price = self._scopes.listed_price(model_id, on)
        bounded = price or budget.settings.price_anyway
        route = Route(
            label,
            price=price,
            worst_case=None if bounded is None else self._scopes.worst_case_of(label, bounded),
            quota_usd_micros=None,
            tight_pct=budget.tight_mode_threshold_pct,
            account=account,
            position=None,
            equivalent=profiles.equivalent(model_id),
            listed_price=partial(self._scopes.listed_price, on=on),
        )
        route.claims = snapshot.claims
        if route.equivalent is not None:  # else it will be looked up again
            with self._lock:
                self._unlabelled[budget.scope, model_id] = (budget, route)
        return route

    def _price_anyway(self, budget: ScopeBudget, label: str, model_id: str) -> Price | None:
        """What ``on_unknown_price`` says of a model without a price; None to track it at cost 0."""
        policy = budget.settings.on_unknown_price
        if policy == "reject":
            raise unknown_price(label, model_id, self._region, self._scopes.profiles.problem(model_id))
        return None if policy == "track" else policy

"""The keeper: decide before a call, settle after it. Shared by all the views of a client.

The way of one call: `admit` (the label asked for -> a decision from cached totals -> a `Call`), then the service,
then the `Call` settles (usage -> cost -> account -> record). With warm caches neither does I/O.
"""

from collections.abc import Mapping
from datetime import datetime
from time import monotonic  # waiting is in real time, whatever the clock of the org days says
from typing import TYPE_CHECKING, Any

from . import lifecycle
from .admission import Admission, MakeBody
from .call import Call
from .clock import Clock
from .control_plane import ControlPlane, LookUp
from .core.budget import AUTO
from .core.budget_rules import Budgets
from .draining import Drainer
from .explanation import decision_of
from .known_scopes import KnownScopes, Scope
from .meter import CLOSE_SECS, Meter
from .pools import Pools
from .record import Decision, LabelStatus
from .scopes import ScopeDay
from .shadow import admit_in_shadow
from .status import read_status, route_in_force
from .stores.contract import Store

if TYPE_CHECKING:
    from .journal.journal import Journal


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
        self.scopes = KnownScopes(
            *(store, self.meter, budgets, clock),
            keywords=keywords,
            region=region,
            pools=self.pools,
            look_up=look_up or ControlPlane().look_up,
        )
        self.admission = Admission(self.meter, self.pools, self.scopes, region)
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
    ) -> Call:
        """Decide where a call goes.

        ``asked``: its ``modelId``. ``fixed_body``: its ``invoke_model`` body fits one request format only.
        ``make_body`` gives the request with the body for a call's label, for each label tried. ``max_cost_pico_usd``:
        refuse it if it could cost more. ``dry``: nothing is held for it.
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
        if snapshot.real is not None:
            return admit_in_shadow(
                *(self.admission, day, snapshot, now, asked, operation, request),
                fixed_body=fixed_body,
                make_body=make_body,
                max_cost_pico_usd=max_cost_pico_usd,
                degraded=degraded,
            )
        if degraded and not snapshot.strict:
            self.scopes.check_store_error(day)
        return self.admission.choose(
            day,
            snapshot,
            now,
            asked,
            operation,
            request,
            fixed_body,
            make_body,
            max_cost_pico_usd,
            dry,
            degraded,
        )

    def _ready(self, scope: Scope, now: datetime) -> ScopeDay:
        if not self._used:
            self._used = True
            lifecycle.register(self)
            self.meter.begin()
        return self.scopes.ready(scope, now)

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
        self._finish(deadline)

    def at_exit(self, timeout: float) -> None:
        if not self._used:  # never used in this process
            return
        if self.drainer is not None:
            self.drainer.take_no_more()
        self.meter.run_deferred()
        for stream in self.meter.open_streams():
            stream.abandon("stream_open")
        self.scopes.close()
        self._finish(monotonic() + timeout)

    def _finish(self, deadline: float) -> None:
        with self.meter.lock:
            outstanding = self.pools.outstanding
        if outstanding:
            self.meter.flush(max(deadline - monotonic(), 0.0))  # usage first: what is set aside only stays unused
        self.pools.close(deadline)
        self.meter.close(max(deadline - monotonic(), 0.0))

    def after_fork_in_child(self) -> None:
        self.admission.after_fork_in_child()
        if self.drainer is not None:
            self.drainer.after_fork_in_child()
        self.scopes.after_fork_in_child()
        self.meter.after_fork_in_child()
        self._used = False

"""One call from its decision to its settlement."""

from collections.abc import Mapping
from typing import Any

from .core.account import Account
from .core.estimates import estimate
from .core.money import micros_half_up
from .core.pricing import Price, cost_pico_usd
from .core.selection import Mode, Reason
from .core.usage import NOTHING, Counts, Usage
from .meter import Meter
from .record import Record, usage_of
from .scopes import Route

NO_USAGE = Usage()


class Call:
    """An admitted call. Exactly one of `settle`, `settle_unknown` and `refused` is called, once.

    ``price`` None: tokens are metered at cost 0, marked (``on_unknown_price="track"``). ``route`` None: the model is
    outside the configuration.
    """

    __slots__ = (
        "account",
        "degraded",
        "label",
        "label_asked",
        "meter",
        "mode",
        "model_id",
        "operation",
        "org_day",
        "price",
        "reason",
        "record",
        "request",
        "route",
    )

    def __init__(
        self,
        meter: Meter,
        account: Account,
        *,
        route: Route | None,
        label: str,
        model_id: str,
        label_asked: str,
        reason: Reason,
        mode: Mode,
        org_day: str,
        price: Price | None,
        degraded: bool,
        operation: str,
        request: Mapping[str, Any],
    ) -> None:
        self.meter = meter
        self.account = account
        self.route = route
        self.label = label
        self.model_id = model_id
        self.label_asked = label_asked
        self.reason: Reason = reason
        self.mode: Mode = mode
        self.org_day = org_day
        self.price = price
        self.degraded = degraded
        self.operation = operation
        self.request = request
        self.record: Record = {
            "label": label,
            "model_id": model_id,
            "label_asked": label_asked,
            "reason": reason,
            "mode": mode,
            "org_day": org_day,
            "usage": None,
            "cost_pico_usd": None,
            "cost_usd_micros": None,
            "estimated": False,
            "degraded": degraded,
        }

    def settle(self, usage: Usage, *, estimated: bool = False) -> Record:
        """Meter what the call used; the record is complete afterwards."""
        price = self.price
        cost = 0 if price is None else cost_pico_usd(usage, price)
        self._complete(usage, cost, estimated=estimated or price is None)
        self.meter.add(self.account, usage, cost)
        route = self.route
        if route is not None and route.near_quota():
            self.meter.hurry()
        return self.record

    def settle_unknown(self, *, seen: Counts = NOTHING, answer_bytes: int | None = None) -> Record:
        """Meter an estimate: the response did not say what was used. See `core.estimates.estimate`."""
        return self.settle(estimate(self.request, seen=seen, answer_bytes=answer_bytes), estimated=True)

    def refused(self) -> Record:
        """The service refused the call before inference, or it was never sent: it cost nothing."""
        self._complete(NO_USAGE, 0, estimated=False)
        return self.record

    def _complete(self, usage: Usage, cost: int, *, estimated: bool) -> None:
        record = self.record
        record["usage"] = usage_of(usage)
        record["cost_pico_usd"] = cost
        record["cost_usd_micros"] = micros_half_up(cost)
        record["estimated"] = estimated

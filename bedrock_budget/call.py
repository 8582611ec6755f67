"""One call from its decision to its settlement."""

from collections.abc import Mapping
from typing import Any

from .core.account import Account
from .core.estimates import estimate
from .core.money import micros_half_up
from .core.pricing import Price, cost_pico_usd
from .core.usage import NOTHING, Counts, Usage
from .meter import Meter
from .record import Record, usage_of
from .scopes import Route

NO_USAGE = Usage()


class Call:
    """An admitted call. Exactly one of `settle`, `settle_unknown` and `refused` is called, once.

    ``route`` None: the model is outside the configuration. ``price`` None: tokens are metered at cost 0, marked
    (``on_unknown_price="track"``). ``record`` is what the caller gets to see; its usage and costs are None until then.
    """

    __slots__ = ("account", "meter", "price", "record", "request", "route")

    def __init__(
        self,
        meter: Meter,
        account: Account,
        route: Route | None,
        price: Price | None,
        record: Record,
        request: Mapping[str, Any],
    ) -> None:
        self.meter = meter
        self.account = account
        self.route = route
        self.price = price
        self.record = record
        self.request = request

    @property
    def model_id(self) -> str:
        """The model the call goes to."""
        model_id: str = self.record["model_id"]
        return model_id

    def settle(self, usage: Usage, estimated: bool = False) -> Record:
        """Meter what the call used; the record is complete afterwards."""
        price = self.price
        cost = 0
        if price is None:
            estimated = True
        else:
            cost = cost_pico_usd(usage, price)
        self._complete(usage, cost, estimated)
        account = self.account
        self.meter.add(account, usage, cost)
        route = self.route
        if route is not None and (account.spend >= route.tight_at or account.unsent_cost >= route.hurry_at):
            self.meter.hurry()
        return self.record

    def settle_unknown(self, *, seen: Counts = NOTHING, answer_bytes: int | None = None) -> Record:
        """Meter an estimate: the response did not say what was used. See `core.estimates.estimate`."""
        return self.settle(estimate(self.request, seen=seen, answer_bytes=answer_bytes), estimated=True)

    def refused(self) -> Record:
        """The service refused the call before inference, or it was never sent: it cost nothing."""
        self._complete(NO_USAGE, 0, False)
        return self.record

    def _complete(self, usage: Usage, cost: int, estimated: bool) -> None:
        record = self.record
        record["usage"] = usage_of(usage)
        record["cost_pico_usd"] = cost
        record["cost_usd_micros"] = micros_half_up(cost)
        record["estimated"] = estimated

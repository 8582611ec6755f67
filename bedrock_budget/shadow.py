"""Shadow enforcement: every call goes where it would go without the library, and what the budget would have done with
it is decided and counted.

What would have been spent is metered beside what is, in a scope of its own (`keys.shadow_of`): a call counts there at
the label that it would have gone to, at that label's price, or not at all if it would have been refused. So the rules
see the spend that they would have brought about, over the whole fleet, and the difference of the two is the saving.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .call import Call
from .core.account import Account
from .core.budget import AUTO, UNLABELLED
from .core.errors import BodyNotPortable, BudgetError, CostLimitExceeded, StoreError, UnknownModel, UnknownPrice
from .core.keys import SHADOW_MOVED, SHADOW_REFUSED
from .core.pricing import Price
from .core.selection import Reason
from .errors import BudgetExhausted, BudgetStopped

if TYPE_CHECKING:
    from .admission import Admission, MakeBody
    from .scopes import ScopeDay
    from .snapshots import Snapshot

#: Why a call would have been refused, by the error that it would have met.
_WHY: Mapping[type[BudgetError], str] = {
    BudgetStopped: "stopped",
    BudgetExhausted: "exhausted",
    BodyNotPortable: "not_portable",
    CostLimitExceeded: "cost_limit",
    UnknownModel: "unknown_model",
    UnknownPrice: "unknown_price",
    StoreError: "store_error",
}


def admit_in_shadow(
    admission: "Admission",
    day: "ScopeDay",
    snapshot: "Snapshot",
    now: datetime,
    asked: object,
    operation: str,
    request: Mapping[str, Any],
    *,
    fixed_body: bool,
    make_body: "MakeBody | None",
    max_cost_pico_usd: int | None,
    degraded: bool,
) -> Call:
    """The call that the caller asked for, and what the budget says of it in the record's ``shadow``: the label that
    it would have gone to (None: it would have been refused) and why. Raises ParamValidationError only."""
    real = snapshot.real
    assert real is not None
    auto = asked is None or asked == AUTO
    route = snapshot.chain[0] if auto else admission.route_of(day, snapshot, asked, any_model=True)
    price = route.price or snapshot.budget.settings.price_anyway
    known = route.label != UNLABELLED
    reason: Reason = "unlabelled" if not known else "default" if auto else "requested"
    call = Call(
        admission.meter,
        real[route.label],
        route if known else None,
        price,
        snapshot,
        request,
        route.label,
        route.model_id,
        route.label,
        reason,
        "normal",
        day.day.name,
        degraded,
    )
    if make_body is not None:
        call.request = make_body(call)
    also: list[tuple[Account, Price | None]] = []
    if snapshot.real_org_account is not None:
        also.append((snapshot.real_org_account, price))
    judged: dict[str, str | None]
    try:
        if degraded:
            admission.check_store_error(day)
        # By the same snapshot, which holds nothing: enforcement may just have changed.
        would = admission.choose(
            *(day, snapshot, now, asked, operation, call.request, fixed_body, None, max_cost_pico_usd),
            dry=False,
            degraded=degraded,
        )
    except BudgetError as exc:
        why = next((word for kind, word in _WHY.items() if isinstance(exc, kind)), "config_error")
        judged = {"label": None, "reason": why}
        also.append((snapshot.judged[SHADOW_REFUSED], price))
    else:
        judged = {"label": would.record["label"], "reason": would.record["reason"]}
        call.record["mode"] = would.record["mode"]
        also += [(would.account, would.price), *would.also]
        if would.record["label"] != route.label:
            also.append((snapshot.judged[SHADOW_MOVED], None))
    call.record["shadow"] = judged
    call.also = tuple(also)
    return call

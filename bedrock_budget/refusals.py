"""The errors of calls that are not sent: what was asked, why not, and what to do about it."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from .call import Call
from .core.account import Account
from .core.budget import AUTO, UNLABELLED
from .core.errors import BodyNotPortable, CostLimitExceeded, UnknownModel, UnknownPrice
from .core.money import usd_text
from .core.selection import Mode, Reason
from .errors import BudgetExhausted, BudgetStopped
from .meter import Meter
from .pool import Claim
from .scopes import ScopeDay
from .snapshots import Cap, Route, Snapshot
from .stores.contract import Stop
from .suspension import stop_text


class Lacking(NamedTuple):
    """A label that a call found no hold in: what has no room for it, and the most that the call can cost there."""

    label: str
    claim: Claim
    worst_case_pico_usd: int


def refused_call(
    meter: Meter,
    day: ScopeDay,
    snapshot: Snapshot,
    account: Account,
    label_asked: str,
    degraded: bool,
    *,
    reason: Reason = "exhausted",
    mode: Mode = "tight",
) -> Call:
    """A call that goes nowhere, for the record of its refusal."""
    asked = (label_asked, reason, mode, day.day.name, degraded)
    return Call(meter, account, None, None, snapshot, {}, None, None, *asked)


def exhausted(
    call: Call, day: ScopeDay, routes: Iterable[Route], unheld: Iterable[Lacking], operation: str
) -> BudgetExhausted:
    """All quotas that a call could have used are used up, or have no room for it (``unheld``)."""
    budget = call.snapshot.budget
    lacking = {each.label: each for each in unheld}
    over = ", ".join(_room_in(route, lacking.get(route.label)) for route in routes)
    retry_at = day.day.ends_at.astimezone(budget.timezone)
    if lacking and all(each.worst_case_pico_usd > each.claim.quota_pico_usd for each in lacking.values()):
        what, then = "are too small for this call", "give it a lower limit of output tokens, or less input"
    elif lacking:
        then = f"give it a lower limit of output tokens, or wait: they start again at {retry_at.isoformat()}"
        what = "have no room for this call"
    else:
        what, then = "are used up", f"they start again at {retry_at.isoformat()}"
    return BudgetExhausted(
        f"the daily quotas of {budget.scope} {what} ({over}); {then}", operation, retry_at, call.free()
    )


def _room_in(route: Route, lacking: Lacking | None) -> str:
    if lacking is None:
        quota = route.quota_pico_usd
        return f"{route.label} {usd_text(route.account.spend)} of {'unlimited' if quota is None else usd_text(quota)}"
    claim, share = lacking.claim, lacking.claim.pool.slice
    left = max(share.unheld, 0) + max(share.room or 0, 0)
    of = "" if claim.name == route.label else f" {claim.name}"
    return (
        f"{route.label}: the call could cost {usd_text(lacking.worst_case_pico_usd)}, and {usd_text(left)} of"
        f"{of} {usd_text(claim.quota_pico_usd)} is neither spent nor set aside"
    )


def exhausted_cap(call: Call, day: ScopeDay, cap: Cap, operation: str) -> BudgetExhausted:
    """A limit over all labels is used up."""
    budget = call.snapshot.budget
    whose = f"all apps of org {budget.org_id}" if cap.name.startswith("org_") else f"all labels of {budget.scope}"
    retry_at = day.day.ends_at.astimezone(budget.timezone)
    return BudgetExhausted(
        f"the daily total of {whose} is used up ({usd_text(cap.spend)} of {cap.name} {usd_text(cap.quota_pico_usd)}); "
        f"it starts again at {retry_at.isoformat()}",
        operation,
        retry_at,
        call.free(),
    )


def cost_limit(call: Call, worst_case: int, limit: int) -> CostLimitExceeded:
    """One call could cost more than it may."""
    record = call.record
    return CostLimitExceeded(
        f"this call to {record['label']} ({record['model_id']}) could cost {usd_text(worst_case)}, which is above "
        f"max_cost_usd_micros ({usd_text(limit)}): give it a lower limit of output tokens or less input, or raise "
        "max_cost_usd_micros"
    )


def stopped(meter: Meter, day: ScopeDay, stop: Stop, asked: object, operation: str, degraded: bool) -> BudgetStopped:
    """The scope is stopped, whatever a call asks for."""
    snapshot = day.snapshot
    if asked is None or asked == AUTO:
        route: Route | None = snapshot.chain[0]
    else:
        route = snapshot.by_asked.get(asked) if isinstance(asked, str) else None
    account = (route or snapshot.chain[0]).account
    mode: Mode = "tight" if route and account.spend >= route.tight_at else "normal"
    label = route.label if route else UNLABELLED
    call = refused_call(meter, day, snapshot, account, label, degraded, reason="stopped", mode=mode)
    stopped_at = datetime.fromtimestamp(stop.stopped_at_epoch, snapshot.budget.timezone)
    return BudgetStopped(stop_text(stop, snapshot), operation, stop.stopped_by, stopped_at, stop.reason, call.free())


def not_portable(first: Route, skipped: Iterable[Route]) -> BodyNotPortable:
    """The labels left take bodies of other formats than ``first``, for which the body was made."""
    reasons = ", ".join(f"{route.label} (takes {route.format})" for route in skipped)
    return BodyNotPortable(
        f"the body given for {first.label} ({first.format}) cannot go to the labels left: {reasons}. Give a "
        "callable body(decision), or use converse, which all models take in the same form"
    )


def unknown_model(model_id: str, snapshot: Snapshot) -> UnknownModel:
    """The ``modelId`` of a call is none of ours."""
    labels = ", ".join(f"{label} ({route.model_id})" for label, route in snapshot.routes.items())
    return UnknownModel(
        f"modelId {model_id!r} is neither a label nor the model of one; known: {labels}. Leave modelId out to "
        'let the budget choose, map the model in model_labels, or set on_unknown_model: "pass"'
    )


def unknown_price(label: str, model_id: str, region: str | None, problem: str | None) -> UnknownPrice:
    """Nobody knows what a model costs. ``problem``: why its id does not say so."""
    where = "a label of its own in model_labels, with" if label == UNLABELLED else f"model_labels.{label}:"
    return UnknownPrice(
        f"no price is known for model {model_id!r} (label {label}, region {region or 'unknown'})"
        f"{f': {problem}' if problem else ''}; "
        f"give it {where} input_price_usd_micros_per_1m and output_price_usd_micros_per_1m, "
        'or set on_unknown_price to a price or to "track"'
    )

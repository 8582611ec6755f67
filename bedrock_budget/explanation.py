"""Why a call goes where it goes, for people."""

from collections.abc import Mapping

from .call import Call
from .core.money import micros_half_up, usd_text
from .record import Decision
from .snapshots import Cap, Route

_BECAUSE: dict[str, str] = {
    "requested": "the call asked for it and its quota is not used up",
    "default": "it is the head of the ordering and its quota is not used up",
    "quota": "the labels before it have used up their quotas",
    "sticky": "the scope has already fallen back to it, or to a label before it, today",
    "override": "an operator pinned it",
    "exhausted": 'all quotas are used up and on_exhausted is "last"',
    "unlabelled": 'the model is outside the configuration and on_unknown_model is "pass"',
}


def decision_of(call: Call) -> Decision:
    """The decision of an admitted call."""
    record = call.record
    quota = call.route.quota_pico_usd if call.route else None
    return Decision(
        label=record["label"],
        model_id=record["model_id"],
        label_asked=record["label_asked"],
        reason=record["reason"],
        mode=record["mode"],
        org_day=record["org_day"],
        spend_usd_micros=micros_half_up((call.route or call).account.spend),  # in shadow: what would have been
        quota_usd_micros=None if quota is None else micros_half_up(quota),
        degraded=record["degraded"],
        explanation=explain(call),
    )


def explain(call: Call) -> str:
    """Why a call goes where it goes, for people."""
    record, snapshot = call.record, call.snapshot
    if snapshot.real is not None:
        lines = [f'{record["label"]} ({record["model_id"]}): enforcement is "shadow", so nothing is changed.']
        would: Mapping[str, str | None] = record.get("shadow") or {}
        if would.get("label"):
            lines.append(f"The budget would have sent it to {would['label']}: {_BECAUSE[str(would['reason'])]}.")
        elif would:
            lines.append(f"The budget would have refused it ({would['reason']}).")
        lines.append("What would have been spent:")
    else:
        lines = [f"{record['label']} ({record['model_id']}): {_BECAUSE[record['reason']]}."]
    if record["reason"] == "override" and snapshot.override:
        lines.append(f"Override by {snapshot.override.created_by}: {snapshot.override.reason}.")
    lines += map(_figures, snapshot.chain)
    lines += map(_figures, snapshot.caps)
    lines += [line for route in snapshot.routes.values() if (line := _stands_for(route))]
    if snapshot.sticky:
        lines.append(f"Sticky on {snapshot.chain[snapshot.sticky].label} until the day ends.")
    if snapshot.strict:
        lines.append("Enforcement is strict: a call also needs room for the most that it can cost.")
    zone = snapshot.budget.timezone_name
    lines.append(f"Scope {snapshot.budget.scope}, org day {record['org_day']} ({zone}), {record['mode']} mode.")
    if record["degraded"]:
        lines.append("Degraded: the store could not be read or written lately, so these figures may be old.")
    return "\n".join(lines)


def _stands_for(route: Route) -> str | None:
    """What an opaque model id of a label was found to be; None where the configuration says it all."""
    found = route.equivalent
    if found is not None and found.model_ids == (route.model_id,) and not route.registered:
        hidden = route.problem is None or route.price is not None
        return None if hidden else f"  {route.label}: no list price, {route.problem}"
    whose = f"registered profile {route.model_id}" if route.registered else route.model_id
    if found is None:
        return f"  {route.label}: {whose}: {route.problem}"
    how = "priced as the one that serves, of" if len(found.model_ids) > 1 else "priced as"
    return f"  {route.label}: {whose}" + (
        "" if found.model_ids == (route.model_id,) else f", {how} {', '.join(found.model_ids)}"
    )


def _figures(limited: Route | Cap) -> str:
    spend, quota = limited.account.spend, limited.quota_pico_usd
    limit = "unlimited" if quota is None else f"of {usd_text(quota)} ({percent(spend, quota):.2f} %)"
    name = limited.name if isinstance(limited, Cap) else limited.label
    return f"  {name}: {usd_text(spend)} {limit}"


def percent(spend: int, quota: int | None) -> float | None:
    """Spend as percent of a quota; None if it is unlimited. Above a quota of 0 everything is 100 %."""
    if quota is None:
        return None
    return spend * 100 / quota if quota else 100.0

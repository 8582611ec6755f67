"""Why a call goes where it goes, for people."""

from .call import Call
from .core.money import usd_text

_BECAUSE: dict[str, str] = {
    "requested": "the call asked for it and its quota is not used up",
    "default": "it is the head of the ordering and its quota is not used up",
    "quota": "the labels before it have used up their quotas",
    "sticky": "the scope has already fallen back to it, or to a label before it, today",
    "override": "an operator pinned it",
    "exhausted": 'all quotas are used up and on_exhausted is "last"',
    "unlabelled": 'the model is outside the configuration and on_unknown_model is "pass"',
}


def explain(call: Call) -> str:
    """Why a call goes where it goes, for people."""
    record, snapshot = call.record, call.snapshot
    lines = [f"{record['label']} ({record['model_id']}): {_BECAUSE[record['reason']]}."]
    if record["reason"] == "override" and snapshot.override:
        lines.append(f"Override by {snapshot.override.created_by}: {snapshot.override.reason}.")
    for route in snapshot.chain:
        quota = route.quota_pico_usd
        spent = usd_text(route.account.spend)
        limit = "unlimited" if quota is None else f"of {usd_text(quota)} ({percent(route.account.spend, quota):.2f} %)"
        lines.append(f"  {route.label}: {spent} {limit}")
    if snapshot.sticky:
        lines.append(f"Sticky on {snapshot.chain[snapshot.sticky].label} until the day ends.")
    zone = snapshot.budget.timezone_name
    lines.append(f"Scope {snapshot.budget.scope}, org day {record['org_day']} ({zone}), {record['mode']} mode.")
    if record["degraded"]:
        lines.append("Degraded: the store could not be read or written lately, so these figures may be old.")
    return "\n".join(lines)


def percent(spend: int, quota: int | None) -> float | None:
    """Spend as percent of a quota; None if it is unlimited. Above a quota of 0 everything is 100 %."""
    if quota is None:
        return None
    return spend * 100 / quota if quota else 100.0

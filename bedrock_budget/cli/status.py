"""``bedrock-budget status``: today's spend, label by label."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from ..clock import Clock
from ..core.errors import ConfigError
from ..core.keys import SHADOW_SUFFIX
from ..core.money import micros_half_up
from .exits import DONE
from .options import AddParser, add_command, add_scope, note, opened
from .stop import described
from .table_text import aligned, clock_time, day_text, dollars, dollars_column, iso, one_line, percent_cell, span

if TYPE_CHECKING:
    from ..keeper import Keeper
    from ..record import LabelStatus
    from ..snapshots import Cap
    from ..status import ShadowSums
    from ..stores import Override, Stop
    from .orgs import Orgs

_DESCRIPTION = """\
Spend, quota, tokens and requests of today, of each label of each scope, and where the next call goes. Figures are
the consistent sum of what all processes have written; a process writes about once a second. Changes nothing."""

_HEADINGS = ("LABEL", "SPEND", "QUOTA", "USED", "REQUESTS", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "")
_STATE_COLUMN = len(_HEADINGS) - 1


def register(add_parser: AddParser) -> None:
    """Add the command."""
    parser = add_command(add_parser, "status", run, summary="today's spend, label by label", description=_DESCRIPTION)
    add_scope(parser, org_required=False, app_help="only this app (default: every app that is listed)")


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """One scope today. ``label_in_force`` None: the next call would be refused. ``app_id`` None: all of the org's."""

    org_id: str
    app_id: str | None
    scope: str
    org_day: str
    timezone_name: str
    timezone: tzinfo
    next_day_at: datetime
    degraded: bool
    label_in_force: str | None
    model_id_in_force: str | None
    sticky_label: str | None
    override: "Override | None"
    stop: "Stop | None"
    enforcement: str
    caps: "Sequence[Cap]"
    granted: "Mapping[str, int]"
    shadow: "ShadowSums | None"
    labels: "Sequence[LabelStatus]"

    def as_json(self, now: datetime) -> dict[str, Any]:
        """The form that ``--json`` prints."""
        return {
            "org_id": self.org_id,
            "app_id": self.app_id,
            "scope": self.scope,
            "org_day": self.org_day,
            "timezone": self.timezone_name,
            "next_day_at": iso(self.next_day_at),
            "secs_to_next_day": int((self.next_day_at - now).total_seconds()),
            "degraded": self.degraded,
            "label_in_force": self.label_in_force,
            "model_id_in_force": self.model_id_in_force,
            "sticky_label": self.sticky_label,
            "override": None if self.override is None else self.override._asdict(),
            "stop": None if self.stop is None else self.stop._asdict(),
            "enforcement": self.enforcement,
            "caps": [
                {
                    "key": cap.name,
                    "spend_usd_micros": micros_half_up(cap.spend),
                    "limit_usd_micros": micros_half_up(cap.quota_pico_usd),
                    "granted_usd_micros": micros_half_up(self.granted[cap.name]) if cap.name in self.granted else None,
                }
                for cap in self.caps
            ],
            "shadow": None
            if self.shadow is None
            else {
                "calls": self.shadow.calls,
                "moved": self.shadow.moved,
                "refused": self.shadow.refused,
                "saved_usd_micros": micros_half_up(self.shadow.saved_pico_usd),
            },
            "labels": [_figures(label) for label in self.labels],
        }


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Print what was asked for. A mistake in one scope's configuration does not hide the others."""
    mistakes: list[str] = []
    with opened(args, clock, looking_only=True) as orgs:
        org_ids = [args.org] if args.org is not None else orgs.org_ids()
        if args.app is not None and len(org_ids) > 1:
            raise ConfigError(f"--app: of which org? Add --org ORG (listed: {', '.join(org_ids)})")
        keeper = orgs.keeper()
        try:
            found = list(_statuses(keeper, orgs, org_ids, args.app, mistakes))
        finally:
            keeper.close()
        if args.org is not None and (remark := orgs.remark(args.org, args.app)):
            note(remark)
    now = clock.now()
    if args.json:
        print(json.dumps({"scopes": [status.as_json(now) for status in found]}, indent=2))
    elif found:
        print("\n\n".join(_text(status, now) for status in found))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return DONE


def _statuses(
    keeper: "Keeper", orgs: "Orgs", org_ids: Sequence[str], app_id: str | None, mistakes: list[str]
) -> Iterator[ScopeStatus]:
    for org_id in org_ids:
        try:
            places = _places(orgs, org_id, app_id)
        except ConfigError as exc:
            mistakes.append(str(exc))
            continue
        if not places:
            text = (
                f"org {org_id!r} has quota_scope: APP and no app of it is listed; "
                f"name one: bedrock-budget status --org {org_id} --app APP"
            )
            if len(org_ids) == 1:
                mistakes.append(f"--app: {text}")
            else:
                note(text)
        for entered, shown in places:
            try:
                yield _status(keeper, org_id, entered, shown)
            except ConfigError as exc:
                mistakes.append(str(exc))


def _places(orgs: "Orgs", org_id: str, app_id: str | None) -> list[tuple[str | None, str | None]]:
    """The apps to show of an org: the one to decide for, and the one to name."""
    from .orgs import is_shared  # noqa: PLC0415

    if app_id is not None:
        return [(app_id, app_id)]
    budget = orgs.budget_of_org(org_id)
    if is_shared(budget):
        return [(budget.app_id, None)]
    return [(each, each) for each in orgs.app_ids(org_id)]


def _status(keeper: "Keeper", org_id: str, entered: str | None, shown: str | None) -> ScopeStatus:
    from ..status import read_granted, read_shadow  # noqa: PLC0415

    scope = keeper.scopes.enter(org_id, entered)
    labels = keeper.status(scope)
    now = keeper.clock.now()
    day = scope.day
    assert day is not None
    if isinstance(day.error, ConfigError):
        raise day.error
    snapshot = day.snapshot
    stop = snapshot.stop_at(now)
    in_force = next((label.label for label in labels if label.in_force), None)
    if in_force is None and stop is None and snapshot.override_route is not None:
        in_force = snapshot.override_route.label  # pinned to a label outside the ordering
    return ScopeStatus(
        org_id=org_id,
        app_id=shown,
        scope=snapshot.budget.scope.removesuffix(SHADOW_SUFFIX),
        org_day=day.day.name,
        timezone_name=snapshot.budget.timezone_name,
        timezone=snapshot.budget.timezone,
        next_day_at=day.day.ends_at,
        degraded=day.degraded,
        label_in_force=in_force,
        model_id_in_force=None if in_force is None else snapshot.routes[in_force].model_id,
        sticky_label=snapshot.chain[snapshot.sticky].label if snapshot.sticky else None,
        override=snapshot.override,
        stop=stop,
        enforcement=snapshot.budget.settings.enforcement,
        caps=snapshot.caps,
        granted=read_granted(snapshot, keeper.store),
        shadow=read_shadow(snapshot, keeper.store, keeper.meter),
        labels=labels,
    )


def _text(status: ScopeStatus, now: datetime) -> str:
    from .orgs import place_name  # noqa: PLC0415

    zone = (status.timezone, status.timezone_name)
    spends = dollars_column([label.spend_usd_micros for label in status.labels])
    quotas = dollars_column([label.quota_usd_micros for label in status.labels])
    rows = [_HEADINGS, *map(_row, status.labels, spends, quotas)]
    lines = [
        f"{place_name(status.org_id, status.app_id)}: org day {day_text(status.org_day)} ({status.timezone_name}), "
        f"the next one starts in {span(status.next_day_at - now)}",
        *aligned(rows, left=(0, _STATE_COLUMN), indent=2),
    ]
    lines.append(f"  {_next_call(status, zone)}")
    pin = status.override
    if pin is not None:
        until = clock_time(datetime.fromtimestamp(pin.expires_at_epoch, status.timezone), *zone)
        lines.append(
            f"  Pinned to {one_line(pin.label)} by {one_line(pin.created_by)} until {until}: {one_line(pin.reason)}"
        )
    for cap in status.caps:
        whose = "all apps of the org" if cap.name.startswith("org_") else "all labels"
        spend, limit = dollars(micros_half_up(cap.spend)), dollars(micros_half_up(cap.quota_pico_usd))
        used = percent_cell(100 * cap.spend / cap.quota_pico_usd if cap.quota_pico_usd else 100.0)
        lines.append(f"  Of {whose}: {spend} of {limit} ({used})")
    if status.enforcement == "strict":
        aside = sum(max((each.granted_usd_micros or 0) - each.spend_usd_micros, 0) for each in status.labels)
        lines.append(f"  Strict: {dollars(aside)} beyond the spend is set aside in the labels' quotas.")
        for cap in status.caps:
            aside = max(micros_half_up(status.granted[cap.name] - cap.spend), 0)
            lines.append(f"  Strict: {dollars(aside)} beyond the spend is set aside in {cap.name}.")
    if status.shadow is not None:
        lines.append(f"  {_shadow(status.shadow)}")
    if status.sticky_label is not None:
        lines.append(f"  Fallen back to {status.sticky_label} for the rest of the day.")
    if status.degraded:
        lines.append("  Degraded: the store could not be read completely, so overrides and fallbacks may be missing.")
    return "\n".join(lines)


def _next_call(status: ScopeStatus, zone: tuple[tzinfo, str]) -> str:
    would = status.enforcement == "shadow"
    if status.stop is not None:
        whose = "All apps of the org are" if status.stop.app_id is None else "It is"
        refused = "The budget would refuse calls, but in shadow they go on" if would else "Calls are refused"
        return f"{refused}. {whose} stopped {described(status.stop, zone)}"
    if status.label_in_force is None:
        what = "A cap is reached" if any(cap.spend >= cap.quota_pico_usd for cap in status.caps) else ""
        what = what or "All quotas are used up"
        then = "in shadow calls go on" if would else "calls are refused until the next org day"
        return f"{what}: {then}."
    goes = "The budget would send the next call" if would else "The next call goes"
    return f"{goes} to {status.label_in_force} ({status.model_id_in_force})."


def _shadow(sums: "ShadowSums") -> str:
    """What shadow enforcement would have done."""
    saved = micros_half_up(abs(sums.saved_pico_usd))
    return (
        f"In shadow, so nothing is changed: of {sums.calls:,} calls it would have sent {sums.moved:,} to another label "
        f"and refused {sums.refused:,}, {'saving' if sums.saved_pico_usd >= 0 else 'costing'} {dollars(saved)}"
        f"{'.' if sums.saved_pico_usd >= 0 else ' more.'}"
    )


def _row(label: "LabelStatus", spend: str, quota: str) -> tuple[str, ...]:
    states = ["in force"] if label.in_force else []
    limit = label.quota_usd_micros
    if limit == 0:
        states.append("quota is 0")
    elif limit is not None and label.spend_usd_micros >= limit:
        states.append("used up")
    elif label.mode == "tight":
        states.append("tight mode")
    return (
        label.label,
        spend,
        quota,
        percent_cell(label.quota_pct),
        f"{label.requests:,}",
        f"{label.input_tokens:,}",
        f"{label.output_tokens:,}",
        f"{label.cache_read_tokens:,}",
        f"{label.cache_write_5m_tokens + label.cache_write_1h_tokens:,}",
        ", ".join(states),
    )


def _figures(label: "LabelStatus") -> dict[str, Any]:
    """What all processes share; how calls ended is known to the process that made them alone."""
    figures = asdict(label)
    del figures["outcomes"]
    return figures

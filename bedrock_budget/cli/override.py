"""``bedrock-budget override``: pin a label for an org or app, or remove the pin."""

import argparse
import json
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from ..clock import Clock
from ..core.budget import ScopeBudget
from ..core.days import org_day
from ..core.errors import ConfigError
from ..core.keys import scope_key, shadow_of
from .exits import DONE
from .options import AddParser, add_command, add_group, add_scope, identifier, note, opened
from .steering import APP_HELP, FOLLOW, UNTIL, reason_of, until, who, zone_of
from .table_text import clock_time, iso, one_line, span

if TYPE_CHECKING:
    from ..stores import Override
    from .orgs import Orgs

_SET = """\
Pin a label: calls that leave the model to the budget, or name a label of the ordering, go to it whatever its quota,
until the pin expires. Processes follow within 60 seconds. A pin of an app comes before one of its org."""

_CLEAR = """\
Remove a pin, and forget today's fallbacks, so that calls start at the head of the ordering again and a raised quota
takes effect at once. A label that is still over its quota is left again. Processes follow within 60 seconds."""


def register(add_parser: AddParser) -> None:
    """Add the commands."""
    add = add_group(add_parser, "override", summary="pin a label, or remove the pin", description=_SET)
    parser = add_command(add, "set", run_set, summary="pin a label", description=_SET)
    add_scope(parser, org_required=True, app_help=APP_HELP)
    parser.add_argument("--label", metavar="LABEL", type=identifier, required=True, help="the label to pin")
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why; shown to whoever asks")
    parser.add_argument("--until", metavar="TIME", help=f"{UNTIL} (default: the next org midnight)")
    parser.add_argument("--by", metavar="NAME", help="who pins it (default: your user name)")
    parser = add_command(add, "clear", run_clear, summary="remove the pin and today's fallbacks", description=_CLEAR)
    add_scope(parser, org_required=True, app_help=APP_HELP)


# -- set


def run_set(args: argparse.Namespace, clock: Clock) -> int:
    """Pin a label."""
    from ..stores import Override  # noqa: PLC0415
    from .orgs import place_name  # noqa: PLC0415

    reason = reason_of(args, "pin")
    now = clock.now()
    with opened(args, clock) as orgs:
        budget = _budget(orgs, args.org, args.app)
        if budget is None:
            note(f"org {args.org!r} has no configuration here (--config FILE), so the label was not checked")
        elif args.label not in budget.labels:
            raise ConfigError(
                f"--label: {args.label!r} is not a label of {args.org}; known: {', '.join(budget.labels)}"
            )
        elif remark := orgs.remark(args.org, args.app):
            note(remark)
        expires = _expiry(args.until, now, budget)
        override = Override(args.label, reason, who(args), int(now.timestamp()), int(expires.timestamp()))
        before = _pins(orgs, args.org, args.app)
        kept = _apps_with_pins(orgs, args.org) if args.app is None else []
        orgs.store.put_override(args.org, args.app, override)
    if args.json:
        print(
            json.dumps(
                {
                    "org_id": args.org,
                    "app_id": args.app,
                    "override": override._asdict(),
                    "expires_at": iso(expires),
                    "replaced": _as_json(before.own),
                    "apps_with_own_override": kept,
                },
                indent=2,
            )
        )
        return DONE
    zone = zone_of(budget)
    whose = place_name(args.org, args.app) + (" (all apps)" if args.app is None else "")
    print(f"Pinned {whose} to {args.label} until {clock_time(expires, *zone)}, in {span(expires - now)}.")
    if before.own is not None:
        print(f"It replaces {_described(before.own, zone)}")
    if kept:
        print(f"Apps with a pin of their own keep it: {', '.join(kept)}")
    print(FOLLOW)
    return DONE


def _expiry(text: str | None, now: datetime, budget: ScopeBudget | None) -> datetime:
    """When a pin expires."""
    if text is not None:
        return until(text, now, budget)
    if budget is None:
        raise ConfigError("--until: is needed, since without a configuration the org's midnight is not known")
    return org_day(now, budget.timezone).ends_at


# -- clear


def run_clear(args: argparse.Namespace, clock: Clock) -> int:
    """Remove a pin and today's fallbacks."""
    from .orgs import place_name  # noqa: PLC0415

    with opened(args, clock) as orgs:
        budget = orgs.budget(args.org, args.app) if args.app is not None else orgs.budget_of_org(args.org)
        if remark := orgs.remark(args.org, args.app):
            note(remark)
        day = org_day(clock.now(), budget.timezone).name
        before = _pins(orgs, args.org, args.app)
        kept = _apps_with_pins(orgs, args.org) if args.app is None else []
        removed = orgs.store.clear_override(args.org, args.app)
        forgotten: list[dict[str, Any]] = []
        for scope in _scopes(orgs, budget, args.app):
            sticky = orgs.controls(args.org, args.app, scope=scope, day=day).sticky
            orgs.store.clear_sticky(scope, day)
            orgs.store.clear_sticky(shadow_of(scope), day)
            if sticky is not None:
                forgotten.append({"scope": scope, "org_day": day, "label": sticky.label})
    if args.json:
        print(
            json.dumps(
                {
                    "org_id": args.org,
                    "app_id": args.app,
                    "override_removed": removed,
                    "override": _as_json(before.own),
                    "sticky_cleared": forgotten,
                    "org_override": _as_json(before.of_org) if args.app is not None else None,
                    "apps_with_own_override": kept,
                },
                indent=2,
            )
        )
        return DONE
    zone = zone_of(budget)
    whose = place_name(args.org, args.app)
    if before.own is not None:
        print(f"Removed from {whose} {_described(before.own, zone)}")
    else:
        print(f"Removed an expired pin from {whose}." if removed else f"There was no pin of {whose}.")
    for each in forgotten:
        print(f"Forgot today's fallback of {each['scope']} to {one_line(each['label'])}.")
    if not forgotten:
        print("There was no fallback today.")
    if args.app is not None and before.of_org is not None:
        print(f"Still in force for all apps of {args.org}: {_described(before.of_org, zone)}")
    if kept:
        print(f"Apps with a pin of their own keep it: {', '.join(kept)}")
    if removed or forgotten:
        print(FOLLOW)
    return DONE


def _scopes(orgs: "Orgs", budget: ScopeBudget, app_id: str | None) -> list[str]:
    """The scopes whose fallbacks a clear forgets."""
    from .orgs import is_shared  # noqa: PLC0415

    if app_id is not None:
        return [budget.scope]
    org_scope = scope_key(budget.org_id, None)
    return (
        [org_scope]
        if is_shared(budget)
        else [
            org_scope,
            *(scope_key(budget.org_id, each) for each in orgs.app_ids(budget.org_id)),
        ]
    )


# -- both


class _Pins(NamedTuple):
    """The pin of the org or app asked for, and the one for all of the org's apps."""

    own: "Override | None"
    of_org: "Override | None"


def _budget(orgs: "Orgs", org_id: str, app_id: str | None) -> ScopeBudget | None:
    """The budget, None if there is no configuration at all. Raises ConfigError."""
    if not orgs.is_configured(org_id):
        return None
    return orgs.budget(org_id, app_id) if app_id is not None else orgs.budget_of_org(org_id)


def _pins(orgs: "Orgs", org_id: str, app_id: str | None) -> _Pins:
    scope = scope_key(org_id, None)
    of_org = orgs.controls(org_id, None, scope=scope, day="0").override
    if app_id is None:
        return _Pins(of_org, of_org)
    in_force = orgs.controls(org_id, app_id, scope=scope, day="0").override  # the app's before the org's
    return _Pins(None if in_force == of_org else in_force, of_org)


def _apps_with_pins(orgs: "Orgs", org_id: str) -> list[str]:
    return [app_id for app_id in orgs.app_ids(org_id) if _pins(orgs, org_id, app_id).own is not None]


def _described(pin: "Override", zone: tuple[tzinfo, str]) -> str:
    until = clock_time(datetime.fromtimestamp(pin.expires_at_epoch, zone[0]), *zone)
    return f"the pin to {one_line(pin.label)} by {one_line(pin.created_by)} until {until}: {one_line(pin.reason)}"


def _as_json(pin: "Override | None") -> dict[str, Any] | None:
    return None if pin is None else pin._asdict()

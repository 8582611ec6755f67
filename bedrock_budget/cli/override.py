"""``bedrock-budget override``: pin a label for an org or app, or remove the pin."""

import argparse
import getpass
import json
import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from ..clock import Clock
from ..core.budget import ScopeBudget
from ..core.days import org_day
from ..core.errors import ConfigError
from ..core.keys import scope_key
from .exits import DONE
from .options import AddParser, add_command, add_group, add_scope, identifier, note, opened
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

_APP_HELP = "only this app (default: all apps of the org)"
_UNTIL_HELP = "90m, 2h, 1d (24 hours), or a time in ISO 8601 (default: the next org midnight)"

_DURATION = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def register(add_parser: AddParser) -> None:
    """Add the commands."""
    add = add_group(add_parser, "override", summary="pin a label, or remove the pin", description=_SET)
    parser = add_command(add, "set", run_set, summary="pin a label", description=_SET)
    add_scope(parser, org_required=True, app_help=_APP_HELP)
    parser.add_argument("--label", metavar="LABEL", type=identifier, required=True, help="the label to pin")
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why; shown to whoever asks")
    parser.add_argument("--until", metavar="TIME", help=_UNTIL_HELP)
    parser.add_argument("--by", metavar="NAME", help="who pins it (default: your user name)")
    parser = add_command(add, "clear", run_clear, summary="remove the pin and today's fallbacks", description=_CLEAR)
    add_scope(parser, org_required=True, app_help=_APP_HELP)


# -- set


def run_set(args: argparse.Namespace, clock: Clock) -> int:
    """Pin a label."""
    from ..stores import Override  # noqa: PLC0415
    from .orgs import place_name  # noqa: PLC0415

    reason = args.reason.strip()
    if not reason:
        raise ConfigError("--reason: is empty; say why, for whoever finds the pin")
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
        expires = _until(args.until, now, budget)
        override = Override(args.label, reason, args.by or _user_name(), int(now.timestamp()), int(expires.timestamp()))
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
    zone = _zone(budget)
    whose = place_name(args.org, args.app) + (" (all apps)" if args.app is None else "")
    print(f"Pinned {whose} to {args.label} until {clock_time(expires, *zone)}, in {span(expires - now)}.")
    if before.own is not None:
        print(f"It replaces {_described(before.own, zone)}")
    if kept:
        print(f"Apps with a pin of their own keep it: {', '.join(kept)}")
    print("Processes follow within 60 seconds.")
    return DONE


def _until(text: str | None, now: datetime, budget: ScopeBudget | None) -> datetime:
    """When a pin expires. A time without an offset is one on the org's clock."""
    if text is None:
        if budget is None:
            raise ConfigError("--until: is needed, since without a configuration the org's midnight is not known")
        return org_day(now, budget.timezone).ends_at
    duration = _DURATION.fullmatch(text)
    try:
        if duration:
            expires = now + int(duration[1]) * _UNITS[duration[2]]
        else:
            expires = datetime.fromisoformat(text)
            if expires.tzinfo is None:
                if budget is None:
                    raise ConfigError(
                        f"--until: {text!r} has no offset, and without a configuration the org's time zone is not "
                        "known; add one (2026-01-31T18:00Z)"
                    )
                expires = expires.replace(tzinfo=budget.timezone)
        expires = expires.astimezone(_zone(budget)[0])  # which the last days of the calendar do not survive
    except (ValueError, OverflowError):
        raise ConfigError(f"--until: must be 90m, 2h, 1d or a time such as 2026-01-31T18:00, got {text!r}") from None
    if int(expires.timestamp()) <= now.timestamp():
        raise ConfigError(f"--until: {text!r} is not in the future; it is now {clock_time(now, *_zone(budget))}")
    return expires


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        raise ConfigError("--by: your user name is not known here; say who you are") from None


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
    zone = _zone(budget)
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
        print("Processes follow within 60 seconds.")
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


def _zone(budget: ScopeBudget | None) -> tuple[tzinfo, str]:
    return (UTC, "UTC") if budget is None else (budget.timezone, budget.timezone_name)


def _described(pin: "Override", zone: tuple[tzinfo, str]) -> str:
    until = clock_time(datetime.fromtimestamp(pin.expires_at_epoch, zone[0]), *zone)
    return f"the pin to {one_line(pin.label)} by {one_line(pin.created_by)} until {until}: {one_line(pin.reason)}"


def _as_json(pin: "Override | None") -> dict[str, Any] | None:
    return None if pin is None else pin._asdict()

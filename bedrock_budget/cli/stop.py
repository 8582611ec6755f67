"""``bedrock-budget stop`` and ``resume``: refuse all calls of an org or app, and let them go on."""

import argparse
import json
import shlex
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from ..clock import Clock
from ..core.budget import ScopeBudget
from ..core.errors import ConfigError
from .exits import DONE
from .options import AddParser, add_command, add_scope, note, opened
from .steering import APP_HELP, FOLLOW, UNTIL, reason_of, until, who, zone_of
from .table_text import clock_time, iso, one_line, span

if TYPE_CHECKING:
    from ..stores import Stop
    from .orgs import Orgs

_STOP = """\
Refuse every call of an org or app from now on, whatever its quotas, overrides and models, until it is resumed or the
stop expires. Processes follow within 60 seconds; streams that are open go on. The stop of an org and those of its apps
are independent of each other."""

_RESUME = """\
Lift the stop of an org or app. An automatic stop (stop_at_pct) that is lifted does not come again that day. Lifting
the stop of an app leaves one of its org, and the other way round. Processes follow within 60 seconds."""


def register(add_parser: AddParser) -> None:
    """Add the commands."""
    parser = add_command(add_parser, "stop", run_stop, summary="refuse all calls of an org or app", description=_STOP)
    add_scope(parser, org_required=True, app_help=APP_HELP)
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why; shown in every refusal")
    parser.add_argument("--until", metavar="TIME", help=f"{UNTIL} (default: until it is resumed)")
    parser.add_argument("--by", metavar="NAME", help="who stops it (default: your user name)")
    parser = add_command(add_parser, "resume", run_resume, summary="let calls go on", description=_RESUME)
    add_scope(parser, org_required=True, app_help="only the stop of this app (default: the stop of the whole org)")
    parser.add_argument("--by", metavar="NAME", help="who resumes it (default: your user name)")


def run_stop(args: argparse.Namespace, clock: Clock) -> int:
    """Stop an org or app."""
    from ..stores import Stop  # noqa: PLC0415

    reason, by = reason_of(args, "stop"), who(args)
    now = clock.now()
    with opened(args, clock, config_needed=False) as orgs:
        budget = _budget(orgs, args)
        expires = None if args.until is None else until(args.until, now, budget)
        stop = Stop(args.app, by, reason, int(now.timestamp()), None if expires is None else int(expires.timestamp()))
        before = next((each for each in orgs.stops(args.org) if each.app_id == args.app), None)
        orgs.store.put_stop(args.org, stop)
    if args.json:
        shown = {
            "org_id": args.org,
            "app_id": args.app,
            "stop": stop._asdict(),
            "expires_at": None if expires is None else iso(expires),
            "replaced": _as_json(before),
        }
        print(json.dumps(shown, indent=2))
        return DONE
    zone = zone_of(budget)
    lasts = "it is resumed" if expires is None else f"{clock_time(expires, *zone)}, in {span(expires - now)}"
    print(f"Stopped {_whose(args)} until {lasts}.")
    if before is not None:
        print(f"It replaces the stop {described(before, zone)}")
    print(f"{FOLLOW} Streams that are open go on.")
    if budget is not None and budget.settings.enforcement == "shadow":
        note("enforcement is shadow, which changes nothing: calls go on. Set enforcement: normal to have them refused.")
    app = "" if args.app is None else f" --app {shlex.quote(args.app)}"
    print(f"To resume: bedrock-budget resume --org {shlex.quote(args.org)}{app}")
    return DONE


def run_resume(args: argparse.Namespace, clock: Clock) -> int:
    """Lift the stop of an org or app."""
    by = who(args)
    with opened(args, clock, config_needed=False) as orgs:
        budget = _budget(orgs, args)
        lifted = orgs.store.lift_stop(args.org, args.app, lifted_by=by, now_epoch=int(clock.now().timestamp()))
        left = orgs.stops(args.org)
    of_org = next((each for each in left if each.app_id is None), None)
    of_apps = [each.app_id for each in left if each.app_id is not None]
    if args.json:
        shown = {
            "org_id": args.org,
            "app_id": args.app,
            "resumed": lifted is not None,
            "stop": _as_json(lifted),
            "org_stop": _as_json(of_org),
            "apps_stopped": of_apps,
        }
        print(json.dumps(shown, indent=2))
        return DONE
    zone = zone_of(budget)
    if lifted is None:
        print(f"There was no stop of {_whose(args)}.")
    else:
        print(f"Resumed {_whose(args)}: it was stopped {described(lifted, zone)}")
    if of_org is not None and args.app is not None:
        print(f"Its org remains stopped {described(of_org, zone)}")
        print(f"To resume the org: bedrock-budget resume --org {shlex.quote(args.org)}")
    if of_apps and args.app is None:
        print(f"Apps with a stop of their own remain stopped: {', '.join(map(one_line, of_apps))}")
    if lifted is not None:
        print(FOLLOW)
    return DONE


def described(stop: "Stop", zone: tuple[tzinfo, str]) -> str:
    """Who made a stop, when, until when and why."""
    stopped_at = clock_time(datetime.fromtimestamp(stop.stopped_at_epoch, zone[0]), *zone)
    ends = stop.expires_at_epoch
    lasts = "it is resumed" if ends is None else clock_time(datetime.fromtimestamp(ends, zone[0]), *zone)
    return f"by {one_line(stop.stopped_by)} at {stopped_at}, until {lasts}: {one_line(stop.reason)}"


def _budget(orgs: "Orgs", args: argparse.Namespace) -> ScopeBudget | None:
    """The budget, for the org's clock; None if there is none. In an emergency a mistake in it stops nobody."""
    try:
        if not orgs.is_configured(args.org):
            note(f"org {args.org!r} has no configuration here (--config FILE), so nobody checked that it exists")
            return None
        budget = orgs.budget(args.org, args.app) if args.app is not None else orgs.budget_of_org(args.org)
    except ConfigError as exc:
        if args.app == "*":
            raise
        note(f"going on without the configuration: {exc}")
        return None
    if remark := orgs.remark(args.org, args.app):
        note(remark)
    return budget


def _whose(args: argparse.Namespace) -> str:
    from .orgs import place_name  # noqa: PLC0415

    return place_name(args.org, args.app) + (" (all apps)" if args.app is None else "")


def _as_json(stop: "Stop | None") -> dict[str, Any] | None:
    return None if stop is None else stop._asdict()

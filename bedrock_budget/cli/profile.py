"""``bedrock-budget profile``: inference profiles registered as labels."""

import argparse
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..clock import Clock
from ..core.budget import ALL_LABELS, AUTO, UNLABELLED
from ..core.errors import ConfigError
from ..core.model_ids import parse_model_id
from .exits import DONE
from .options import AddParser, add_command, add_group, add_scope, identifier, note, opened
from .steering import APP_HELP
from .table_text import iso, one_line

if TYPE_CHECKING:
    from ..stores import Profile
    from .orgs import Orgs

_FOLLOW = "Processes follow within 5 minutes."
_LABEL_HELP = "the label of the profile"
_OWN_HELP = "the one of this app (default: the org's own)"

_ADD = """\
Register an inference profile as a label: calls that name the label go to the profile, whatever model_labels says of it.
An app's profile comes before one of its org. The ARN is checked by its form; AWS is not asked. What it costs is found
out by the programs that use it, which need bedrock:GetInferenceProfile. Processes follow within 5 minutes."""

_REMOVE = """\
Forget a registered profile: its label stands again for what model_labels says, or for nothing. Processes follow within
5 minutes."""


def register(add_parser: AddParser) -> None:
    """Add the commands."""
    add = add_group(add_parser, "profile", summary="inference profiles registered as labels", description=_ADD)
    parser = add_command(add, "add", run_add, summary="register a profile as a label", description=_ADD)
    add_scope(parser, org_required=True, app_help=APP_HELP)
    parser.add_argument("--label", metavar="LABEL", type=identifier, required=True, help=_LABEL_HELP)
    parser.add_argument("--arn", metavar="ARN", required=True, help="the ARN of the inference profile")
    parser.add_argument("--description", metavar="TEXT", default="", help="what it is for")
    parser = add_command(add, "show", run_show, summary="show one profile", description="Show a registered profile.")
    add_scope(parser, org_required=True, app_help=_OWN_HELP)
    parser.add_argument("--label", metavar="LABEL", type=identifier, required=True, help=_LABEL_HELP)
    parser = add_command(
        add,
        "list",
        run_list,
        summary="list the profiles of an org and its apps",
        description="List the registered profiles of an org, and of those of its apps that are listed somewhere.",
    )
    add_scope(parser, org_required=True, app_help="only those of this app and of the org (default: all that are known)")
    parser = add_command(add, "remove", run_remove, summary="forget a profile", description=_REMOVE)
    add_scope(parser, org_required=True, app_help=_OWN_HELP)
    parser.add_argument("--label", metavar="LABEL", type=identifier, required=True, help=_LABEL_HELP)


def run_add(args: argparse.Namespace, clock: Clock) -> int:
    """Register a profile."""
    from ..stores import Profile  # noqa: PLC0415
    from .orgs import place_name  # noqa: PLC0415

    if args.label in (AUTO, UNLABELLED, ALL_LABELS):
        raise ConfigError(f"--label: {args.label!r} has a meaning of its own; choose another label")
    arn = _profile_arn(args.arn)
    now = int(clock.now().timestamp())
    profile = Profile(args.app, args.label, arn, args.description.strip(), now, now)
    with opened(args, clock, config_needed=False) as orgs:
        if remark := orgs.remark(args.org, args.app):
            note(remark)
        before = _find(orgs, args)
        orgs.store.put_profile(args.org, profile)
        after = _find(orgs, args) or profile
    if args.json:
        print(json.dumps({"org_id": args.org, "profile": _as_json(after), "replaced": _as_json(before)}, indent=2))
        return DONE
    print(f"Registered {args.label} of {place_name(args.org, args.app)} as {arn}.")
    if before is not None and before.arn != arn:
        print(f"It replaces {one_line(before.arn)}.")
    print(_FOLLOW)
    return DONE


def run_show(args: argparse.Namespace, clock: Clock) -> int:
    """Show a profile."""
    with opened(args, clock, looking_only=True, config_needed=False) as orgs:
        profile = _known(_find(orgs, args), args)
    if args.json:
        print(json.dumps({"org_id": args.org, "profile": _as_json(profile)}, indent=2))
        return DONE
    print(_described(args.org, profile))
    if profile.description:
        print(f"  description: {one_line(profile.description)}")
    print(f"  registered: {_time(profile.created_at_epoch)}, last changed: {_time(profile.updated_at_epoch)}")
    return DONE


def run_list(args: argparse.Namespace, clock: Clock) -> int:
    """List the profiles of an org."""
    with opened(args, clock, looking_only=True, config_needed=False) as orgs:
        apps = orgs.app_ids(args.org) if args.app is None else [args.app]
        found = {each: None for app_id in (None, *apps) for each in orgs.store.profiles(args.org, app_id)}
    if args.json:
        print(json.dumps({"org_id": args.org, "profiles": [_as_json(each) for each in found]}, indent=2))
        return DONE
    for profile in found:
        print(_described(args.org, profile))
    if not found:
        print(f"No inference profile of {args.org} is registered.")
    return DONE


def run_remove(args: argparse.Namespace, clock: Clock) -> int:
    """Forget a profile."""
    from .orgs import place_name  # noqa: PLC0415

    with opened(args, clock, config_needed=False) as orgs:
        before = _find(orgs, args)
        removed = orgs.store.remove_profile(args.org, args.app, args.label)
    if args.json:
        print(json.dumps({"org_id": args.org, "removed": removed, "profile": _as_json(before)}, indent=2))
        return DONE
    whose = place_name(args.org, args.app)
    if not removed:
        print(f"{args.label} of {whose} is not registered.")
        return DONE
    print(f"Removed {args.label} of {whose}" + (f": it was {one_line(before.arn)}." if before else "."))
    print(_FOLLOW)
    return DONE


def _profile_arn(text: str) -> str:
    """An ARN of an inference profile, by its form. Raises ConfigError."""
    arn = text.strip()
    found = parse_model_id(arn)
    is_profile = found.kind in ("inference-profile", "application-inference-profile") and arn.startswith("arn:")
    if not is_profile or not found.region or len(found.account or "") != 12 or any(char.isspace() for char in arn):
        raise ConfigError(
            f"--arn: {text!r} is not the ARN of an inference profile; give "
            "arn:aws:bedrock:REGION:ACCOUNT:application-inference-profile/ID or ...:inference-profile/ID. "
            "Other models are mapped in model_labels"
        )
    return arn


def _find(orgs: "Orgs", args: argparse.Namespace) -> "Profile | None":
    found = orgs.store.profiles(args.org, args.app)
    return next((each for each in found if (each.app_id, each.label) == (args.app, args.label)), None)


def _known(profile: "Profile | None", args: argparse.Namespace) -> "Profile":
    from .orgs import place_name  # noqa: PLC0415

    if profile is None:
        raise ConfigError(
            f"--label: {args.label!r} is not registered for {place_name(args.org, args.app)}; "
            "see bedrock-budget profile list"
        )
    return profile


def _described(org_id: str, profile: "Profile") -> str:
    from .orgs import place_name  # noqa: PLC0415

    return f"{place_name(org_id, profile.app_id)}: {one_line(profile.label)} is {one_line(profile.arn)}"


def _time(epoch: int) -> str:
    return iso(datetime.fromtimestamp(epoch, UTC)) if epoch else "unknown"


def _as_json(profile: "Profile | None") -> dict[str, Any] | None:
    return None if profile is None else profile._asdict()

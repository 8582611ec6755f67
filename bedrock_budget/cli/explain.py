"""``bedrock-budget explain``: where the next call would go, and why."""

import argparse
import json
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from ..clock import Clock
from ..core.errors import BudgetError, ConfigError, StoreError
from .exits import DONE, REFUSED
from .options import AddParser, add_command, add_scope, note, opened
from .table_text import iso, one_line

_DESCRIPTION = """\
Where the next call of an app would go, and why: decides as the library does, but sends and changes nothing. It
knows the configuration and not the keywords that a program gives its client. Ends with exit code 3 if the call
would be refused."""


def register(add_parser: AddParser) -> None:
    """Add the command."""
    parser = add_command(
        add_parser, "explain", run, summary="where the next call would go, and why", description=_DESCRIPTION
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="the modelId of the call: a label or a model id (default: none)"
    )
    add_scope(parser, org_required=True, app_help="the app (may be left out under quota_scope: ORG)")


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Print the decision, or the refusal."""
    from ..record import Decision  # noqa: PLC0415
    from .orgs import app_to_enter  # noqa: PLC0415

    with opened(args, clock, looking_only=True) as orgs:
        app_id = app_to_enter(orgs, args.org, args.app)
        if remark := orgs.remark(args.org, args.app):
            note(remark)
        keeper = orgs.keeper()
        try:
            scope = keeper.scopes.enter(args.org, app_id)
            decision = keeper.decide(scope, args.model)
        except (ConfigError, StoreError):
            raise
        except BudgetError as exc:
            refusal: BudgetError | None = exc
            shown = {**dict.fromkeys(field.name for field in fields(Decision)), **_of_record(exc)}
        else:
            refusal = None
            shown = asdict(decision)
        finally:
            keeper.close()
    if args.json:
        whose = {"org_id": args.org, "app_id": args.app}
        print(json.dumps({**whose, **shown, "refusal": None if refusal is None else _refusal(refusal)}, indent=2))
    elif refusal is not None:
        print(f"The call would be refused ({type(refusal).__name__}): {one_line(_message(refusal))}")
    else:
        print(shown["explanation"])
    return DONE if refusal is None else REFUSED


def _message(refusal: BudgetError) -> str:
    # Without what botocore puts before the text of its errors.
    return str(getattr(refusal, "message", refusal))


def _of_record(refusal: BudgetError) -> dict[str, Any]:
    """What the record of a refused call says of the decision."""
    record: dict[str, Any] = getattr(refusal, "record", None) or {}
    names = ("label_asked", "reason", "mode", "org_day", "degraded")
    return {name: record[name] for name in names if name in record}


def _refusal(refusal: BudgetError) -> dict[str, Any]:
    retry_at: datetime | None = getattr(refusal, "retry_at", None)
    stopped_at: datetime | None = getattr(refusal, "stopped_at", None)
    return {
        "error": type(refusal).__name__,
        "message": _message(refusal),
        "retry_at": None if retry_at is None else iso(retry_at),
        "stopped_by": getattr(refusal, "stopped_by", None),
        "stopped_at": None if stopped_at is None else iso(stopped_at),
        "why": getattr(refusal, "why", None),
    }

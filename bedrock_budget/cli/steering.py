"""What the commands that steer calls have in common: who says so, why, and until when."""

import argparse
import getpass
import re
from datetime import UTC, datetime, timedelta, tzinfo

from ..core.budget import ScopeBudget
from ..core.errors import ConfigError
from .table_text import clock_time

APP_HELP = "only this app (default: all apps of the org)"
FOLLOW = "Processes follow within 60 seconds."
#: What ``--until`` takes.
UNTIL = "90m, 2h, 1d (24 hours), or a time in ISO 8601"

_DURATION = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def reason_of(args: argparse.Namespace, thing: str) -> str:
    """``--reason``, for whoever finds the ``thing``. Raises ConfigError for none."""
    reason: str = args.reason.strip()
    if not reason:
        raise ConfigError(f"--reason: is empty; say why, for whoever finds the {thing}")
    return reason


def until(text: str, now: datetime, budget: ScopeBudget | None) -> datetime:
    """When something expires. A time without an offset is one on the org's clock. Raises ConfigError."""
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
        expires = expires.astimezone(zone_of(budget)[0])  # which the last days of the calendar do not survive
    except (ValueError, OverflowError):
        raise ConfigError(f"--until: must be 90m, 2h, 1d or a time such as 2026-01-31T18:00, got {text!r}") from None
    if int(expires.timestamp()) <= now.timestamp():
        raise ConfigError(f"--until: {text!r} is not in the future; it is now {clock_time(now, *zone_of(budget))}")
    return expires


def who(args: argparse.Namespace) -> str:
    """``--by``, else the user's name. Raises ConfigError."""
    if args.by:
        return str(args.by)
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        raise ConfigError("--by: your user name is not known here; say who you are") from None


def zone_of(budget: ScopeBudget | None) -> tuple[tzinfo, str]:
    """The org's time zone and its name; UTC where the org has no configuration."""
    return (UTC, "UTC") if budget is None else (budget.timezone, budget.timezone_name)

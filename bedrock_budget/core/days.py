"""Org days: calendar days in an org's time zone, as keys instead of resets.

A call belongs to the day in which it started. Days of 23, 25 and other lengths come out right because a day is the
time between two local midnights, each converted to UTC on its own.
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple


class OrgDay(NamedTuple):
    """One org day: its name (``YYYYMMDD``), its first instant and the first instant of the next one (both UTC)."""

    name: str
    starts_at: datetime
    ends_at: datetime


def _first_instant(day: date, zone: tzinfo) -> datetime:
    # Where clocks skip midnight, fold=0 reads it with the offset before the jump: the jump itself, the day's first
    # instant. Where midnight comes twice, it is the earlier one.
    return datetime.combine(day, time(), zone).astimezone(UTC)


def org_day(now: datetime, zone: tzinfo) -> OrgDay:
    """The org day of an aware ``now``.

    Raises ValueError for a naive time.
    """
    if now.tzinfo is None:
        raise ValueError(f"now must be an aware datetime, got {now!r}")
    local = now.astimezone(zone).date()
    return OrgDay(local.strftime("%Y%m%d"), _first_instant(local, zone), _day_after(local, zone))


def org_day_named(name: str, zone: tzinfo) -> OrgDay:
    """The org day of a name ``YYYYMMDD``. Raises ValueError if it is none."""
    local = date(int(name[:4]), int(name[4:6]), int(name[6:8])) if len(name) == 8 and name.isdigit() else None
    if local is None:
        raise ValueError(f"an org day is written YYYYMMDD, got {name!r}")
    return OrgDay(name, _first_instant(local, zone), _day_after(local, zone))


def _day_after(local: date, zone: tzinfo) -> datetime:
    # A zone that crosses the date line skips a whole day; its next day then starts where the skipped one would have.
    return _first_instant(local + timedelta(days=1), zone)

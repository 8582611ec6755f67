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

    @property
    def date(self) -> date:
        """The calendar day, by which prices count: its first instant may be on the day before in UTC."""
        return date.fromisoformat(self.name)


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
    day = _day(local, zone)
    # Where clocks are set back over midnight, a day that has begun is not left again.
    return day if now < day.ends_at else _day(local + timedelta(days=1), zone)


def org_day_named(name: str, zone: tzinfo) -> OrgDay:
    """The org day of a name ``YYYYMMDD``. Raises ValueError if it is none."""
    try:
        if not (len(name) == 8 and name.isascii() and name.isdigit()):
            raise ValueError(name)
        return _day(date(int(name[:4]), int(name[4:6]), int(name[6:])), zone)
    except (ValueError, OverflowError):
        raise ValueError(f"an org day is a date written YYYYMMDD, got {name!r}") from None


def _day(local: date, zone: tzinfo) -> OrgDay:
    # A zone that crosses the date line skips a whole day; its next day then starts where the skipped one would have.
    ends_at = _first_instant(local + timedelta(days=1), zone)
    return OrgDay(local.isoformat().replace("-", ""), _first_instant(local, zone), ends_at)

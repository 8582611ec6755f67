"""One shape for what was metered and for what AWS says, whatever the source."""

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

from ..core.account import Amounts
from ..core.days import OrgDay, org_day_named
from ..core.model_ids import parse_model_id

#: A cache write of which the source does not say how long it lives.
CACHE_WRITE = "cache_write"
REQUESTS = "requests"
#: In pico-USD.
COST = "cost"

#: Org days begin at multiples of this in every time zone of today.
SLOT = timedelta(minutes=15)


class Metered(NamedTuple):
    """What the store has of a scope, a label and an org day. ``model``: as `model_name` has it."""

    day: str
    scope: str
    label: str
    model: str
    amounts: Amounts


class Billed(NamedTuple):
    """So much of a kind (of token, `REQUESTS` or `COST`) of a model, used between two times (UTC)."""

    begins: datetime
    ends: datetime
    model: str
    kind: str
    amount: int


class Reading(NamedTuple):
    """What a source says. ``kinds``: what it can tell at all. ``notes``: what its reader has to know."""

    source: str
    records: tuple[Billed, ...]
    kinds: frozenset[str]
    notes: tuple[str, ...] = ()


class Range(NamedTuple):
    """Days in a row, by name, the last one included. ``zone`` None: of orgs in several time zones."""

    days: tuple[str, ...]
    zone: tzinfo | None

    @classmethod
    def of(cls, first: str, last: str, zone: tzinfo | None) -> "Range":
        """Raises ValueError if the names are no days, or in the wrong order."""
        begin, end = (org_day_named(name, UTC).starts_at.date() for name in (first, last))
        if end < begin:
            raise ValueError(f"the last day {last} comes before the first one {first}")
        return cls(tuple(_name(begin + timedelta(days=more)) for more in range((end - begin).days + 1)), zone)

    def org_days(self) -> tuple[OrgDay, ...]:
        """The days in their zone; UTC where there are several."""
        return tuple(org_day_named(name, self.zone or UTC) for name in self.days)

    def utc_dates(self) -> tuple[date, date]:
        """The first and the last UTC date that have any part of these days, whatever the zone."""
        utc_days = self.utc_days()
        first, last = utc_days[0], utc_days[-1]
        if self.zone is UTC:
            return first.starts_at.date(), last.starts_at.date()
        return first.starts_at.date() - timedelta(days=1), last.starts_at.date() + timedelta(days=1)

    def utc_days(self) -> tuple[OrgDay, ...]:
        """The UTC days of the same names."""
        return tuple(org_day_named(name, UTC) for name in self.days)


class Bill:
    """Adds up records of the same time, model and kind, since sources have a line for each call or hour."""

    def __init__(self) -> None:
        self._sums: dict[tuple[datetime, datetime, str, str], int] = {}

    def add(self, begins: datetime, ends: datetime, model: str, kind: str, amount: int) -> None:
        """Add so much."""
        key = (begins, ends, model, kind)
        self._sums[key] = self._sums.get(key, 0) + amount

    def add_at(self, moment: datetime, model: str, kind: str, amount: int) -> None:
        """Add what was used at one moment; it is kept to the `SLOT`."""
        utc = moment.astimezone(UTC)
        begins = utc.replace(minute=utc.minute // 15 * 15, second=0, microsecond=0)
        self.add(begins, begins + SLOT, model, kind, amount)

    def records(self) -> tuple[Billed, ...]:
        """The sums, in order of time."""
        return tuple(Billed(*key, amount) for key, amount in sorted(self._sums.items()))


def model_name(model_id: str) -> str:
    """What a model is compared by: its base id; an id that does not say which model it is stands for itself."""
    return parse_model_id(model_id).base or model_id


def _name(day: date) -> str:
    return day.isoformat().replace("-", "")

"""Metered against billed, by day, model and kind. Pure: records in, rows out, exact.

Metered days are the org's; AWS bills by UTC days or hours, its logs have the time of each call. Where every record
lies within one org day, days are compared one by one. Where not (an org outside UTC against daily figures, or orgs in
several time zones), only the whole range is compared, with the UTC days of the same names, and the days at its edges
are named: usage near midnight is on different sides of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from fractions import Fraction

from ..core.budget import UNLABELLED
from ..core.days import OrgDay
from .records import CACHE_WRITE, COST, REQUESTS, Billed, Metered, Range, Reading

#: The order of rows.
KINDS = ("input", "output", "cache_read", CACHE_WRITE, "cache_write_5m", "cache_write_1h", REQUESTS, COST)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. ``day`` None: the whole range. ``labels``: those whose calls go to the model; none: nobody's."""

    day: str | None
    model: str
    labels: tuple[str, ...]
    kind: str
    metered: int
    billed: int

    @property
    def drift(self) -> int:
        """How much more was metered than billed; below zero: how much less."""
        return self.metered - self.billed

    @property
    def drift_pct(self) -> Fraction:
        """The drift in percent of what was billed; where nothing was, 100."""
        return Fraction(100 * self.drift, self.billed) if self.billed else Fraction(100 if self.metered else 0)

    def is_above(self, threshold_pct: Fraction) -> bool:
        """Whether the drift is larger than allowed."""
        return abs(self.drift_pct) > threshold_pct


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows that have a figure. ``by_day`` False: of the whole range. ``notes``: what cannot be compared exactly."""

    rows: tuple[Row, ...]
    by_day: bool
    notes: tuple[str, ...]

    def above(self, threshold_pct: Fraction) -> tuple[Row, ...]:
        """The rows that drift more than allowed."""
        return tuple(row for row in self.rows if row.is_above(threshold_pct))


def compare(
    metered: Sequence[Metered],
    reading: Reading,
    days: Range,
    labels_of: Mapping[str, Iterable[str]],
    *,
    known_models_only: bool = False,
) -> Comparison:
    """Compare what was metered on these days with what a source says.

    ``labels_of``: the labels of each model of the configuration. A model that is billed and is no label's is compared
    with what was metered as `UNLABELLED`, if anything was; else it is a row without labels, which
    ``known_models_only`` leaves out.
    """
    labels: dict[str, set[str]] = {model: set(names) for model, names in labels_of.items()}
    for each in metered:
        labels.setdefault(each.model, set()).add(each.label)
    others = UNLABELLED if any(each.label == UNLABELLED for each in metered) else None
    placed = _by_day(reading.records, days)
    by_day = placed is not None
    if placed is None:
        placed = _whole_range(reading.records, days)
    merged = any(record.kind == CACHE_WRITE for record in reading.records) or CACHE_WRITE in reading.kinds
    sums: dict[tuple[str | None, str, str], list[int]] = {}

    def add(day: str | None, model: str, kind: str, side: int, amount: int) -> None:
        if kind in reading.kinds:
            sums.setdefault((day, model, kind), [0, 0])[side] += amount

    for each in metered:
        if each.day in days.days:
            for kind, amount in _metered_kinds(each, merged=merged):
                add(each.day if by_day else None, each.model, kind, 0, amount)
    for day, record in placed:
        model = record.model if record.model in labels else others or record.model
        if model in labels or not known_models_only:
            add(day, model, record.kind, 1, record.amount)
    rows = [
        Row(day, model, tuple(sorted(labels.get(model, ()))), kind, ours, theirs)
        for (day, model, kind), (ours, theirs) in sums.items()
        if ours or theirs
    ]
    rows.sort(key=lambda row: (row.day or "", row.model, KINDS.index(row.kind)))
    return Comparison(tuple(rows), by_day, () if by_day else _edges(days))


def _metered_kinds(metered: Metered, *, merged: bool) -> list[tuple[str, int]]:
    usage = metered.amounts.usage
    return [
        ("input", usage.input_tokens),
        ("output", usage.output_tokens),
        ("cache_read", usage.cache_read_tokens),
        (CACHE_WRITE if merged else "cache_write_5m", usage.cache_write_5m_tokens),
        (CACHE_WRITE if merged else "cache_write_1h", usage.cache_write_1h_tokens),
        (REQUESTS, metered.amounts.requests),
        (COST, metered.amounts.cost_pico_usd),
    ]


def _by_day(records: Iterable[Billed], days: Range) -> list[tuple[str | None, Billed]] | None:
    """The records of the range with their org days; None if one of them lies in two."""
    if days.zone is None:
        return None
    org_days = days.org_days()
    begin, end = org_days[0].starts_at, org_days[-1].ends_at
    placed: list[tuple[str | None, Billed]] = []
    for record in records:
        if record.begins >= end or record.ends <= begin:
            continue
        day = _day_with(org_days, record)
        if day is None:
            return None
        placed.append((day.name, record))
    return placed


def _day_with(org_days: Sequence[OrgDay], record: Billed) -> OrgDay | None:
    for day in org_days:
        if day.starts_at <= record.begins and record.ends <= day.ends_at:
            return day
    return None


def _whole_range(records: Iterable[Billed], days: Range) -> list[tuple[str | None, Billed]]:
    """The records that begin in the UTC days of the same names."""
    utc_days = days.utc_days()
    begin, end = utc_days[0].starts_at, utc_days[-1].ends_at
    return [(None, record) for record in records if begin <= record.begins < end]


def _edges(days: Range) -> tuple[str, ...]:
    first, last = (f"{name[:4]}-{name[4:6]}-{name[6:]}" for name in (days.days[0], days.days[-1]))
    ends = first if first == last else f"{first} and {last}"
    if days.zone is None:
        why = "the orgs are in several time zones"
    else:
        org_days = days.org_days()
        begin, end = org_days[0].starts_at.astimezone(UTC), org_days[-1].ends_at.astimezone(UTC)
        why = f"the org's days are {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    return (
        f"days cannot be compared one by one: {why}, what is billed is of whole UTC days. The whole range is compared, "
        f"and at its edges ({ends}) usage near midnight is on one side only; the longer the range, the less it matters",
    )

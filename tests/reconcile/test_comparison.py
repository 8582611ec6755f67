"""The comparison itself: records in, rows out."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.account import Amounts
from bedrock_budget.core.price_facts import TOKEN_KINDS
from bedrock_budget.core.usage import Usage
from bedrock_budget.reconcile.comparison import Row, compare
from bedrock_budget.reconcile.records import CACHE_WRITE, COST, REQUESTS, Bill, Billed, Metered, Range, Reading

SCOPE = "ORG#acme#APP#chat"
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOKENS = frozenset(TOKEN_KINDS)


def metered(usage: Usage = Usage(), *, label: str = "a", model: str = "m", day: str = "20260115") -> Metered:  # noqa: B008
    return Metered(day, SCOPE, label, model, Amounts(5, usage, 1))


def billed(kind: str, amount: int, model: str = "m", at: datetime = NOON) -> Billed:
    return Billed(at, at + HOUR, model, kind, amount)


def reading(records: Sequence[Billed], kinds: frozenset[str] = TOKENS) -> Reading:
    return Reading("a test", tuple(records), kinds)


def figures(rows: Sequence[Row]) -> list[tuple[str | None, str, int, int]]:
    return [(row.day, row.kind, row.metered, row.billed) for row in rows]


DAY = Range.of("20260115", "20260115", UTC)


def test_only_what_the_source_can_tell_is_compared() -> None:
    ours = [metered(Usage(1, 2, 3, 4, 5))]
    rows = compare(ours, reading([], TOKENS | {COST}), DAY, {}).rows
    assert [row.kind for row in rows] == ["input", "output", "cache_read", "cache_write_5m", "cache_write_1h", COST]
    rows = compare(ours, reading([], frozenset({"input", CACHE_WRITE, REQUESTS})), DAY, {}).rows
    assert figures(rows) == [("20260115", "input", 1, 0), ("20260115", CACHE_WRITE, 9, 0), ("20260115", REQUESTS, 1, 0)]


def test_days_of_a_range_are_compared_one_by_one_and_others_left_out() -> None:
    ours = [metered(Usage(10), day=day) for day in ("20260114", "20260115", "20260116", "20260117")]
    theirs = [billed("input", 10, at=NOON + timedelta(days=more)) for more in (-1, 0, 1, 2)]
    rows = compare(ours, reading(theirs), Range.of("20260115", "20260116", UTC), {}).rows
    assert figures(rows) == [("20260115", "input", 10, 10), ("20260116", "input", 10, 10)]


def test_a_record_across_midnight_makes_it_a_comparison_of_the_whole_range() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    inside = billed("input", 10, at=datetime(2026, 1, 15, 18, tzinfo=UTC))  # 23:30 to 00:30 there
    found = compare([metered(Usage(10))], reading([inside]), Range.of("20260115", "20260115", zone), {})
    assert not found.by_day
    assert figures(found.rows) == [(None, "input", 10, 10)]
    assert "the org's days are 2026-01-14 18:30 to 2026-01-15 18:30 UTC" in found.notes[0]
    assert "(2026-01-15)" in found.notes[0]


def test_drift_is_relative_to_what_was_billed() -> None:
    def row(ours: int, theirs: int) -> Row:
        return Row(None, "m", (), "input", ours, theirs)

    assert (row(99, 100).drift, row(99, 100).drift_pct) == (-1, -1)
    assert row(1, 0).drift_pct == 100
    assert row(0, 0).drift_pct == 0
    assert not row(99, 100).is_above(Fraction(1))
    assert row(98, 100).is_above(Fraction(1))
    assert row(1, 0).is_above(Fraction(99))


def test_labels_of_a_model_are_compared_together() -> None:
    ours = [metered(Usage(1), label="a"), metered(Usage(2), label="b")]
    (row,) = compare(ours, reading([billed("input", 3)]), DAY, {"m": ["c"]}).rows
    assert (row.labels, row.metered, row.drift) == (("a", "b", "c"), 3, 0)


@pytest.mark.parametrize("known_models_only", [False, True])
def test_a_model_that_is_no_labels_is_a_row_unless_it_is_left_out(known_models_only: bool) -> None:
    theirs = reading([billed("input", 3, "other"), billed("input", 4, "m")])
    rows = compare([], theirs, DAY, {"m": ["a"]}, known_models_only=known_models_only).rows
    assert [(row.model, row.labels) for row in rows] == [("m", ("a",)), ("other", ())][: 2 - known_models_only]


counts = st.integers(0, 10**12)
usages = st.lists(
    st.tuples(st.sampled_from("mn"), st.builds(Usage, counts, counts, counts, counts, counts)), max_size=6
)


@given(usages, st.integers(0, 5), st.booleans())
def test_what_is_left_out_of_one_side_is_exactly_the_drift(
    calls: list[tuple[str, Usage]], place: int, merged: bool
) -> None:
    bill = Bill()
    for model, usage in calls:
        for kind, amount in zip(
            ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"), usage, strict=True
        ):
            bill.add_at(NOON, model, CACHE_WRITE if merged and "write" in kind else kind, amount)
    kinds = frozenset({"input", "output", "cache_read", CACHE_WRITE}) if merged else TOKENS
    kept = [metered(usage, model=model) for model, usage in calls[:place] + calls[place + 1 :]]
    drift: dict[str, int] = {}
    for row in compare(kept, reading(bill.records(), kinds), DAY, {}).rows:
        drift[row.model] = drift.get(row.model, 0) + row.drift
    gone = calls[place : place + 1]
    expected = {model: -sum(usage) for model, usage in gone}
    assert {model: amount for model, amount in drift.items() if amount} == {m: a for m, a in expected.items() if a}


def test_ranges_are_days_in_order() -> None:
    assert Range.of("20260227", "20260302", UTC).days == ("20260227", "20260228", "20260301", "20260302")
    with pytest.raises(ValueError, match="comes before"):
        Range.of("20260302", "20260301", UTC)
    with pytest.raises(ValueError, match="YYYYMMDD"):
        Range.of("2026-03-02", "20260301", UTC)
    first, last = Range.of("20260301", "20260302", None).utc_dates()
    assert (first.isoformat(), last.isoformat()) == ("2026-02-28", "2026-03-03")

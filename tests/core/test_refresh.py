"""When to look at the store again, and at what."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.refresh import (
    FIRST_SECS,
    FREQUENT_SECS,
    SHORTEST_SECS,
    Intervals,
    Schedule,
    Seen,
    is_surprising,
    next_look_secs,
    total_is_stale,
)

ADAPTIVE = Intervals("adaptive", 300.0, 60.0, 60.0)
FIXED = Intervals("fixed", 300.0, 60.0, 60.0)


@dataclass
class Spent:
    spend: int = 0
    own: int = 0


@dataclass
class Label:
    label: str
    quota_pico_usd: int | None = 1000
    position: int | None = 0
    account: Spent = field(default_factory=Spent)


def chain(*quotas: int | None) -> list[Label]:
    """An ordering, and one label outside it."""
    labels = [Label(name, quota, place) for place, (name, quota) in enumerate(zip("abcdef", quotas, strict=False))]
    return [*labels, Label("outside", 1000, None)]


def look(
    schedule: Schedule,
    labels: Sequence[Label],
    at_secs: float,
    *,
    intervals: Intervals = ADAPTIVE,
    read: Collection[str] | None = None,
    sticky: int = 0,
    sticky_is_due: bool = False,
) -> Schedule:
    every = {label.label for label in labels}
    return schedule.after_look(
        intervals,
        labels,
        every if read is None else read,
        begun_secs=at_secs,
        sticky=sticky,
        sticky_is_due=sticky_is_due,
    )


def names(reading: tuple[Sequence[Label], Sequence[Label]]) -> tuple[list[str], list[str]]:
    shards, totals = reading
    return [label.label for label in shards], [label.label for label in totals]


def due_in(labels: Sequence[Label], interval_secs: float, rate: float = 0.0) -> Schedule:
    """A schedule that has seen all that was spent so far."""
    seen = {label.label: Seen(label.account.spend, 0.0, rate) for label in labels}
    return Schedule(interval_secs, interval_secs, seen)


# --- how long until the next look


@pytest.mark.parametrize(
    ("previous", "tight", "secs_left", "secs"),
    [
        (None, False, inf, 1.0),
        (1.0, False, inf, 2.0),
        (2.0, False, inf, 4.0),
        (128.0, False, inf, 256.0),
        (256.0, False, inf, 300.0),
        (300.0, False, inf, 300.0),
        (inf, False, inf, 300.0),
        (16.0, True, inf, 32.0),
        (32.0, True, inf, 60.0),
        (300.0, True, inf, 60.0),
        # half the time in which the rate uses up what is left
        (256.0, False, 100.0, 50.0),
        (256.0, False, 2.0, 1.0),
        (256.0, False, 1.0, 0.5),
        (256.0, False, 0.1, 0.5),
        (256.0, False, 0.0, 0.5),
        (256.0, False, -5.0, 0.5),
        (1.0, False, 1e15, 2.0),
    ],
)
def test_the_adaptive_intervals(previous: float | None, tight: bool, secs_left: float, secs: float) -> None:
    assert next_look_secs(ADAPTIVE, previous, tight=tight, secs_left=secs_left) == secs


@pytest.mark.parametrize("previous", [None, 1.0, 60.0, 300.0])
@pytest.mark.parametrize(("tight", "secs"), [(False, 300.0), (True, 60.0)])
def test_the_fixed_intervals_are_the_configured_ones(previous: float | None, tight: bool, secs: float) -> None:
    assert next_look_secs(FIXED, previous, tight=tight, secs_left=0.1) == secs


SECS = st.floats(min_value=0.5, max_value=10_000)


@given(SECS, SECS, st.one_of(st.none(), SECS), st.booleans(), st.floats(-1e6, 1e15))
def test_a_next_look_is_never_sooner_than_half_a_second_nor_later_than_configured(
    normal: float, tight_secs: float, previous: float | None, tight: bool, secs_left: float
) -> None:
    intervals = Intervals("adaptive", normal, tight_secs, 60.0)
    secs = next_look_secs(intervals, previous, tight=tight, secs_left=secs_left)
    assert SHORTEST_SECS <= secs <= (tight_secs if tight else normal)


# --- a look after the other


def test_intervals_double_while_nobody_spends() -> None:
    labels = chain(1000, 1000)
    schedule = Schedule()
    at = 0.0
    intervals = []
    for _ in range(11):
        schedule = look(schedule, labels, at)
        assert schedule.interval_secs is not None
        intervals.append(schedule.interval_secs)
        at += schedule.interval_secs
        assert schedule.due_at_secs == at
    assert intervals == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(
    st.lists(st.tuples(st.floats(0.01, 500), st.integers(0, 10**13), st.integers(0, 10**13)), min_size=1, max_size=12),
    st.integers(1, 10**14),
    st.integers(1, 10**14),
)
def test_a_look_is_never_later_than_half_the_time_that_a_label_in_use_lasts(
    steps: list[tuple[float, int, int]], quota: int, other_quota: int
) -> None:
    labels = chain(quota, other_quota)
    schedule = look(Schedule(), labels, 0.0)
    now = 0.0
    for secs, spent, spent_on_other in steps:
        before = now
        now += secs
        labels[0].account.spend += spent
        labels[1].account.spend += spent_on_other
        schedule = look(schedule, labels, now)
        interval = schedule.interval_secs
        assert interval is not None
        assert SHORTEST_SECS <= interval <= 300
        for label, amount in zip(labels, (spent, spent_on_other), strict=False):
            rate = amount / (now - before)
            assert label.quota_pico_usd is not None
            left = label.quota_pico_usd - label.account.spend
            if rate > 0 and left > 0:
                assert interval == SHORTEST_SECS or interval * rate * 2 <= left * (1 + 1e-9)


@given(st.integers(10, 10**6), st.floats(1.0, 1e6))
def test_at_a_steady_rate_looks_close_in_on_the_end_of_a_quota(quota: int, burn_secs: float) -> None:
    quota *= 10**6
    labels = chain(quota, None)
    schedule = look(Schedule(), labels, 0.0)
    looks = 0
    now = 0.0
    while schedule.due_at_secs < burn_secs:
        now = schedule.due_at_secs
        looks += 1
        labels[0].account.spend = int(quota * now / burn_secs)
        schedule = look(schedule, labels, now)
    # The last look before the end is no further from it than two shortest intervals, and they are not many.
    assert burn_secs - now <= 2 * SHORTEST_SECS + 1e-6 * burn_secs
    assert looks <= 9 + burn_secs / 60 + 24


def test_a_look_of_the_same_moment_keeps_the_rate() -> None:
    labels = chain(1000)
    schedule = look(Schedule(), labels, 0.0)
    labels[0].account.spend = 100
    schedule = look(schedule, labels, 10.0)
    again = look(schedule, labels, 10.0)
    assert again.seen == schedule.seen
    assert again.seen["a"].rate == 10.0


def test_a_label_that_was_not_read_keeps_what_was_seen_of_it() -> None:
    labels = chain(1000, 1000)
    schedule = look(Schedule(), labels, 0.0)
    labels[1].account.spend = 100
    schedule = look(schedule, labels, 10.0, read={"a"})
    assert schedule.seen["b"] == Seen(0, 0.0, 0.0)
    schedule = look(schedule, labels, 50.0, read={"a", "b"})
    assert schedule.seen["b"] == Seen(100, 50.0, 2.0)  # over all the time that has passed


def test_in_tight_mode_of_a_label_in_use_the_tight_interval_is_the_longest() -> None:
    labels = chain(1000, 1000)
    labels[1].account.spend = 960
    assert look(due_in(labels, 300.0), labels, 0.0).interval_secs == 300  # nobody goes to the label that is tight
    labels[0].account.spend = 950
    assert look(due_in(labels, 300.0), labels, 0.0).interval_secs == 60
    wide = ADAPTIVE._replace(tight_pct=96)
    assert look(due_in(labels, 300.0), labels, 0.0, intervals=wide).interval_secs == 300
    labels[0].account.spend = 1000  # over: the next label is in force
    assert look(due_in(labels, 300.0), labels, 0.0, intervals=wide).interval_secs == 60


def test_when_all_is_used_up_there_is_no_hurry() -> None:
    labels = chain(0, 1000)
    labels[1].account.spend = labels[-1].account.spend = 1000
    assert look(due_in(labels, 0.5, rate=100.0), labels, 0.0).interval_secs == 60


def test_labels_before_the_sticky_one_do_not_matter() -> None:
    labels = chain(1000, None)
    schedule = due_in(labels, 100.0, rate=500.0)
    labels[-1].account.spend = 1000
    assert look(schedule, labels, 0.0).interval_secs == 1.0
    assert look(schedule, labels, 0.0, sticky=1).interval_secs == 200.0


def test_an_unlimited_label_in_force_needs_no_hurry() -> None:
    labels = chain(None)
    labels[-1].account.spend = 1000
    assert look(due_in(labels, 300.0, rate=1e18), labels, 0.0).interval_secs == 300


def test_the_shards_are_looked_at_soon_when_they_lag_behind_the_sticky_state_and_then_less_and_less() -> None:
    labels = chain(1000, None)
    labels[0].account.spend = 1000
    first = look(due_in(labels, 100.0), labels, 0.0, sticky_is_due=True)
    assert first.interval_secs == SHORTEST_SECS
    second = look(first, labels, 1.0, sticky_is_due=True)
    assert second.interval_secs == 2 * SHORTEST_SECS
    assert not look(second, labels, 2.0).sticky_is_due


def test_a_look_that_is_brought_forward_is_due_now_and_intervals_start_again() -> None:
    labels = chain(1000)
    schedule = due_in(labels, 300.0).brought_forward()
    assert schedule.due_at_secs == -inf
    assert schedule.seen
    assert look(schedule, labels, 7.0).interval_secs == FIRST_SECS


# --- where to look


def test_the_first_look_sums_the_shards_of_all_labels() -> None:
    assert names(Schedule().to_read(ADAPTIVE, chain(1000, None), 0)) == (["a", "b", "outside"], [])


@pytest.mark.parametrize("interval", [None, 0.5, FREQUENT_SECS - 0.1])
def test_frequent_looks_sum_the_shards_of_labels_in_use(interval: float | None) -> None:
    labels = chain(1000, 1000, 1000)
    schedule = Schedule(interval, 0.0, due_in(labels, 1.0).seen)
    assert names(schedule.to_read(ADAPTIVE, labels, 0)) == (["a"], [])
    assert names(schedule.to_read(ADAPTIVE, labels, 1)) == (["b"], [])
    labels[2].account.spend = 1  # a call went there
    assert names(schedule.to_read(ADAPTIVE, labels, 0)) == (["a", "c"], [])
    labels[0].account.spend = 1000
    assert names(schedule.to_read(ADAPTIVE, labels, 0)) == (["b", "c"], [])
    busy = Schedule(interval, 0.0, {**schedule.seen, "outside": Seen(0, 0.0, 0.1)})
    assert names(busy.to_read(ADAPTIVE, labels, 0)) == (["b", "c", "outside"], [])


def test_a_label_that_a_new_budget_brings_is_in_use_once_it_is_spent_on() -> None:
    labels = chain(1000, 1000)
    schedule = due_in(labels, 1.0)
    new = Label("new", 1000, 2)
    assert names(schedule.to_read(ADAPTIVE, [*labels, new], 0)) == (["a"], [])
    new.account.spend = 1
    assert names(schedule.to_read(ADAPTIVE, [*labels, new], 0)) == (["a", "new"], [])


def test_an_unlimited_label_is_never_worth_a_sum_of_shards() -> None:
    labels = chain(None, 1000)
    assert names(due_in(labels, 1.0).to_read(ADAPTIVE, labels, 0)) == ([], ["a"])
    assert names(due_in(labels, 300.0).to_read(ADAPTIVE, labels, 0)) == ([], ["a", "b", "outside"])
    labels[-1].quota_pico_usd = None
    assert names(due_in(labels, 300.0).to_read(ADAPTIVE, labels, 0)) == ([], ["a", "b"])  # figures that decide nothing


@pytest.mark.parametrize(
    ("intervals", "interval"), [(ADAPTIVE, FREQUENT_SECS), (ADAPTIVE, 300.0), (FIXED, 1.0), (FIXED, 300.0)]
)
def test_rare_looks_read_what_calls_may_go_to_and_sum_the_shards_from_60_percent_on(
    intervals: Intervals, interval: float
) -> None:
    labels = chain(1000, 1000, 0)
    labels[1].account.spend = 599
    schedule = due_in(labels, interval)
    assert names(schedule.to_read(intervals, labels, 0)) == (["c"], ["a", "b", "outside"])
    labels[1].account.spend = 600
    assert names(schedule.to_read(intervals, labels, 0)) == (["b", "c"], ["a", "outside"])
    assert names(schedule.to_read(intervals, labels, 2)) == (["c"], ["outside"])


# --- looks that are brought forward


def test_own_spend_beyond_what_was_expected_of_the_fleet_is_a_surprise() -> None:
    labels = chain(100_000, None)
    schedule = due_in(labels, 100.0, rate=1.0)
    labels[0].account.own = 200
    assert not schedule.is_surprised(ADAPTIVE, labels)
    labels[0].account.own = 201
    assert schedule.is_surprised(ADAPTIVE, labels)
    assert not schedule.is_surprised(FIXED, labels)
    assert not due_in(labels, FIRST_SECS).is_surprised(ADAPTIVE, labels)  # the next look is near
    assert not schedule.brought_forward().is_surprised(ADAPTIVE, labels)
    assert due_in(labels, 2.0).is_surprised(ADAPTIVE, labels)  # nothing was expected
    assert due_in(labels, 2.0, rate=-1.0).is_surprised(ADAPTIVE, labels)
    labels[0].account.own = 9
    assert not due_in(labels, 2.0).is_surprised(ADAPTIVE, labels)  # too little to look for
    labels[1].account.own = 10**9
    assert not due_in(labels, 2.0).is_surprised(ADAPTIVE, labels)  # unlimited


def test_spend_on_a_label_that_was_never_seen_is_a_surprise() -> None:
    label = Label("new")
    label.account.own = 1
    assert Schedule(2.0, 2.0, {}).is_surprised(ADAPTIVE, [label])


@pytest.mark.parametrize(
    ("aggregator_secs", "updated_at", "stale"),
    [
        (60.0, None, True),
        (60.0, 1000.0, False),
        (60.0, 820.0, False),  # three intervals old
        (60.0, 819.9, True),
        (10.0, 970.0, False),
        (10.0, 969.0, True),
        (60.0, 1060.0, False),  # the aggregator's clock is ahead
    ],
)
def test_a_daily_total_is_good_for_three_aggregator_intervals(
    aggregator_secs: float, updated_at: float | None, stale: bool
) -> None:
    intervals = ADAPTIVE._replace(aggregator_secs=aggregator_secs)
    assert total_is_stale(intervals, now_epoch=1000.0, updated_at_epoch=updated_at) is stale


@pytest.mark.parametrize(
    ("own", "expected", "quota", "surprising"),
    [
        (0, 0, 10_000, False),
        (1, 0, 10_000, True),  # 0.01 % of the quota, and nothing was expected
        (1, 0, 10_001, False),  # too little to look for
        (200, 100, 10_000, False),
        (201, 100, 10_000, True),  # more than twice of what the whole fleet was expected to spend
        (5, 0, 0, True),
    ],
)
def test_a_look_is_out_of_date_when_one_process_outspends_what_was_expected_of_all(
    own: int, expected: float, quota: int, surprising: bool
) -> None:
    assert is_surprising(own, expected, quota) is surprising

"""When to look at the store again, and where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.refresh import Intervals, is_surprising, look_at_shards, next_look_secs, total_is_stale

ADAPTIVE = Intervals("adaptive", 300.0, 60.0, 60.0)
FIXED = Intervals("fixed", 300.0, 60.0, 60.0)


def next_secs(intervals: Intervals = ADAPTIVE, previous: float | None = None, **given_: object) -> float:
    known = {"tight": False, "remaining_pico_usd": None, "rate_pico_usd_per_sec": 0.0, **given_}
    return next_look_secs(intervals, previous, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("previous", "given_", "secs"),
    [
        (None, {}, 1.0),
        (1.0, {}, 2.0),
        (2.0, {}, 4.0),
        (128.0, {}, 256.0),
        (256.0, {}, 300.0),
        (300.0, {}, 300.0),
        (16.0, {"tight": True}, 32.0),
        (32.0, {"tight": True}, 60.0),
        (300.0, {"tight": True}, 60.0),
        # half the time in which the rate uses up what is left
        (256.0, {"remaining_pico_usd": 1000, "rate_pico_usd_per_sec": 10.0}, 50.0),
        (256.0, {"remaining_pico_usd": 20, "rate_pico_usd_per_sec": 10.0}, 1.0),
        (256.0, {"remaining_pico_usd": 10, "rate_pico_usd_per_sec": 10.0}, 0.5),
        (256.0, {"remaining_pico_usd": 1, "rate_pico_usd_per_sec": 10.0}, 0.5),
        (256.0, {"remaining_pico_usd": 0, "rate_pico_usd_per_sec": 10.0}, 0.5),
        (256.0, {"remaining_pico_usd": -50, "rate_pico_usd_per_sec": 10.0}, 0.5),
        (1.0, {"remaining_pico_usd": 10**15, "rate_pico_usd_per_sec": 1.0}, 2.0),
        (8.0, {"remaining_pico_usd": 0, "rate_pico_usd_per_sec": 0.0}, 16.0),  # nobody spends
        (8.0, {"remaining_pico_usd": None, "rate_pico_usd_per_sec": 10.0**18}, 16.0),  # unlimited
    ],
)
def test_the_adaptive_schedule(previous: float | None, given_: dict[str, object], secs: float) -> None:
    assert next_secs(ADAPTIVE, previous, **given_) == secs


@pytest.mark.parametrize("previous", [None, 1.0, 60.0, 300.0])
@pytest.mark.parametrize(("tight", "secs"), [(False, 300.0), (True, 60.0)])
def test_the_fixed_schedule_is_the_configured_intervals(previous: float | None, tight: bool, secs: float) -> None:
    assert next_secs(FIXED, previous, tight=tight, remaining_pico_usd=1, rate_pico_usd_per_sec=1e9) == secs


SECS = st.floats(min_value=0.5, max_value=10_000)


@given(SECS, SECS, st.one_of(st.none(), SECS), st.booleans(), st.integers(-(10**15), 10**15), st.floats(0, 1e15))
def test_a_next_look_is_never_sooner_than_half_a_second_nor_later_than_configured(
    normal: float, tight_secs: float, previous: float | None, tight: bool, remaining: int, rate: float
) -> None:
    intervals = Intervals("adaptive", normal, tight_secs, 60.0)
    secs = next_secs(intervals, previous, tight=tight, remaining_pico_usd=remaining, rate_pico_usd_per_sec=rate)
    assert 0.5 <= secs <= (tight_secs if tight else normal)


@given(SECS, st.integers(1, 10**15), st.floats(1, 1e15))
def test_a_next_look_is_never_later_than_half_the_time_that_is_left(previous: float, left: int, rate: float) -> None:
    secs = next_secs(ADAPTIVE, previous, remaining_pico_usd=left, rate_pico_usd_per_sec=rate)
    assert secs == 0.5 or secs * rate * 2 <= left * (1 + 1e-9)


@pytest.mark.parametrize(
    ("intervals", "interval", "spend", "quota", "shards"),
    [
        (ADAPTIVE, 300.0, 59, 100, False),
        (ADAPTIVE, 300.0, 60, 100, True),
        (ADAPTIVE, 300.0, 100, 100, True),
        (ADAPTIVE, 59.9, 0, 100, True),
        (ADAPTIVE, 60.0, 0, 100, False),
        (ADAPTIVE, 300.0, 0, 0, True),
        (ADAPTIVE, 300.0, 10**18, None, False),
        (ADAPTIVE, 1.0, 0, None, True),
        (FIXED, 1.0, 0, 100, False),
        (FIXED, 300.0, 59, 100, False),
        (FIXED, 300.0, 60, 100, True),
        (FIXED, 300.0, 10**18, None, False),
    ],
)
def test_where_to_look(intervals: Intervals, interval: float, spend: int, quota: int | None, shards: bool) -> None:
    assert look_at_shards(intervals, interval, spend_pico_usd=spend, quota_pico_usd=quota) is shards


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

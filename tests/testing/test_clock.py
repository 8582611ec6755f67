from datetime import UTC, datetime, timedelta, timezone

import pytest

from bedrock_budget.testing import ManualClock


def test_stands_still_until_advanced() -> None:
    clock = ManualClock(datetime(2026, 3, 29, tzinfo=UTC), monotonic=5.0)
    assert (clock.now(), clock.monotonic()) == (clock.now(), 5.0)
    clock.advance(1.5)
    clock.advance(timedelta(minutes=1))
    assert clock.now() == datetime(2026, 3, 29, 0, 1, 1, 500_000, tzinfo=UTC)
    assert clock.monotonic() == 66.5


def test_set_moves_the_wall_clock_alone_even_back() -> None:
    clock = ManualClock()
    clock.set(datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == datetime(2020, 1, 1, tzinfo=UTC)
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() == 0.0


def test_refuses_naive_times_and_going_back() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point of the test
    clock = ManualClock()
    with pytest.raises(ValueError, match="aware"):
        ManualClock(naive)
    with pytest.raises(ValueError, match="aware"):
        clock.set(naive)
    with pytest.raises(ValueError, match=r"set\(\)"):
        clock.advance(-1)
    assert clock.now() == ManualClock().now()

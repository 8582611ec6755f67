"""Org days: days of 23, 25, 23.5, 24.5 and 0 hours, midnights that do not exist or come twice."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bedrock_budget.core.days import OrgDay, org_day, org_day_named

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)

#: Zones whose clocks change in every way that a budget meets.
NAMED_ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kolkata",  # no change; an offset of 5:30
    "Asia/Kathmandu",  # 5:45
    "Pacific/Chatham",  # 12:45 and changes
    "America/Havana",  # midnight skipped in spring, twice in autumn
    "Asia/Beirut",  # midnight skipped in spring; in autumn the evening comes twice
    "America/Sao_Paulo",  # the same, until 2019
    "America/Asuncion",
    "America/St_Johns",  # until 2011 clocks went back at 00:01: into the day before
    "America/Nuuk",
    "Antarctica/Casey",  # moved by three hours, once back over midnight
    "Antarctica/Troll",  # two hours
    "Africa/Casablanca",  # changes around Ramadan
    "Pacific/Apia",  # skipped a day
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "name", "starts_at", "hours"),
    [
        ("UTC", "20260228", "2026-02-28 00:00", 24),
        ("America/New_York", "20260307", "2026-03-07 05:00", 24),
        ("America/New_York", "20260308", "2026-03-08 05:00", 23),
        ("America/New_York", "20260309", "2026-03-09 04:00", 24),
        ("America/New_York", "20261101", "2026-11-01 04:00", 25),
        ("America/New_York", "20261102", "2026-11-02 05:00", 24),
        ("Europe/Berlin", "20260329", "2026-03-28 23:00", 23),
        ("Europe/Berlin", "20260330", "2026-03-29 22:00", 24),
        ("Europe/Berlin", "20261025", "2026-10-24 22:00", 25),
        ("Australia/Lord_Howe", "20260405", "2026-04-04 13:00", 24.5),
        ("Australia/Lord_Howe", "20261004", "2026-10-03 13:30", 23.5),
        ("Asia/Kolkata", "20260329", "2026-03-28 18:30", 24),
        ("Pacific/Chatham", "20260405", "2026-04-04 10:15", 25),
        # midnight does not exist: the day starts at 01:00 local time
        ("America/Havana", "20260308", "2026-03-08 05:00", 23),
        ("Asia/Beirut", "20260329", "2026-03-28 22:00", 23),
        ("America/Sao_Paulo", "20181104", "2018-11-04 03:00", 23),
        # midnight comes twice: the day starts at the first
        ("America/Havana", "20261101", "2026-11-01 04:00", 25),
        # the hour before midnight comes twice: the day before is the longer one
        ("Asia/Beirut", "20261024", "2026-10-23 21:00", 25),
        ("Asia/Beirut", "20261025", "2026-10-24 22:00", 24),
        ("America/Sao_Paulo", "20190216", "2019-02-16 02:00", 25),
        ("America/Sao_Paulo", "20190217", "2019-02-17 03:00", 24),
        # clocks went back at 00:01 to 23:01: the day that had begun goes on
        ("America/St_Johns", "20101106", "2010-11-06 02:30", 24),
        ("America/St_Johns", "20101107", "2010-11-07 02:30", 25),
        ("Antarctica/Casey", "20100305", "2010-03-04 13:00", 27),
        # the day that a zone skipped when it crossed the date line has no instant
        ("Pacific/Apia", "20111229", "2011-12-29 10:00", 24),
        ("Pacific/Apia", "20111230", "2011-12-30 10:00", 0),
        ("Pacific/Apia", "20111231", "2011-12-30 10:00", 24),
        # year ends
        ("America/New_York", "20261231", "2026-12-31 05:00", 24),
        ("America/New_York", "20270101", "2027-01-01 05:00", 24),
        ("Pacific/Kiritimati", "20270101", "2026-12-31 10:00", 24),
        ("Pacific/Pago_Pago", "20261231", "2026-12-31 11:00", 24),
        ("UTC", "20280229", "2028-02-29 00:00", 24),
        ("UTC", "00020101", "0002-01-01 00:00", 24),
    ],
)
def test_literal_days(zone: str, name: str, starts_at: str, hours: float) -> None:
    start = utc(starts_at)
    day = OrgDay(name, start, start + timedelta(hours=hours))
    assert org_day_named(name, ZoneInfo(zone)) == day
    if hours:
        assert org_day(start, ZoneInfo(zone)) == day
        assert org_day(day.ends_at - MICROSECOND, ZoneInfo(zone)) == day
        assert org_day(day.ends_at, ZoneInfo(zone)) != day


def test_the_skipped_day_of_a_zone_is_nobodys_today() -> None:
    zone = ZoneInfo("Pacific/Apia")
    crossing = utc("2011-12-30 10:00")
    assert org_day(crossing - MICROSECOND, zone).name == "20111229"
    assert org_day(crossing, zone).name == "20111231"


@pytest.mark.parametrize("zone", NAMED_ZONES)
@pytest.mark.parametrize("year", [1994, 2010, 2011, 2018, 2026])
def test_each_day_begins_where_the_one_before_ends(zone: str, year: int) -> None:
    days = [
        org_day_named((date(year, 1, 1) + timedelta(days=n)).strftime("%Y%m%d"), ZoneInfo(zone)) for n in range(-1, 368)
    ]
    for day, following in pairwise(days):
        assert day.ends_at == following.starts_at
        assert day.starts_at <= day.ends_at
    assert sum((day.ends_at - day.starts_at for day in days), timedelta()) == days[-1].ends_at - days[0].starts_at


def date_on_the_calendar(instant: datetime, zone: ZoneInfo) -> date:
    """The local calendar date of an instant, by looking; a date that was reached before is not taken back."""
    return max((instant - timedelta(minutes=n)).astimezone(zone).date() for n in range(4 * 60))


ZONES = st.one_of(st.sampled_from(NAMED_ZONES), st.sampled_from(sorted(available_timezones()))).map(ZoneInfo)
YEARS = {"min_value": datetime(1990, 1, 1), "max_value": datetime(2035, 12, 31)}  # noqa: DTZ001 - what hypothesis takes
ANY_INSTANT = st.datetimes(**YEARS, timezones=st.just(UTC))
SECONDS_FROM_MIDNIGHT = st.integers(min_value=-4 * 3600, max_value=4 * 3600)


@st.composite
def zones_and_instants(draw: st.DrawFn) -> tuple[ZoneInfo, datetime]:
    zone = draw(ZONES)
    instant = draw(ANY_INSTANT)
    if draw(st.booleans()):  # near a midnight, where things happen
        instant = datetime.combine(instant.date(), time(), zone).astimezone(UTC)
        instant += timedelta(seconds=draw(SECONDS_FROM_MIDNIGHT))
    return zone, instant


@given(zones_and_instants())
@settings(max_examples=300, deadline=None)
@example((ZoneInfo("America/St_Johns"), utc("2010-11-07 02:31")))
@example((ZoneInfo("Antarctica/Casey"), utc("2010-03-04 15:30")))
@example((ZoneInfo("America/Havana"), utc("2026-11-01 05:00")))
def test_every_instant_is_in_exactly_one_org_day(case: tuple[ZoneInfo, datetime]) -> None:
    zone, instant = case
    day = org_day(instant, zone)
    assert day.starts_at <= instant < day.ends_at
    assert day.name == date_on_the_calendar(instant, zone).strftime("%Y%m%d")
    assert day == org_day_named(day.name, zone)
    # Every instant of the interval says the same day, and those outside another.
    assert org_day(day.starts_at, zone) == org_day(day.ends_at - MICROSECOND, zone) == day
    assert org_day(day.starts_at - MICROSECOND, zone).ends_at == day.starts_at
    assert org_day(day.ends_at, zone).starts_at == day.ends_at
    assert org_day(day.starts_at - MICROSECOND, zone).name < day.name < org_day(day.ends_at, zone).name


@given(zones_and_instants(), st.integers(min_value=0, max_value=72 * 3600))
@settings(max_examples=150, deadline=None)
def test_a_later_instant_is_never_in_an_earlier_day(case: tuple[ZoneInfo, datetime], seconds: int) -> None:
    zone, instant = case
    assert org_day(instant, zone).name <= org_day(instant + timedelta(seconds=seconds), zone).name


@given(zones_and_instants(), st.integers(min_value=-12 * 60, max_value=14 * 60))
@settings(max_examples=100, deadline=None)
def test_the_zone_in_which_now_is_told_makes_no_difference(case: tuple[ZoneInfo, datetime], minutes: int) -> None:
    zone, instant = case
    told = instant.astimezone(timezone(timedelta(minutes=minutes)))
    assert org_day(told, zone) == org_day(instant.astimezone(zone), zone) == org_day(instant, zone)


def test_bounds_are_told_in_utc() -> None:
    day = org_day(utc("2026-06-01 12:00"), ZoneInfo("Asia/Kolkata"))
    assert day.starts_at.tzinfo is UTC
    assert day.ends_at.tzinfo is UTC


def test_a_naive_now_is_refused() -> None:
    with pytest.raises(ValueError, match="aware datetime") as caught:
        org_day(datetime(2026, 1, 1), ZoneInfo("UTC"))  # noqa: DTZ001 - that is the point
    assert "datetime.datetime(2026, 1, 1" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *["", "2026", "2026-01-01", "20261301", "20260230", "20250229", "00000101", "2026010", "202601011"],
        *[" 2026010", "+2026011", "２０２６０１０１", "²0260101", "today123", "99991231"],
    ],
)
def test_what_names_no_day_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="YYYYMMDD") as caught:
        org_day_named(name, ZoneInfo("UTC"))
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def test_the_date_of_a_day_is_the_orgs_and_not_utcs(zone: str) -> None:
    now = datetime(2026, 3, 5, 12, tzinfo=ZoneInfo(zone))
    assert org_day(now, ZoneInfo(zone)).date == date(2026, 3, 5)

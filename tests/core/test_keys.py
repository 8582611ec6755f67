"""Ids, keys and shards: no id can forge a key, every writer keeps to its shard."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bedrock_budget.core.keys import (
    ACTIVE_BUCKETS,
    SLOT_SECS,
    UsageKey,
    active_bucket,
    active_key,
    active_partition,
    active_partitions,
    app_id_problem,
    date_key,
    id_problem,
    is_writer_id,
    parse_shard_key,
    recent_hours,
    scope_key,
    shard_key,
    shard_of,
    usage_key,
    utc_hour,
)

IDS = st.text(min_size=1, max_size=128).filter(lambda text: id_problem(text) is None)
MAYBE_IDS = st.one_of(st.none(), IDS)


@pytest.mark.parametrize(
    "value", ["a", "acme", "Acme Corp", "team/chat", "a:b.c_d-e@f", "LABEL", "APP", "müller", "日本", "😀", "x" * 128]
)
def test_an_id_is_any_text_without_hash_and_control_characters(value: str) -> None:
    assert id_problem(value) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "must not be empty"),
        ("x" * 129, "must have at most 128 characters, got 129: 'xxxxxxxxxxxxxxxxxxxx'..."),
        ("a#b", "must not contain '#' or control characters, got 'a#b'"),
        ("acme#APP#chat", "must not contain '#' or control characters, got 'acme#APP#chat'"),
        ("a\nb", "must not contain '#' or control characters, got 'a\\nb'"),
        ("\0", "must not contain '#' or control characters, got '\\x00'"),
        ("\x1f", "must not contain '#' or control characters, got '\\x1f'"),
        ("\x7f", "must not contain '#' or control characters, got '\\x7f'"),
        ("\x9f", "must not contain '#' or control characters, got '\\x9f'"),
        ("\ud800", "must not contain '#' or control characters, got '\\ud800'"),
        ("\udfff", "must not contain '#' or control characters, got '\\udfff'"),
        (5, "must be text, got int 5; put it in quotes"),
        (True, "must be text, got bool True; put it in quotes"),
        (None, "must be text, got NoneType None; put it in quotes"),
        (["a"], "must be text, got list ['a']; put it in quotes"),
        (b"a", "must be text, got bytes b'a'; put it in quotes"),
    ],
)
def test_what_is_no_id_is_named(value: object, problem: str) -> None:
    assert id_problem(value) == problem


@pytest.mark.parametrize("value", [" ", "~", "\xa0", "\ud7ff", "\ue000"])
def test_the_neighbours_of_control_characters_are_allowed(value: str) -> None:
    assert id_problem(value) is None


@given(IDS)
def test_every_id_can_be_written_in_utf_8(value: str) -> None:
    assert value.encode().decode() == value


def test_literal_keys() -> None:
    assert scope_key("acme", None) == "ORG#acme"
    assert scope_key("acme", "chat") == "ORG#acme#APP#chat"
    assert date_key("20260131") == "DAY#20260131"
    assert usage_key("ORG#acme", "premium") == "ORG#acme#LABEL#premium"
    assert shard_key("ORG#acme#APP#chat", "premium", 7) == "ORG#acme#APP#chat#LABEL#premium#SH#7"
    assert active_key("2026013123", 5) == "ACTIVE#2026013123#5"


@given(IDS, MAYBE_IDS, IDS, IDS, MAYBE_IDS, IDS)
@example("a", "LABEL", "b", "a", None, "LABEL")
@example("acme", "chat", "x", "acme", None, "chat")
def test_different_ids_never_share_a_key(
    org: str, app: str | None, label: str, other_org: str, other_app: str | None, other_label: str
) -> None:
    same_scope = (org, app) == (other_org, other_app)
    scope, other_scope = scope_key(org, app), scope_key(other_org, other_app)
    assert (scope == other_scope) == same_scope
    assert (usage_key(scope, label) == usage_key(other_scope, other_label)) == (same_scope and label == other_label)


@given(IDS, MAYBE_IDS, IDS, st.integers(min_value=0, max_value=1023))
@example("SH", "LABEL", "SH", 0)
def test_the_keys_of_a_shard_say_whose_it_is(org: str, app: str | None, label: str, shard: int) -> None:
    scope = scope_key(org, app)
    found = parse_shard_key(shard_key(scope, label, shard), date_key("20260131"))
    assert found == (UsageKey(scope, label, "20260131"), shard)


@pytest.mark.parametrize(
    ("key", "day"),
    [
        ("", "DAY#20260131"),
        ("ORG#acme#LABEL#premium", "DAY#20260131"),
        ("ORG#acme#SH#1", "DAY#20260131"),
        ("ORG#acme#LABEL#premium#SH#", "DAY#20260131"),
        ("ORG#acme#LABEL#premium#SH#x", "DAY#20260131"),
        ("ORG#acme#LABEL#premium#SH#-1", "DAY#20260131"),
        ("ORG#acme#LABEL#premium#SH#1", "20260131"),
        ("ORG#acme#LABEL#premium#SH#1", "OVERRIDE#*"),
    ],
)
def test_keys_of_other_items_are_refused_by_name(key: str, day: str) -> None:
    with pytest.raises(ValueError, match="not the keys of a shard item") as caught:
        parse_shard_key(key, day)
    assert repr(key) in str(caught.value)
    assert repr(day) in str(caught.value)


def test_a_writers_shard_is_the_same_in_every_process_and_version() -> None:
    # 0xCBF43926 is the published check value of CRC-32.
    assert shard_of("123456789", 1024) == 0xCBF43926 % 1024
    assert shard_of("123456789", 8) == 0xCBF43926 % 8
    assert active_bucket("123456789") == 0xCBF43926 % ACTIVE_BUCKETS


@given(st.text(alphabet=string.ascii_letters + string.digits + "-_", min_size=11, max_size=11), st.integers(1, 1024))
def test_a_shard_is_one_of_the_count(writer_id: str, count: int) -> None:
    assert 0 <= shard_of(writer_id, count) < count
    assert shard_of(writer_id, count) == shard_of(writer_id, count)
    assert 0 <= active_bucket(writer_id) < ACTIVE_BUCKETS


def test_writers_spread_over_the_shards() -> None:
    counts = [0] * 8
    for number in range(8_000):
        counts[shard_of(f"w{number:010d}", 8)] += 1
    assert min(counts) > 800
    assert max(counts) < 1_200


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *[("w0123456789", True), ("wAbc-_12345", True), ("w012345678", False), ("w01234567890", False), ("", False)],
        *[("updated_at_", False), ("cost_usd_micros", False), ("requests", False), ("shard_count", False)],
    ],
)
def test_writer_ids_are_told_from_other_attributes(name: str, is_one: bool) -> None:
    assert is_writer_id(name) is is_one


@pytest.mark.parametrize(
    ("epoch", "hour"),
    [
        (0, "1970010100"),
        (3599.999, "1970010100"),
        (3600, "1970010101"),
        (1798761599, "2026123123"),
        (1798761600, "2027010100"),
    ],
)
def test_utc_hours(epoch: float, hour: str) -> None:
    assert utc_hour(epoch) == hour


def test_recent_hours_are_newest_first_over_the_end_of_a_year() -> None:
    assert recent_hours(1798761600 + 60, 3) == ["2027010100", "2026123123", "2026123122"]
    assert recent_hours(0, 0) == []


@given(st.integers(min_value=10**9, max_value=2 * 10**9), st.integers(min_value=1, max_value=48))
def test_recent_hours_are_all_different_and_lead_up_to_now(epoch: int, count: int) -> None:
    hours = recent_hours(epoch, count)
    assert hours[0] == utc_hour(epoch)
    assert len(set(hours)) == count
    assert hours == sorted(hours, reverse=True)


def test_no_app_is_called_what_stands_for_all_apps() -> None:
    assert app_id_problem("*") == "must not be '*', which stands for all apps; leave the app out to mean them"
    assert app_id_problem("chat") is None
    assert app_id_problem("a#b") == id_problem("a#b")


# --- the index of what was written lately


@given(st.floats(0, 4e9), IDS)
def test_a_write_is_listed_by_its_hour_and_by_any_time_around_it(epoch: float, key: str) -> None:
    partition = active_partition(epoch, key)
    hour = utc_hour(epoch)
    assert partition.startswith(f"ACTIVE#{hour}#")
    assert partition in active_partitions(hour)
    assert partition in active_partitions(hour, epoch, epoch)
    assert partition in active_partitions(hour, since_epoch=epoch - 5)
    assert partition not in active_partitions(hour, since_epoch=epoch + SLOT_SECS)
    assert partition not in active_partitions(hour, until_epoch=epoch - SLOT_SECS)


def test_the_partitions_of_an_hour_are_those_of_its_slots_and_of_none() -> None:
    hour = "2026012315"
    begins = 1769180400
    assert utc_hour(begins) == hour
    assert len(set(active_partitions(hour))) == 7 * ACTIVE_BUCKETS
    of_no_slot = [active_key(hour, bucket) for bucket in range(ACTIVE_BUCKETS)]
    assert active_partitions(hour, since_epoch=begins + 3600) == of_no_slot
    assert active_partitions(hour, until_epoch=begins - 1) == of_no_slot
    assert active_partitions(hour, begins + 599, begins + 600) == [active_key(hour, n) for n in range(24)]
    assert active_partition(begins + 3599, "123456789") == active_key(hour, 48 + active_bucket("123456789"))

"""Overrides lead back to labels that were left, and a raised quota is followed: several processes on one store."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from doubles import ByHand, UnreliableStore
from metered import HELLO, NEXT_TO_NOTHING, budget, metered, record_of

from bedrock_budget import PriceKeeperClient
from bedrock_budget.cli import main
from bedrock_budget.stores import Override, SQLiteStore, Sticky
from bedrock_budget.testing import LocalBedrock, ManualClock

DAY_ENDS = 1768521600  # 2026-01-16T00:00Z; the manual clock starts twelve hours before


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def process(store: UnreliableStore, clock: ManualClock) -> ByHand:
    return ByHand(store, clock)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "budget.db")
    yield store
    store.close()


def go(*clients: PriceKeeperClient, **arguments: Any) -> list[tuple[str, str]]:
    """Where a call of each goes, and why."""
    records = [record_of(each.converse(messages=HELLO, **arguments)) for each in clients]
    return [(record["label"], record["reason"]) for record in records]


def look(*clients: PriceKeeperClient) -> None:
    """The background look of each."""
    for each in clients:
        day = each._scope.day
        assert day is not None
        day.schedule = day.schedule.brought_forward()
        each._keeper.scopes._look(day)


def test_an_override_leads_back_to_an_earlier_label_and_sticky_decides_again_after_it(
    local_bedrock: LocalBedrock, manual_clock: ManualClock, sqlite: SQLiteStore
) -> None:
    options = {"store": sqlite.url, "clock": manual_clock}
    with metered(local_bedrock, **options) as first, metered(local_bedrock, **options) as second:
        sqlite.advance_sticky("ORG#acme#APP#chat", "20260115", Sticky("standard", 1, "x", "premium", 0, DAY_ENDS))
        assert go(first, second) == [("standard", "sticky")] * 2
        until = int(manual_clock.now().timestamp()) + 3600
        sqlite.put_override("acme", "chat", Override("premium", "demo", "kim", 0, until))
        look(first, second)
        assert go(first, second) == [("premium", "override")] * 2
        assert go(first, second, modelId="economy") == [("premium", "override")] * 2
        manual_clock.set(manual_clock.now() + timedelta(hours=1))
        assert go(first, second) == [("standard", "sticky")] * 2
        look(first, second)
        assert go(first, second) == [("standard", "sticky")] * 2


def test_clearing_after_a_config_item_has_raised_the_quota_takes_effect_at_once(
    local_bedrock: LocalBedrock, manual_clock: ManualClock, sqlite: SQLiteStore, tmp_path: Path
) -> None:
    small = budget({"premium": NEXT_TO_NOTHING})
    file = tmp_path / "budget.yaml"
    file.write_text(json.dumps(small))
    where = ["--org", "acme", "--app", "chat", "--store", sqlite.url, "--config", str(file)]

    def operator(*words: str) -> None:
        assert main([*words, *where], clock=manual_clock) == 0

    options = {"store": sqlite.url, "clock": manual_clock, "config": small}
    with metered(local_bedrock, **options) as first, metered(local_bedrock, **options) as second:
        assert go(first) == [("premium", "default")]
        assert first.flush(timeout=30)
        look(first)
        assert go(first, second) == [("standard", "sticky")] * 2
        operator("override", "set", "--label", "economy", "--reason", "demo", "--by", "kim")
        look(first, second)
        assert go(first, second) == [("economy", "override")] * 2
        sqlite.put_config("acme", "chat", {"quotas": {"premium": 1_000_000}})
        look(first, second)
        assert go(first, second) == [("economy", "override")] * 2
        operator("override", "clear")
        look(first, second)
        for _ in range(3):
            assert go(first, second) == [("premium", "default")] * 2
            look(first, second)
        # without a raise, clearing brings the fallback back
        sqlite.put_config("acme", "chat", {})
        operator("override", "clear")
        look(first, second)
        assert go(first, second) == [("standard", "sticky")] * 2


def test_a_raised_quota_and_a_cleared_sticky_state_are_followed_within_a_look_and_it_stays_so(
    store: UnreliableStore, clock: ManualClock
) -> None:
    first, second = ByHand(store, clock), ByHand(store, clock)
    first.spend(1000)
    first.write()
    for each in (first, second):
        each.admit()
        each.look_when_due()
    assert {each.goes_to() for each in (first, second)} == {("standard", "sticky")}
    store.put_config("acme", "chat", {"quotas": {"premium": 5000}})
    store.clear_override("acme", "chat")
    store.clear_sticky("ORG#acme#APP#chat", "20260115")
    for each in (first, second):
        assert each.look_when_due() <= 60
    for _ in range(3):
        assert {each.goes_to() for each in (first, second)} == {("premium", "default")}
        for each in (first, second):
            each.look_when_due()
    found = store.inner.read_controls("acme", "chat", scope="ORG#acme#APP#chat", day="20260115", now_epoch=0)
    assert found.sticky is None
    first.spend(4000)
    first.write()
    for each in (first, second):
        each.look_at_spend()
    assert {each.goes_to() for each in (first, second)} == {("standard", "sticky")}


def test_a_quota_that_is_raised_during_a_look_is_not_left_for_the_day(process: ByHand, store: UnreliableStore) -> None:
    process.spend(1000)
    process.write()

    def raise_it(name: str, subject: object) -> None:
        if name == "read_shards":  # the look has read the old quota
            store.put_config("acme", "chat", {"quotas": {"premium": 5000}})
            store.clear_sticky("ORG#acme#APP#chat", "20260115")

    store.fails = raise_it
    process.look_at_spend()
    assert store.count("advance_sticky") == 0
    assert process.look_when_due() <= 0.5
    assert process.goes_to() == ("premium", "default")
    assert store.count("advance_sticky") == 0


def test_clearing_without_a_raised_quota_brings_the_fallback_back(process: ByHand, store: UnreliableStore) -> None:
    process.spend(1000)
    process.write()
    process.look_when_due()
    assert process.goes_to() == ("standard", "sticky")
    store.clear_sticky("ORG#acme#APP#chat", "20260115")
    process.look_at_spend()
    assert process.goes_to() == ("standard", "sticky")
    assert store.count("advance_sticky") == 2

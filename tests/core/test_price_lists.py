"""Prices out of published ones: what is in force on a day, and what a gap is filled with."""

import datetime as dt
from typing import Any

import pytest

from bedrock_budget.core.price_facts import PriceFact
from bedrock_budget.core.price_lists import UnitPrice, in_force, price_list, unit_prices
from bedrock_budget.core.pricing import Price, Prices
from bedrock_budget.core.served import DEFAULT, Served

DAY = dt.date(2026, 1, 1)


def fact(kind: str, pico: int, since: str = "2025-01-01", **more: Any) -> PriceFact:
    plain = PriceFact(
        *("acme.m", None, None, "default", "standard", 0, kind, "", pico), dt.date.fromisoformat(since), "test"
    )
    return plain._replace(**more)


def prices(*facts: PriceFact) -> Prices:
    found = price_list(facts)
    assert found is not None
    return found.prices


def rates(price: Price) -> tuple[int, ...]:
    return price.rates()


def test_the_newest_price_not_after_the_day() -> None:
    facts = [fact("input", day, f"2026-01-{day:02}") for day in (20, 5, 10)]
    for on, expected in ((4, []), (5, [5]), (9, [5]), (10, [10]), (19, [10]), (31, [20])):
        assert [each.pico_usd for each in in_force(facts, dt.date(2026, 1, on))] == expected
    assert [each.pico_usd for each in in_force(facts, None)] == [5]


def test_each_kind_and_condition_has_days_of_its_own() -> None:
    facts = [
        fact("input", 1),
        fact("input", 2, "2026-01-01"),
        fact("output", 3),
        fact("input", 4, tier="flex"),
        fact("input", 5, "2027-01-01", tier="flex"),
        fact("input", 6, latency="optimized"),
        fact("input", 7, above_tokens=100),
        fact("image", 8, detail="big"),
        fact("image", 9, detail="small"),
    ]
    assert sorted(each.pico_usd for each in in_force(facts, DAY)) == [2, 3, 4, 6, 7, 8, 9]
    found = price_list(in_force(facts, DAY))
    assert found is not None
    assert (found.effective_from, found.source) == (DAY, "test")


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({}, (8, 9, 8, 10, 16)),
        ({"cache_read": 1}, (8, 9, 1, 8, 8)),
        ({"cache_read": 1, "cache_write_5m": 3}, (8, 9, 1, 3, 16)),
        ({"cache_read": 1, "cache_write_1h": 3}, (8, 9, 1, 10, 3)),
        ({"cache_write_5m": 3}, (8, 9, 8, 3, 16)),
        ({"cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0}, (8, 9, 0, 0, 0)),
    ],
)
def test_a_cache_price_that_is_not_listed_is_never_free(listed: dict[str, int], expected: tuple[int, ...]) -> None:
    found = prices(fact("input", 8), fact("output", 9), *(fact(kind, pico) for kind, pico in listed.items()))
    assert rates(found) == expected


@pytest.mark.parametrize("kinds", [(), ("input",), ("output",), ("cache_read", "output"), ("image",)])
def test_half_a_price_is_none(kinds: tuple[str, ...]) -> None:
    assert price_list([fact(kind, 5) for kind in kinds]) is None
    assert price_list([*(fact(kind, 5) for kind in kinds), fact("input", 0)]) is None
    assert price_list([fact("input", 5, tier="flex"), fact("output", 5, tier="flex")]) is None


def test_embeddings_have_no_output() -> None:
    assert rates(prices(fact("input", 8, model="acme.embed-v1")))[:2] == (8, 0)


def test_variants() -> None:
    found = prices(
        fact("input", 8),
        fact("output", 10),
        fact("cache_read", 3),
        fact("cache_write_5m", 9),
        *(fact(kind, pico, tier="flex") for kind, pico in (("input", 4), ("output", 5))),
        *(fact(kind, pico, tier="priority") for kind, pico in (("input", 13), ("output", 20))),
        *(fact(kind, pico, above_tokens=200) for kind, pico in (("input", 16), ("output", 15), ("cache_write_1h", 40))),
        fact("output", 12, latency="optimized"),
        fact("image", 1),
    )
    assert found.variants == {
        Served("flex"): {0: Price(4, 5, 3, 9, 9)},  # a cache is not believed to be cheaper than it is listed
        Served("priority"): {0: Price(13, 20, 5, 15, 26)},  # but to be dearer as input is, rounded up
        DEFAULT: {200: Price(16, 15, 6, 18, 40)},
        Served(latency="optimized"): {0: Price(8, 12, 3, 9, 16)},
    }
    assert found.long_above == 200


def test_units_are_apart_and_in_order() -> None:
    facts = [fact("search_unit", 5), fact("image", 3, detail="b"), fact("image", 4, detail="a"), fact("input", 1)]
    since = dt.date(2025, 1, 1)
    assert unit_prices(facts) == (
        UnitPrice("image", "a", 4, "default", since, "test"),
        UnitPrice("image", "b", 3, "default", since, "test"),
        UnitPrice("search_unit", "", 5, "default", since, "test"),
    )

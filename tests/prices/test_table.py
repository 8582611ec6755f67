"""How a model id and a day find their row."""

import datetime as dt
import sys
import threading
from typing import Any

import pytest

from bedrock_budget.core.pricing import Price, Prices
from bedrock_budget.core.served import DEFAULT, Served
from bedrock_budget.core.usage import Usage
from bedrock_budget.core.worst_case import Limits
from bedrock_budget.prices import PriceRow, PriceTable, bundled, table

TODAY = dt.date(2026, 6, 1)


def row(profile: str | None, price: int, since: str = "2025-01-01", **more: Any) -> dict[str, Any]:
    caches = {"cache_read": price, "cache_write_5m": price, "cache_write_1h": price}
    return {"profile": profile, "from": since, "source": "test", "input": price, "output": price, **caches, **more}


def data(**models: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "generated": "2026-06-01",
        "currency": "USD",
        "unit": "usd_micros_per_1m_tokens",
        "sources": {"test": {"name": "test", "version": "1", "licence": "none", "retrieved": "2026-06-01"}},
        "aliases": {"acme.old:0": "acme.old"},
        "models": {f"acme.{name}": {"rows": rows} for name, rows in models.items()},
    }


TABLE = PriceTable.from_json(
    data(
        full=[row(None, 110), row("us", 111), row("eu", 130), row("global", 100)],
        bare=[row(None, 200)],
        profiles=[row("us", 300), row("eu", 390), row("apac", 310), row("global", 270)],
        worldwide=[row("global", 400)],
        dated=[row(None, 50, "2025-03-01"), row(None, 70, "2024-01-01"), row(None, 60, "2026-05-31")],
        coming=[row(None, 80), row("eu", 90, "2026-07-01")],
        old=[row(None, 500)],
    )
)


def price_of(model_id: str, on: dt.date = TODAY) -> int | None:
    found = TABLE.find(model_id, region=None, on=on)
    return found.price.input if found else None


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        ("acme.full", 110),
        ("us.acme.full", 111),
        ("eu.acme.full", 130),
        ("global.acme.full", 100),
        ("arn:aws:bedrock:us-east-1::foundation-model/acme.full", 110),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.acme.full", 130),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/global.acme.full", 100),
        ("acme.full:200k", 110),
    ],
)
def test_the_row_of_the_very_profile(model_id: str, expected: int) -> None:
    assert price_of(model_id) == expected


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        ("jp.acme.full", 110),  # a geographic profile costs what its source region does
        ("us.acme.bare", 200),
        ("global.acme.bare", 200),  # never cheaper than real
        ("acme.profiles", 390),  # the dearest geographic row, not the global one
        ("jp.acme.profiles", 390),
        ("global.acme.profiles", 270),
        ("global.acme.worldwide", 400),
    ],
)
def test_what_a_missing_row_falls_back_to(model_id: str, expected: int) -> None:
    assert price_of(model_id) == expected


@pytest.mark.parametrize(
    "model_id",
    [
        "acme.unknown",
        "us.acme.unknown",
        "mars.acme.full",
        "acme.worldwide",  # the global price would be too cheap
        "us.acme.worldwide",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr",
        "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef123456",
        "arn:aws:sagemaker:us-east-1:123456789012:endpoint/acme.full",
        "full",
    ],
)
def test_no_price_is_known(model_id: str) -> None:
    assert price_of(model_id) is None


def test_an_alias_has_the_rows_of_its_model() -> None:
    assert price_of("acme.old:0:8k") == price_of("acme.old") == 500


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ((2024, 1, 1), 70),
        ((2025, 2, 28), 70),
        ((2025, 3, 1), 50),
        ((2026, 5, 30), 50),
        ((2026, 5, 31), 60),
        ((2030, 1, 1), 60),
        ((2023, 12, 31), 70),  # before the first row: the oldest
    ],
)
def test_the_row_in_force_on_a_day(on: tuple[int, int, int], expected: int) -> None:
    assert price_of("acme.dated", dt.date(*on)) == expected


def test_a_row_of_the_future_does_not_hide_the_fallback_of_today() -> None:
    assert price_of("eu.acme.coming", dt.date(2026, 6, 30)) == 80
    assert price_of("eu.acme.coming", dt.date(2026, 7, 1)) == 90


def test_before_every_row_of_a_profile_its_oldest_is_taken() -> None:
    assert price_of("eu.acme.coming", dt.date(2020, 1, 1)) == 90
    assert price_of("acme.profiles", dt.date(2020, 1, 1)) == 390


def test_a_row_says_what_it_is_the_price_of() -> None:
    found = TABLE.find("eu.acme.full", region="eu-west-1", on=TODAY)
    price = Price(130, 130, 130, 130, 130)
    assert found is not None
    assert found == PriceRow(price, "acme.full", "eu", dt.date(2025, 1, 1), "test", found.prices)
    assert found.prices == Prices(130, 130, 130, 130, 130)


REGIONAL = PriceTable.from_json(
    data(
        here=[
            row(None, 100),
            row("eu", 120),
            row("us", 101),
            row("global", 90),
            row("us-gov", 150),
            row(None, 125, when={"region": "eu-west-2"}),
            row(None, 160, when={"region": "us-gov-west-1"}),
            row(None, 99, when={"region": "us-east-2"}),
            row("us", 102, when={"region": "us-west-2"}),
            row("global", 95, when={"region": "sa-east-1"}),
        ],
        asia=[row(None, 10), row("apac", 12), row("jp", 13), row("au", 14)],
    )
)


@pytest.mark.parametrize(
    ("model_id", "region", "expected"),
    [
        ("acme.here", "eu-west-2", 125),  # the region's own
        ("acme.here", "eu-west-1", 120),  # what a geography's regions cost
        ("acme.here", "us-east-1", 100),
        ("acme.here", "us-west-2", 100),  # a profile's price is not in-region's
        ("acme.here", "us-gov-west-1", 160),
        ("acme.here", "us-gov-east-1", 150),
        ("acme.here", "sa-east-1", 100),
        ("acme.here", None, 100),
        ("eu.acme.here", "eu-west-2", 125),  # a geographic profile costs what its source region does
        ("eu.acme.here", "eu-west-1", 120),
        ("us.acme.here", "us-west-2", 102),
        ("us.acme.here", "us-east-1", 101),
        ("us.acme.here", "us-east-2", 99),
        ("eu.acme.here", "us-east-2", 120),  # which is in no geography of the profile
        ("jp.acme.here", "eu-west-1", 120),
        ("global.acme.here", "eu-west-2", 90),
        ("global.acme.here", "sa-east-1", 95),
        ("arn:aws:bedrock:eu-west-2::foundation-model/acme.here", "us-east-1", 125),  # the ARN's region counts
        ("acme.asia", "ap-northeast-1", 13),
        ("acme.asia", "ap-northeast-2", 12),
        ("acme.asia", "ap-southeast-2", 14),
        ("acme.asia", "ap-south-1", 12),
    ],
)
def test_the_order_of_places(model_id: str, region: str | None, expected: int) -> None:
    found = REGIONAL.find(model_id, region=region, on=TODAY)
    assert found is not None
    assert found.price.input == expected
    assert REGIONAL.find(model_id, region=region, on=TODAY) is found  # kept


def test_listing() -> None:
    names = ("bare", "coming", "dated", "full", "old", "profiles", "worldwide")
    assert TABLE.models() == tuple(f"acme.{name}" for name in names)
    inputs = [fact for fact in TABLE.facts("acme.full") if fact.kind == "input"]
    assert [(fact.profile, fact.pico_usd) for fact in inputs] == [
        (None, 110),
        ("us", 111),
        ("eu", 130),
        ("global", 100),
    ]
    assert len(TABLE.facts("acme.dated")) == 3 * 5
    assert TABLE.facts("acme.unknown") == ()


def test_variants_are_of_the_place_that_is_found() -> None:
    rows = [
        row(None, 100),
        row(None, 50, when={"tier": "flex"}),
        row(None, 125, when={"latency": "optimized"}),
        row(None, 200, when={"input_above": 1000}),
        row("us", 110),
        row(None, 60, "2026-09-01", when={"tier": "flex"}),
    ]
    found = PriceTable.from_json(data(m=rows)).find("acme.m", region=None, on=TODAY)
    assert found is not None
    assert found.price == Price(100, 100, 100, 100, 100)
    prices = found.prices
    assert prices.served(Served("flex"), 1) == (Price(50, 50, 50, 50, 50), True)
    assert prices.served(Served(latency="optimized"), 1) == (Price(125, 125, 125, 125, 125), True)
    assert prices.served(DEFAULT, 1001) == (Price(200, 200, 200, 200, 200), True)
    later = PriceTable.from_json(data(m=rows)).find("acme.m", region=None, on=dt.date(2026, 9, 1))
    assert later is not None
    assert later.prices.served(Served("flex"), 1).price.input == 60
    us = PriceTable.from_json(data(m=rows)).find("us.acme.m", region=None, on=TODAY)
    assert us is not None
    assert us.prices.served(Served("flex"), 1) == (us.price, False)


def test_a_model_with_variants_alone_has_no_price() -> None:
    table_ = PriceTable.from_json(data(m=[row(None, 1, when={"tier": "flex"})]))
    assert table_.find("acme.m", region=None, on=TODAY) is None


def test_a_year_of_price_changes_prices_usage_by_its_own_day() -> None:
    months = [row(None, 100 - month, f"2026-{month:02}-01") for month in range(1, 13)]
    table_ = PriceTable.from_json(data(m=months[::-1]))
    day = dt.date(2026, 1, 1)
    while day.year == 2026:
        found = table_.find("acme.m", region=None, on=day)
        assert found is not None
        assert found.prices.cost(Usage(1_000, 10)) == 1_010 * (100 - day.month)
        assert found.effective_from == day.replace(day=1)
        day += dt.timedelta(days=1)


def test_other_units() -> None:
    head = {"from": "2025-01-01", "source": "test"}
    given = data(m=[row(None, 1)])
    given["models"]["acme.image"] = {
        "units": [
            {**head, "profile": None, "kind": "image", "detail": "1024x1024", "pico_usd": 7},
            {**head, "profile": None, "kind": "image", "detail": "1024x1024", "pico_usd": 5, "from": "2026-01-01"},
            {**head, "profile": None, "kind": "image", "pico_usd": 9, "when": {"region": "eu-west-1"}},
            {**head, "profile": "us", "kind": "search_unit", "pico_usd": 3},
        ]
    }
    found = PriceTable.from_json(given)

    def units(model_id: str, region: str | None = None, on: dt.date = TODAY) -> list[tuple[str, str, int]]:
        return [(unit.kind, unit.detail, unit.pico_usd) for unit in found.units(model_id, region=region, on=on)]

    assert units("acme.image") == [("image", "1024x1024", 5)]
    assert units("acme.image", on=dt.date(2025, 5, 1)) == [("image", "1024x1024", 7)]
    assert units("acme.image", on=dt.date(2020, 5, 1)) == [("image", "1024x1024", 7)]
    assert units("acme.image", "eu-west-1") == [("image", "", 9)]
    assert units("us.acme.image", "us-east-1") == [("search_unit", "", 3)]
    assert units("acme.m") == units("acme.other") == units("other") == []
    assert found.find("acme.image", region=None, on=TODAY) is None


def test_answers_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_FOUND", 3)
    found = PriceTable.from_json(data(m=[row(None, 1)]))
    for day in range(1, 20):
        assert found.find("acme.m", region=None, on=dt.date(2026, 1, day)) is not None


def test_a_table_of_facts_is_the_same() -> None:
    facts = [fact for model in TABLE.models() for fact in TABLE.facts(model)]
    again = PriceTable(facts, {"acme.old:0": "acme.old"})
    assert again.models() == TABLE.models()
    for model_id in ("eu.acme.full", "jp.acme.profiles", "acme.old:0"):
        on = {"region": None, "on": TODAY}
        assert again.find(model_id, **on) == TABLE.find(model_id, **on)  # type: ignore[arg-type]


def test_a_lazy_table_reads_a_model_when_it_is_asked_for() -> None:
    given = data(m=[row(None, 1)], broken=[{**row(None, 1), "input": -1}])
    lazy = PriceTable.from_json(given, lazily=True)
    assert lazy.models() == ("acme.broken", "acme.m")
    assert lazy.find("acme.m", region=None, on=TODAY) is not None
    with pytest.raises(ValueError, match=r"^models\.acme\.broken\.rows\[0\]"):
        lazy.find("acme.broken", region=None, on=TODAY)


def test_aliases_may_be_absent() -> None:
    given = data(m=[row(None, 1)])
    del given["aliases"]
    assert PriceTable.from_json(given).models() == ("acme.m",)


@pytest.mark.parametrize("name", ["schema_version", "currency", "unit"])
def test_a_table_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got 'other'"):
        PriceTable.from_json({**data(), name: "other"})


@pytest.mark.parametrize(
    "broken",
    [
        {"input": 1.5},
        {"output": -1},
        {"cache_read": True},
        {"cache_write_5m": "1"},
        {"cache_write_1h": None},
        {"from": "yesterday"},
        {"from": 20250101},
        {"profile": 1},
        {"source": None},
        {"price": 1},
        {"when": {"moon": "full"}},
        {"when": {"tier": 1}},
        {"when": {"input_above": -1}},
    ],
)
def test_a_broken_row_is_refused_by_name(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^models\.acme\.m\.rows\[1\]: "):
        PriceTable.from_json(data(m=[row(None, 1), {**row("us", 1), **broken}]))


@pytest.mark.parametrize("member", ["profile", "from", "source"])
def test_a_row_that_lacks_a_member_is_refused(member: str) -> None:
    given = row(None, 1)
    del given[member]
    with pytest.raises(ValueError, match=rf"^models\.acme\.m\.rows\[0\]: .*{member}"):
        PriceTable.from_json(data(m=[given]))


@pytest.mark.parametrize(("name", "value", "where"), [("models", [], "models"), ("aliases", 5, "aliases")])
def test_a_broken_table_is_refused(name: str, value: object, where: str) -> None:
    with pytest.raises(ValueError, match=f"^{where}: "):
        PriceTable.from_json({**data(), name: value})


def test_all_threads_get_one_bundled_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_loaded", {})
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    barrier = threading.Barrier(8)
    got: list[PriceTable] = []

    def load() -> None:
        barrier.wait()
        got.append(bundled())

    threads = [threading.Thread(target=load) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(got) == 8
    assert all(each is bundled() for each in got)


def test_limits_are_those_of_the_base_model() -> None:
    listed = data(old=[row(None, 1)], none=[row(None, 1)])
    listed["models"]["acme.old"]["limits"] = {"context_window_tokens": 8_000, "priority_pct": 175}
    found = PriceTable.from_json(listed)
    assert found.limits("acme.old") == Limits(context_window_tokens=8_000, priority_pct=175)
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.acme.old"
    for model_id in ("us.acme.old", "acme.old:0", arn):
        assert found.limits(model_id) == found.limits("acme.old")
    for model_id in (
        "acme.none",
        "acme.other",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/x",
    ):
        assert found.limits(model_id) is None
    assert PriceTable([]).limits("acme.old") is None


@pytest.mark.parametrize(
    "limits", [{"context_window_tokens": -1}, {"context_window_tokens": True}, {"priority_pct": 1.5}, {"other": 1}, []]
)
def test_limits_that_cannot_be_read_are_named(limits: Any) -> None:
    listed = data(old=[row(None, 1)])
    listed["models"]["acme.old"]["limits"] = limits
    with pytest.raises(ValueError, match=r"models\.acme\.old\.limits"):
        PriceTable.from_json(listed)

"""How a model id and a day find their row."""

import datetime as dt
import sys
import threading
from typing import Any

import pytest

from bedrock_budget.core.pricing import Price
from bedrock_budget.core.worst_case import Limits
from bedrock_budget.prices import PriceRow, PriceTable, bundled, table

TODAY = dt.date(2026, 6, 1)


def row(profile: str | None, price: int, since: str = "2025-01-01", **more: Any) -> dict[str, Any]:
    caches = {"cache_read": price, "cache_write_5m": price, "cache_write_1h": price}
    return {"profile": profile, "from": since, "source": "test", "input": price, "output": price, **caches, **more}


def data(**models: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema_version": 1,
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
    assert found == PriceRow(price, "acme.full", "eu", dt.date(2025, 1, 1), "test")


def test_the_region_makes_no_difference_yet() -> None:
    assert TABLE.find("acme.full", region="sa-east-1", on=TODAY) == TABLE.find("acme.full", region=None, on=TODAY)


def test_listing() -> None:
    names = ("bare", "coming", "dated", "full", "old", "profiles", "worldwide")
    assert TABLE.models() == tuple(f"acme.{name}" for name in names)
    assert [(r.profile, r.price.input) for r in TABLE.rows("acme.full")] == [
        (None, 110),
        ("eu", 130),
        ("global", 100),
        ("us", 111),
    ]
    assert [r.price.input for r in TABLE.rows("acme.dated")] == [60, 50, 70]
    assert TABLE.rows("acme.unknown") == ()


def test_rows_under_conditions_are_left_out() -> None:
    conditional = row(None, 1, when={"tier": "flex"})
    found = PriceTable.from_json(data(m=[conditional, row(None, 2)], n=[conditional]))
    assert found.models() == ("acme.m",)
    assert [r.price.input for r in found.rows("acme.m")] == [2]


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
    ],
)
def test_a_broken_row_is_refused_by_name(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^models\.acme\.m\.rows\[1\]: "):
        PriceTable.from_json(data(m=[row(None, 1), {**row("us", 1), **broken}]))


@pytest.mark.parametrize("member", ["profile", "from", "source", "input", "cache_read"])
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

"""The frozen budget: hand prices over the table's, labels by name and by model id."""

from dataclasses import FrozenInstanceError, replace
from datetime import UTC

import pytest

from bedrock_budget.core.budget import HandPrice, ModelLabel, ScopeBudget, Settings
from bedrock_budget.core.pricing import Price

LISTED = Price(1, 2, 3, 4, 5)

BUDGET = ScopeBudget(
    org_id="acme",
    app_id="chat",
    scope="ORG#acme#APP#chat",
    timezone_name="UTC",
    timezone=UTC,
    ordering=("standard", "premium"),
    labels={
        "twin": ModelLabel("twin", "model-a"),
        "premium": ModelLabel("premium", "model-a"),
        "standard": ModelLabel("standard", "model-b"),
        "search": ModelLabel("search", "model-c"),
        "search-twin": ModelLabel("search-twin", "model-c"),
        "model-b": ModelLabel("model-b", "model-d"),
    },
    quotas={"premium": 5, "standard": None},
    shard_count=8,
    tight_mode_threshold_pct=95,
    refresh_interval_normal_secs=300,
    refresh_interval_tight_secs=60,
    sticky_fallback_enabled=True,
    aggregator_interval_secs=60,
    settings=Settings(),
)


@pytest.mark.parametrize(
    ("price", "listed", "result"),
    [
        (HandPrice(10, 20), LISTED, Price(10, 20, 3, 4, 5)),
        (HandPrice(10, 20, 0, 0, 0), LISTED, Price(10, 20, 0, 0, 0)),
        (HandPrice(10, 20, cache_write_1h=7), LISTED, Price(10, 20, 3, 4, 7)),
        (HandPrice(10, 20), None, Price(10, 20, 10, 13, 20)),
        (HandPrice(10, 20, 0, 0, 0), None, Price(10, 20, 0, 0, 0)),
        (HandPrice(10, 20, cache_read=1), None, Price(10, 20, 1, 13, 20)),
    ],
)
def test_a_hand_price_goes_over_the_listed_one(price: HandPrice, listed: Price | None, result: Price) -> None:
    assert price.over(listed) == result


@pytest.mark.parametrize(
    ("asked", "label"),
    [
        ("premium", "premium"),
        ("search", "search"),
        ("model-a", "premium"),  # of the labels that map to it, the first in the ordering
        ("model-c", "search"),  # outside the ordering, the first in the configuration
        ("model-b", "model-b"),  # a label wins over a model id
        ("model-d", "model-b"),
        ("model-x", None),
        ("", None),
        ("Premium", None),
    ],
)
def test_the_label_that_a_call_names(asked: str, label: str | None) -> None:
    assert BUDGET.label_of(asked) == label


@pytest.mark.parametrize(("label", "quota"), [("premium", 5), ("standard", None), ("search", None)])
def test_no_quota_means_unlimited(label: str, quota: int | None) -> None:
    assert BUDGET.quota_usd_micros(label) == quota


def test_a_budget_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        BUDGET.scope = "ORG#other"  # type: ignore[misc]
    assert replace(BUDGET, shard_count=4) != BUDGET


def test_the_settings_that_nobody_set() -> None:
    assert Settings() == Settings(
        refresh="adaptive",
        on_exhausted="raise",
        on_unknown_model="reject",
        on_unknown_price="reject",
        on_store_error=1_000_000,
    )

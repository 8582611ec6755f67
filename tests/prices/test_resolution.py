"""Fetched prices over the bundled table: of other tiers and of long prompts too."""

from datetime import date

import pytest

from bedrock_budget.core.cached_prices import CachedPrices, PriceKey
from bedrock_budget.core.price_facts import PriceFact
from bedrock_budget.core.pricing import Price
from bedrock_budget.core.served import DEFAULT, Served
from bedrock_budget.prices import bundled
from bedrock_budget.prices.resolution import FoundPrice, KnownPrices

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
TODAY = date(2026, 11, 21)
REGION = "us-east-1"
BATCH = Served("batch")


def fact(kind: str, pico_usd: int, *, model: str = CLAUDE, tier: str = "default", above: int = 0) -> PriceFact:
    since = date(2026, 1, 1)
    return PriceFact(model, None, REGION, tier, "standard", above, kind, "", pico_usd, since, "aws-price-list")


def find(*facts: PriceFact, model: str = CLAUDE) -> FoundPrice:
    cached = CachedPrices(PriceKey(model, TODAY, REGION), facts, 0, 1)
    found = KnownPrices(bundled(), {(model, REGION): cached}).find(model, region=REGION, on=TODAY)
    assert found is not None
    assert found.cached is cached
    return found


@pytest.fixture
def listed() -> Price:
    row = bundled().find(CLAUDE, region=REGION, on=TODAY)
    assert row is not None
    assert {DEFAULT, BATCH} <= set(row.prices.variants)
    return row.prices


def test_what_was_not_fetched_is_in_proportion_to_the_plain_price_that_was(listed: Price) -> None:
    prices = find(fact("input", 2 * listed.input), fact("output", 3 * listed.output)).prices
    known = bundled().find(CLAUDE, region=REGION, on=TODAY)
    assert known is not None
    assert prices.rates()[:2] == (2 * listed.input, 3 * listed.output)
    for way, rungs in known.prices.variants.items():
        for above, price in rungs.items():
            scaled = prices.variants[way][above]
            assert (scaled.input, scaled.output) == (2 * price.input, 3 * price.output)
            assert scaled.cache_read == 2 * price.cache_read


def test_what_was_fetched_for_a_tier_counts_before_the_proportion(listed: Price) -> None:
    plain = (fact("input", listed.input), fact("output", listed.output))
    prices = find(*plain, fact("input", 7, tier="batch"), fact("output", 9, tier="batch")).prices
    assert prices.served(BATCH, 1).price.rates()[:2] == (7, 9)
    assert prices.served(DEFAULT, 300_000).price.input > listed.input  # long prompts as the table says


def test_a_model_that_the_table_lacks_has_what_was_fetched() -> None:
    model = "acme.new-v1:0"
    facts = [fact("input", 100, model=model), fact("output", 200, model=model)]
    facts.append(fact("input", 150, model=model, above=1000))
    prices = find(*facts, model=model).prices
    assert prices.rates()[:2] == (100, 200)
    assert prices.served(DEFAULT, 1001).price.input == 150
    assert find(*facts, model=model).price == Price(*prices.rates())

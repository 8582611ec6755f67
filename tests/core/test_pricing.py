"""What usage costs: exact, in whole and in parts."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.money import micros_text
from bedrock_budget.core.pricing import NEVER, Price, Prices, cost_pico_usd
from bedrock_budget.core.served import DEFAULT, Served
from bedrock_budget.core.usage import Usage

TOKENS = st.integers(min_value=0, max_value=10**9)
RATES = st.integers(min_value=0, max_value=10**9)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
PRICES = st.builds(Price, RATES, RATES, RATES, RATES, RATES)

NOVA_MICRO = Price(35_000, 140_000, 8_750, 35_000, 35_000)
SONNET = Price(3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000)


@pytest.mark.parametrize(
    ("usage", "price", "micros"),
    [
        (Usage(), SONNET, "0"),
        (Usage(20, 5), NOVA_MICRO, "1.4"),  # floored per term this would be 0
        (Usage(1), NOVA_MICRO, "0.035"),
        (Usage(1_000_000), SONNET, "3000000"),
        (Usage(0, 1_000_000), SONNET, "15000000"),
        (Usage(0, 0, 1_000_000), SONNET, "300000"),
        (Usage(0, 0, 0, 1_000_000), SONNET, "3750000"),
        (Usage(0, 0, 0, 0, 1_000_000), SONNET, "6000000"),
        (Usage(10, 20, 30, 40, 50), SONNET, "789"),
    ],
)
def test_literal_costs(usage: Usage, price: Price, micros: str) -> None:
    assert micros_text(cost_pico_usd(usage, price)) == micros


@given(st.lists(USAGES, max_size=20), PRICES)
def test_a_sum_of_costs_is_the_cost_of_the_summed_usage(usages: list[Usage], price: Price) -> None:
    total = Usage()
    for usage in usages:
        total = total.plus(usage)
    assert sum(cost_pico_usd(usage, price) for usage in usages) == cost_pico_usd(total, price)


@given(USAGES, PRICES)
def test_a_cost_is_exact_to_the_last_pico(usage: Usage, price: Price) -> None:
    rates = (price.input, price.output, price.cache_read, price.cache_write_5m, price.cache_write_1h)
    usd = sum(Fraction(rate, 10**6) * Fraction(tokens, 10**6) for tokens, rate in zip(usage, rates, strict=True))
    assert Fraction(cost_pico_usd(usage, price), 10**12) == usd


@given(USAGES, USAGES, PRICES)
def test_more_tokens_never_cost_less(usage: Usage, more: Usage, price: Price) -> None:
    assert cost_pico_usd(usage.plus(more), price) >= cost_pico_usd(usage, price) >= 0


@given(RATES, RATES)
def test_a_cache_price_that_is_not_known_is_never_below_the_input_price(rate: int, output: int) -> None:
    price = Price.of(rate, output)
    assert price.input == price.cache_read == rate
    assert price.output == output
    assert price.cache_write_5m - 1 < Fraction(rate * 5, 4) <= price.cache_write_5m  # rounded up
    assert price.cache_write_1h == 2 * rate


def test_a_cache_price_that_is_given_stands_even_if_it_is_nothing() -> None:
    assert Price.of(8, 9, cache_read=0, cache_write_5m=0, cache_write_1h=0) == Price(8, 9, 0, 0, 0)
    assert Price.of(8, 9, cache_read=1, cache_write_5m=2, cache_write_1h=3) == Price(8, 9, 1, 2, 3)


NOVA = Prices(
    *(800, 3_200, 200, 800, 800),
    variants={
        Served("flex"): {0: Price(400, 1_600, 200, 400, 400)},
        Served("priority"): {0: Price(1_400, 5_600, 350, 1_400, 1_400)},
        DEFAULT: {200_000: Price(1_600, 4_800, 400, 1_600, 1_600), 500_000: Price(3_200, 4_800, 800, 3_200, 3_200)},
        Served(latency="optimized"): {0: Price(1_000, 4_001, 250, 1_000, 1_000)},
    },
)
BARE = Prices(800, 3_201, 200, 800, 0)


def test_a_single_price_is_flat() -> None:
    for served in (DEFAULT, Served("priority"), Served("ultra", "optimized")):
        assert SONNET.served(served, 10**6) == (SONNET, True)
        assert SONNET.dearest(served, 10**6) is SONNET
    assert SONNET.cost(Usage(10, 20, 30, 40, 50)) == 789_000_000
    assert SONNET.long_above == NEVER


@pytest.mark.parametrize(
    ("model", "served", "prompt", "rates", "listed"),
    [
        (NOVA, DEFAULT, 200_000, (800, 3_200, 200, 800, 800), True),
        (NOVA, DEFAULT, 200_001, (1_600, 4_800, 400, 1_600, 1_600), True),
        (NOVA, DEFAULT, 500_001, (3_200, 4_800, 800, 3_200, 3_200), True),
        (NOVA, Served("flex"), 5, (400, 1_600, 200, 400, 400), True),
        (NOVA, Served("priority"), 5, (1_400, 5_600, 350, 1_400, 1_400), True),
        (NOVA, Served(latency="optimized"), 5, (1_000, 4_001, 250, 1_000, 1_000), True),
        # what is not listed is made of what is, and never silently
        (NOVA, Served("flex"), 200_001, (800, 2_400, 400, 800, 800), False),
        (NOVA, Served("priority", "optimized"), 5, (1_750, 7_002, 438, 1_750, 1_750), False),
        (NOVA, Served("batch"), 5, (800, 3_200, 200, 800, 800), False),
        (NOVA, Served("reserved"), 5, (800, 3_200, 200, 800, 800), False),
        (NOVA, Served("ultra"), 5, (1_400, 5_600, 350, 1_400, 1_400), False),  # the dearest known
        (NOVA, Served("ultra"), 500_001, (5_600, 8_400, 1_400, 5_600, 5_600), False),
        (BARE, DEFAULT, 10**9, (800, 3_201, 200, 800, 0), True),
        (BARE, Served("priority"), 5, (1_400, 5_602, 350, 1_400, 0), False),
        (BARE, Served(latency="optimized"), 5, (1_000, 4_002, 250, 1_000, 0), False),
        (BARE, Served("ultra"), 5, (800, 3_201, 200, 800, 0), False),
    ],
)
def test_the_rates_follow_what_was_served(
    model: Prices, served: Served, prompt: int, rates: tuple[int, ...], listed: bool
) -> None:
    for _ in range(2):  # the second answer is kept from the first
        assert model.served(served, prompt) == (Price(*rates), listed)


def test_a_rate_that_is_free_is_scaled_to_what_is_listed() -> None:
    embeddings = Prices(
        8, 0, 8, 8, 8, variants={Served("flex"): {0: Price(4, 1, 4, 4, 4)}, DEFAULT: {9: Price(*[16] * 5)}}
    )
    assert embeddings.served(Served("flex"), 10).price == Price(8, 16, 8, 8, 8)


def test_long_prompts_count_cached_tokens() -> None:
    assert NOVA.long_above == 200_000
    assert NOVA.cost(Usage(100_000, 1, 60_000, 30_000, 10_000)) == 100_000 * 800 + 3_200 + (200 * 60 + 800 * 40) * 1000
    assert NOVA.cost(Usage(100_001, 1, 60_000, 30_000, 10_000)) == (
        100_001 * 1_600 + 4_800 + (400 * 60 + 1_600 * 40) * 1000
    )


def test_words_from_responses_are_kept_within_bounds() -> None:
    prices = Prices(8, 9, 8, 8, 8)
    for number in range(200):
        assert prices.served(Served(f"tier {number}"), 1).listed is False


WORDS = st.sampled_from(["default", "flex", "priority", "batch", "reserved", "ultra"])
SERVED = st.builds(Served, WORDS, st.sampled_from(["standard", "optimized", "other"]))
RUNGS = st.dictionaries(st.sampled_from([0, 10, 100, 1000]), PRICES, max_size=3)
BOOKS = st.builds(
    lambda plain, variants: Prices(*plain.rates(), variants={way: rungs for way, rungs in variants.items() if rungs}),
    PRICES,
    st.dictionaries(SERVED, RUNGS, max_size=4).map(
        lambda given: {way: {a: p for a, p in rungs.items() if a or way != DEFAULT} for way, rungs in given.items()}
    ),
)


@given(BOOKS, SERVED, st.integers(min_value=0, max_value=2000))
def test_every_way_of_serving_has_a_price_that_its_dearest_bounds(prices: Prices, served: Served, prompt: int) -> None:
    bound = prices.dearest(served, prompt)
    for fallback in (served, DEFAULT, Served(served.tier), Served(latency=served.latency)):
        for shorter in (prompt, prompt // 2, 0):
            got = prices.served(fallback, shorter).price.rates()
            assert all(rate <= most for rate, most in zip(got, bound.rates(), strict=True))

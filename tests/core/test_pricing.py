"""What usage costs: exact, in whole and in parts."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.money import micros_text
from bedrock_budget.core.pricing import Price, cost_pico_usd
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

"""Money: exact in, exact out; rounded half up where a figure is shown, and nowhere else."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.money import (
    PICO_PER_MICRO,
    PICO_PER_USD,
    micros_half_up,
    micros_text,
    pico_from_micros,
    usd_text,
)

AMOUNTS = st.integers(min_value=0, max_value=10**30)
SIGNED = st.integers(min_value=-(10**30), max_value=10**30)


@pytest.mark.parametrize(
    ("pico", "micros"),
    [
        (0, 0),
        (1, 0),
        (499_999, 0),
        (500_000, 1),  # half goes up
        (999_999, 1),
        (1_400_000, 1),
        (1_500_000, 2),
        (2_500_000, 3),  # up, not to even
        (PICO_PER_USD, 1_000_000),
    ],
)
def test_shown_micros(pico: int, micros: int) -> None:
    assert micros_half_up(pico) == micros


@given(AMOUNTS)
def test_a_shown_amount_is_at_most_half_a_micro_off_and_a_half_goes_up(pico: int) -> None:
    off = micros_half_up(pico) - Fraction(pico, PICO_PER_MICRO)
    assert Fraction(-1, 2) < off <= Fraction(1, 2)


@given(AMOUNTS, AMOUNTS)
def test_a_larger_amount_is_never_shown_as_smaller(one: int, other: int) -> None:
    assert (micros_half_up(one) <= micros_half_up(other)) or one > other


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (1_400_000, "1.4"),
        (-1_400_000, "-1.4"),
        (10_000_000, "10"),
        (1_000_001, "1.000001"),
        (123_450_000_000, "123450"),
    ],
)
def test_exact_text(pico: int, text: str) -> None:
    assert micros_text(pico) == text


@given(SIGNED)
def test_an_amount_written_and_read_back_is_the_same(pico: int) -> None:
    text = micros_text(pico)
    assert pico_from_micros(text) == pico
    assert pico_from_micros(Decimal(text)) == pico
    assert set(text) <= set("-.0123456789")  # no exponent: stores and people read it


@given(st.integers(min_value=-(10**24), max_value=10**24))
def test_whole_micros_are_a_million_pico_each(micros: int) -> None:
    assert pico_from_micros(micros) == pico_from_micros(str(micros)) == micros * 1_000_000


@pytest.mark.parametrize("micros", ["1.0000001", Decimal("0.00000001"), "", "one", "1,5", "NaN", "inf", "-Infinity"])
def test_what_is_no_exact_amount_is_refused_by_name(micros: str | Decimal) -> None:
    with pytest.raises(ValueError, match="USD micros") as caught:
        pico_from_micros(micros)
    assert repr(micros) in str(caught.value)


@pytest.mark.parametrize("micros", [None, [], {}, object()])
def test_what_is_no_number_is_refused_too(micros: object) -> None:
    with pytest.raises(ValueError, match="not an amount of USD micros"):
        pico_from_micros(micros)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "$0.000000"),
        (499_999, "$0.000000"),
        (500_000, "$0.000001"),
        (1_250_000_000, "$0.001250"),
        (PICO_PER_USD, "$1.000000"),
        (1_234_567 * PICO_PER_USD + 890_000_000_000, "$1,234,567.890000"),
        (-1_250_000_000, "-$0.001250"),
        (-1, "$0.000000"),  # no minus before what is shown as nothing
        (999_999_500_000, "$1.000000"),  # the rounding carries
    ],
)
def test_dollars_for_people(pico: int, text: str) -> None:
    assert usd_text(pico) == text


@given(SIGNED)
def test_dollars_shown_are_within_half_a_micro_dollar(pico: int) -> None:
    shown = Decimal(usd_text(pico).replace("$", "").replace(",", ""))
    assert abs(Fraction(shown) - Fraction(pico, PICO_PER_USD)) <= Fraction(1, 2_000_000)

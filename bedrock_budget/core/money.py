"""Money as integers.

A price is USD micros per 1,000,000 tokens, so tokens x price is an exact integer of *pico*-USD (1e-12 USD).
Costs are summed and compared in pico-USD; rounding (half up) happens only where a figure is shown.
"""

from decimal import Decimal

PICO_PER_MICRO = 1_000_000
HALF_MICRO = PICO_PER_MICRO // 2
PICO_PER_USD = 1_000_000_000_000


def micros_half_up(pico_usd: int) -> int:
    """USD micros of a pico-USD amount >= 0, rounded half up, for showing."""
    return (pico_usd + HALF_MICRO) // PICO_PER_MICRO


def micros_text(pico_usd: int) -> str:
    """The exact amount in USD micros as a decimal numeral: ``1400000`` pico is ``"1.4"``."""
    whole, rest = divmod(abs(pico_usd), PICO_PER_MICRO)
    sign = "-" if pico_usd < 0 else ""
    return f"{sign}{whole}.{rest:06d}".rstrip("0") if rest else f"{sign}{whole}"


def pico_from_micros(micros: int | str | Decimal) -> int:
    """Exact pico-USD of an amount in USD micros.

    Raises ValueError if the amount is not a finite number of at most six decimals.
    """
    if isinstance(micros, int):
        return micros * PICO_PER_MICRO
    try:
        numerator, denominator = Decimal(micros).as_integer_ratio()
    except (ArithmeticError, ValueError, TypeError):
        raise ValueError(f"not an amount of USD micros: {micros!r}") from None
    pico, rest = divmod(numerator * PICO_PER_MICRO, denominator)
    if rest:
        raise ValueError(f"an amount of USD micros has at most six decimals, got {micros!r}")
    return pico


def usd_text(pico_usd: int) -> str:
    """The amount in dollars for people, rounded half up to the micro-dollar: ``$0.001250``."""
    micros = micros_half_up(abs(pico_usd))
    sign = "-" if pico_usd < 0 and micros else ""
    return f"{sign}${micros // 1_000_000:,}.{micros % 1_000_000:06d}"

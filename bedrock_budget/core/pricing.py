"""What usage costs: exact pico-USD from token counts and prices."""

from dataclasses import dataclass

from .usage import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of one model in USD micros per 1,000,000 tokens, by kind of token."""

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int

    @classmethod
    def of(
        cls,
        input: int,
        output: int,
        *,
        cache_read: int | None = None,
        cache_write_5m: int | None = None,
        cache_write_1h: int | None = None,
    ) -> "Price":
        """A price from what is known of it. A cache price that is not given is never free: reads count as
        input, writes as the dearest rates that models have (1.25 x input for 5 minutes, 2 x for 1 hour)."""
        return cls(
            input,
            output,
            input if cache_read is None else cache_read,
            -(-input * 5 // 4) if cache_write_5m is None else cache_write_5m,
            input * 2 if cache_write_1h is None else cache_write_1h,
        )


def cost_pico_usd(usage: Usage, price: Price) -> int:
    """Exact cost of ``usage`` in pico-USD. No rounding, whole or per term."""
    return (
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + usage.cache_read_tokens * price.cache_read
        + usage.cache_write_5m_tokens * price.cache_write_5m
        + usage.cache_write_1h_tokens * price.cache_write_1h
    )

"""What usage costs: exact pico-USD from token counts and prices.

`Price` is one set of rates. `Prices` is all that a model can cost in one place on one day: the plain price, and those
of other tiers, latencies and long prompts. Both are asked the same way: `Price.cost` and `Price.served`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .served import CHEAP_TIERS, DEFAULT, Served
from .usage import Usage

#: Surcharges where none is listed, in quarters of the plain price: those of nearly all models that have one listed.
PRIORITY_QUARTERS = 7
LATENCY_QUARTERS = 5
#: More tokens than any prompt has.
NEVER = 2**63


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

    @property
    def long_above(self) -> int:
        """The prompt tokens above which the plain price does not hold."""
        return NEVER

    def rates(self) -> tuple[int, int, int, int, int]:
        """The plain rates, in the order of `Usage`."""
        return self.input, self.output, self.cache_read, self.cache_write_5m, self.cache_write_1h

    def cost(self, usage: Usage) -> int:
        """Exact pico-USD of a call's usage in the default tier at standard latency."""
        return cost_pico_usd(usage, self)

    def served(self, served: Served, prompt_tokens: int) -> "Quote":
        """The rates of a call by how it was served. A single price is flat: the same for all calls."""
        return Quote(self, True)

    def dearest(self, served: Served, prompt_tokens: int) -> "Price":
        """The dearest of each rate that a call of up to so many prompt tokens can have, if it asks to be served so."""
        return self


class Quote(NamedTuple):
    """The rates of one call. Not ``listed``: made from those that are, so what it comes to is an estimate."""

    price: Price
    listed: bool


#: The prices of one tier and latency: prompts of more tokens than this cost this, the longest first, the last above 0.
Ladder = tuple[tuple[int, Quote], ...]


@dataclass(frozen=True, slots=True)
class Prices(Price):
    """The plain price of a model, and all its others. ``variants``: by tier and latency, then by ``above_tokens``.

    What is not listed is made from what is: a long prompt of a tier by the factor between the plain and the long
    price; the priority tier and optimized latency by the usual surcharge; a cheaper tier, and reserved capacity, which
    is not paid by the token, at the plain price; any other tier at the dearest rates listed.
    """

    variants: Mapping[Served, Mapping[int, Price]] = field(
        hash=False, default_factory=dict[Served, Mapping[int, Price]]
    )
    _long_above: int = field(init=False, repr=False, compare=False, default=NEVER)
    _ladders: dict[Served, Ladder] = field(init=False, repr=False, compare=False, default_factory=dict[Served, Ladder])

    def __post_init__(self) -> None:
        thresholds = self.variants.get(DEFAULT)
        if thresholds:
            object.__setattr__(self, "_long_above", min(thresholds))

    @property
    def long_above(self) -> int:
        """The prompt tokens above which the plain price does not hold."""
        return self._long_above

    def cost(self, usage: Usage) -> int:
        """Exact pico-USD of a call's usage in the default tier at standard latency; long prompts at their price."""
        tokens, output, read, written, written_1h = usage
        if tokens + read + written + written_1h > self._long_above:
            return cost_pico_usd(usage, self.served(DEFAULT, tokens + read + written + written_1h).price)
        return (
            tokens * self.input
            + output * self.output
            + read * self.cache_read
            + written * self.cache_write_5m
            + written_1h * self.cache_write_1h
        )

    def served(self, served: Served, prompt_tokens: int) -> Quote:
        """The rates of a call by how it was served. ``prompt_tokens``: cached ones included."""
        ladder = self._ladders.get(served)
        if ladder is None:
            ladder = tuple(self._rungs(served))
            if len(self._ladders) < 64:  # words come from responses
                self._ladders[served] = ladder
        return next(quote for above, quote in ladder if prompt_tokens > above or not above)

    def dearest(self, served: Served, prompt_tokens: int) -> Price:
        """The dearest of each rate that a call of up to so many prompt tokens can have, if it asks to be served so."""
        if served == DEFAULT and prompt_tokens <= self.long_above:
            return self
        ways = {DEFAULT, Served(served.tier), Served(latency=served.latency), served}
        limits = {above for rungs in self.variants.values() for above in rungs if above < prompt_tokens}
        return _dearest(self.served(way, above + 1).price for way in ways for above in (0, *limits))

    def _rungs(self, served: Served) -> Iterator[tuple[int, Quote]]:
        listed = self._listed(served)
        for above in sorted({0, *listed, *self._listed(DEFAULT)}, reverse=True):
            price = listed.get(above)
            yield above, Quote(self._made(served, above) if price is None else price, price is not None)

    def _listed(self, served: Served) -> Mapping[int, Price]:
        listed = self.variants.get(served, {})
        return {**listed, 0: self._plain()} if served == DEFAULT else listed

    def _plain(self) -> Price:
        return Price(*self.rates())

    def _made(self, served: Served, above: int) -> Price:
        """A price that is not listed."""
        plain, (tier, latency) = self._plain(), served
        if latency != DEFAULT.latency:
            price = self.served(Served(tier), above + 1).price
            listed = self._listed(Served(latency=latency)).get(0)
            return _times(price, LATENCY_QUARTERS) if listed is None else _scaled(price, listed, plain)
        price = self.served(DEFAULT, above + 1).price
        listed = self._listed(served).get(0)
        if listed is not None:
            return _scaled(price, listed, plain)
        if tier in CHEAP_TIERS:
            return price
        if tier == "priority":
            return _times(price, PRIORITY_QUARTERS)
        known = [step_price for rungs in self.variants.values() for step, step_price in rungs.items() if step <= above]
        tiers = [way for way, rungs in self.variants.items() if way.latency == DEFAULT.latency and 0 in rungs]
        return _dearest([price, *known, *(self.served(way, above + 1).price for way in tiers)])


def cost_pico_usd(usage: Usage, price: Price) -> int:
    """Exact cost of ``usage`` in pico-USD at these very rates. No rounding, whole or per term."""
    return (
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + usage.cache_read_tokens * price.cache_read
        + usage.cache_write_5m_tokens * price.cache_write_5m
        + usage.cache_write_1h_tokens * price.cache_write_1h
    )


def _times(price: Price, quarters: int) -> Price:
    return Price(*(-(-rate * quarters // 4) for rate in price.rates()))


def _scaled(price: Price, to: Price, plain: Price) -> Price:
    """``price`` by the factor from ``plain`` to another price, rate by rate, rounded up."""
    rates = zip(price.rates(), to.rates(), plain.rates(), strict=True)
    return Price(*(-(-rate * other // base) if base else max(rate, other) for rate, other, base in rates))


def _dearest(prices: Iterable[Price]) -> Price:
    """The dearest of each rate."""
    return Price(*map(max, zip(*(price.rates() for price in prices), strict=True)))

"""Prices as the table ``PricingCache`` keeps them: what was fetched of one model on one day, for one region or for all.

Keys: the Price Keeper schema specification, "PricingCache". It knows one input and one output price; every other
variant (profile, tier, latency, long prompts, cache, kind) is named by `variant_name`.
"""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import NamedTuple

from .price_facts import PriceFact

#: How long a cached price is kept (schema specification, "PricingCache TTL").
CACHE_TTL_SECS = 3 * 86_400
_CACHE_DAYS = 3

#: Stands for the model in the key of the item that says that a day's prices have all been fetched.
ALL_MODELS = "#"
#: The source of a price that another program cached.
OTHER_PROGRAM = "pricing-cache"


class PriceKey(NamedTuple):
    """What cached prices are found by. ``day``: the UTC day they were fetched on. ``region`` None: for all regions."""

    model: str
    day: date
    region: str | None

    @property
    def price_key(self) -> str:
        """``{yyyy-mm-dd}`` or ``{yyyy-mm-dd}#{region}``."""
        return self.day.isoformat() + (f"#{self.region}" if self.region else "")

    @classmethod
    def parse(cls, model: str, price_key: str) -> "PriceKey":
        """Raises ValueError for what is no ``price_key``."""
        day, _, region = price_key.partition("#")
        return cls(model, date.fromisoformat(day), region or None)


class CachedPrices(NamedTuple):
    """The prices of one model, fetched at one time. ``label``: the first configured one that stands for the model;
    ``description``: what the source calls it."""

    key: PriceKey
    facts: tuple[PriceFact, ...]
    fetched_at_epoch: int
    expires_at_epoch: int
    label: str = ""
    family: str = ""
    description: str = ""

    @property
    def plain(self) -> tuple[int | None, int | None]:
        """The in-region prices of fresh input and of output, in USD micros per 1M tokens; None: not known."""
        found = {fact.kind: fact for fact in sorted(self.facts, key=lambda fact: fact.since) if _is_plain(fact)}
        prices = [found[kind].pico_usd if kind in found else None for kind in ("input", "output")]
        return prices[0], prices[1]


def _is_plain(fact: PriceFact) -> bool:
    return (fact.profile, fact.tier, fact.latency, fact.above_tokens) == (None, "default", "standard", 0)


def keys_of(models: Iterable[str], regions: Iterable[str | None], today: date) -> list[PriceKey]:
    """Where prices of these models may be found that have not expired, if today is the UTC day ``today``."""
    days = [today - timedelta(days=back) for back in range(_CACHE_DAYS + 1)]
    places = list(dict.fromkeys(regions))
    return [PriceKey(model, day, region) for model in dict.fromkeys(models) for region in places for day in days]


def last_known(found: Iterable[CachedPrices]) -> dict[tuple[str, str | None], CachedPrices]:
    """Of each model and region the prices fetched last: they hold over midnight, until others are fetched."""
    newest: dict[tuple[str, str | None], CachedPrices] = {}
    for prices in sorted(found, key=lambda prices: (prices.key.day, prices.fetched_at_epoch)):
        newest[prices.key.model, prices.key.region] = prices
    return newest


def variant_name(fact: PriceFact) -> str:
    """What a price is of, beside model and region, as one text."""
    return "/".join(
        (
            fact.profile or "-",
            fact.tier,
            fact.latency,
            str(fact.above_tokens),
            fact.kind,
            fact.since.isoformat(),
            fact.source,
            fact.detail,  # the last: it may hold slashes
        )
    )


def fact_of(key: PriceKey, variant: str, pico_usd: int) -> PriceFact:
    """The price of a `variant_name`. Raises ValueError for what is none."""
    profile, tier, latency, above, kind, since, source, detail = variant.split("/", 7)
    place = None if profile == "-" else profile
    day = date.fromisoformat(since)
    return PriceFact(key.model, place, key.region, tier, latency, int(above), kind, detail, pico_usd, day, source)


def facts_of(
    key: PriceKey, variants: Mapping[str, int] | None, plain: Mapping[str, int | None]
) -> tuple[PriceFact, ...]:
    """The prices of an item; of one that another program wrote, which knows no variants, its input and output price."""
    if variants is not None:
        return tuple(fact_of(key, name, pico_usd) for name, pico_usd in sorted(variants.items()))
    return tuple(
        PriceFact(key.model, None, key.region, "default", "standard", 0, kind, "", price, key.day, OTHER_PROGRAM)
        for kind, price in plain.items()
        if price is not None
    )

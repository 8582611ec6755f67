"""Which of the known prices of a model counts: those fetched for its region, those fetched for all, the bundled table.

A price written in the configuration comes before all of these, ``on_unknown_price`` after them: both are the caller's.
"""

from collections.abc import Mapping
from datetime import date
from typing import Literal, NamedTuple

from ..core.cached_prices import CachedPrices
from ..core.model_ids import parse_model_id
from ..core.price_facts import PriceFact
from ..core.price_lists import in_force as newest
from ..core.price_lists import price_list
from ..core.pricing import Price, Prices
from ..core.served import Served
from .table import PriceTable

#: Where a price is from: fetched for the region, fetched for all regions, or the table that comes with the library.
Origin = Literal["region", "default", "bundled"]

#: By base model id and region; None stands for all regions.
Cached = Mapping[tuple[str, str | None], CachedPrices]

#: Where the prices of commercial regions say nothing.
_OTHER_PARTITIONS = ("us-gov-", "us-iso", "cn-", "eusc-")

_CACHE_KINDS = ("cache_read", "cache_write_5m", "cache_write_1h")


class FoundPrice(NamedTuple):
    """The prices of a model and how they are known. ``profile``: whose prices; None: in-region. ``cached``: what was
    fetched, with its age; None: the bundled table."""

    prices: Prices
    origin: Origin
    profile: str | None
    since: date
    source: str
    cached: CachedPrices | None

    @property
    def price(self) -> Price:
        """The plain one: default tier, standard latency, no long prompt."""
        return Price(*self.prices.rates())


class KnownPrices:
    """Prices that were fetched, over the bundled table. Immutable, so that any number of threads may share one."""

    __slots__ = ("_cached", "_table")

    def __init__(self, table: PriceTable, cached: Cached) -> None:
        self._table = table
        self._cached = cached

    def find(self, model_id: str, *, region: str | None, on: date) -> FoundPrice | None:
        """The price of ``model_id`` on the day ``on`` for calls made in ``region``; None if nothing knows it.

        The first of these that has an input and an output price in force that day: what was fetched for the region
        (an ARN's own), what was fetched for all regions, the bundled table. They are not mixed, except that cache
        prices which were not fetched are in the proportion to the input price that the bundled table has.

        What was fetched for other conditions gives way to a row of the bundled table for the very profile: in-region
        prices to one for ``global``, and prices for all regions, which are those of the US, to one for ``eu``.
        """
        parsed = parse_model_id(model_id)
        listed = self._table.find(model_id, region=region, on=on)
        found: FoundPrice | None = None
        if parsed.base is not None:
            place = parsed.region or region
            exact = listed is not None and parsed.profile is not None and listed.profile == parsed.profile
            for where in dict.fromkeys((place, None)):
                if where is None and place is not None and place.startswith(_OTHER_PARTITIONS):
                    continue
                found = self._fetched(parsed.base, where, parsed.profile, on, listed.prices if listed else None)
                if (
                    found
                    and exact
                    and found.profile != parsed.profile
                    and (where is None or parsed.profile == "global")
                ):
                    found = None
                if found:
                    return found
        if listed is None:
            return None
        return FoundPrice(listed.prices, "bundled", listed.profile, listed.effective_from, listed.source, None)

    def _fetched(
        self, model: str, where: str | None, profile: str | None, on: date, listed: Prices | None
    ) -> FoundPrice | None:
        cached = self._cached.get((model, where))
        found = None if cached is None else in_force(cached.facts, profile, on)
        if not found:
            return None
        fresh = found["input"]
        origin: Origin = "default" if where is None else "region"
        plain = _price(found, listed)
        place = [fact for fact in cached.facts if fact.profile == fresh.profile] if cached else []
        listing = price_list(newest(place, on))
        variants = {**_scaled(plain, listed), **(listing.prices.variants if listing else {})}
        prices = Prices(*plain.rates(), variants=variants)
        return FoundPrice(prices, origin, fresh.profile, fresh.since, fresh.source, cached)


def in_force(facts: tuple[PriceFact, ...], profile: str | None, on: date) -> dict[str, PriceFact]:
    """The plain prices (default tier, no long prompt) of a profile on a day, by kind; empty unless they are complete.

    A geographic profile without prices of its own costs what its source region does; so does ``global`` at most. What
    is known for ``global`` alone says nothing of other calls.
    """
    for place in dict.fromkeys((profile, None)):
        found: dict[str, PriceFact] = {}
        for fact in sorted(facts, key=lambda fact: fact.since):
            plain = (fact.tier, fact.latency, fact.above_tokens) == ("default", "standard", 0)
            if plain and fact.profile == place and fact.since <= on:
                found[fact.kind] = fact
        if "input" in found and ("output" in found or "embed" in found["input"].model):
            return found
    return {}


def _price(found: Mapping[str, PriceFact], listed: Price | None) -> Price:
    fresh = found["input"].pico_usd
    caches: dict[str, int | None] = {kind: found[kind].pico_usd for kind in _CACHE_KINDS if kind in found}
    if listed is not None and listed.input:
        for kind in _CACHE_KINDS:
            caches.setdefault(kind, -(-fresh * int(getattr(listed, kind)) // listed.input))
    return Price.of(fresh, found["output"].pico_usd if "output" in found else 0, **caches)


def _scaled(plain: Price, listed: Prices | None) -> dict[Served, Mapping[int, Price]]:
    """The bundled prices of other tiers and of long prompts, in proportion to the plain one that was fetched."""
    if listed is None:
        return {}
    factors = tuple(zip(plain.rates(), listed.rates(), strict=True))

    def scaled(price: Price) -> Price:
        rates = zip(price.rates(), factors, strict=True)
        return Price(*(-(-rate * new // old) if old else rate for rate, (new, old) in rates))

    return {way: {above: scaled(price) for above, price in rungs.items()} for way, rungs in listed.variants.items()}

"""What a model costs, out of single published prices: those in force on a day, gaps filled so that nothing is free."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

from .price_facts import TOKEN_KINDS, PriceFact
from .pricing import Price, Prices
from .served import DEFAULT, Served

#: All that tells prices of one model in one place apart.
_Key = tuple[str, str, int, str, str]


class UnitPrice(NamedTuple):
    """The price of one unit of something that is not a token. ``detail`` tells sorts of a unit apart."""

    kind: str
    detail: str
    pico_usd: int
    tier: str
    effective_from: date
    source: str


class PriceList(NamedTuple):
    """The token prices of one model in one place on one day."""

    prices: Prices
    effective_from: date  # the first day of the plain price
    source: str


def in_force(facts: Iterable[PriceFact], on: date | None) -> list[PriceFact]:
    """Of each price the newest that is not after the day ``on``; None: the oldest. The facts are of one place."""
    found: dict[_Key, PriceFact] = {}
    for fact in facts:
        if on is not None and fact.since > on:
            continue
        key = (fact.tier, fact.latency, fact.above_tokens, fact.kind, fact.detail)
        other = found.get(key)
        if other is None or (fact.since < other.since if on is None else fact.since >= other.since):
            found[key] = fact
    return list(found.values())


def price_list(facts: Iterable[PriceFact]) -> PriceList | None:
    """The prices per token of facts in force; None if there is no plain price for both input and output.

    A cache price that is not listed is never free: see `Price.of`; where reads are listed and writes are not, writes
    cost what input does. In other tiers, and for long prompts, it is the plain price's, or dearer as input is.
    """
    listed: dict[Served, dict[int, dict[str, int]]] = {}
    plain_facts: list[PriceFact] = []
    embeds = False
    for fact in facts:
        if fact.kind in TOKEN_KINDS:
            ways = listed.setdefault(Served(fact.tier, fact.latency), {})
            ways.setdefault(fact.above_tokens, {})[fact.kind] = fact.pico_usd
            embeds = "embed" in fact.model
            if (fact.tier, fact.latency, fact.above_tokens) == (*DEFAULT, 0):
                plain_facts.append(fact)
    of_plain = listed.get(DEFAULT, {}).pop(0, {})
    if embeds:
        of_plain.setdefault("output", 0)  # embeddings have no output tokens
    if not of_plain.get("input") or "output" not in of_plain:
        return None
    plain = _plain(of_plain)
    variants = {
        way: {above: _filled(kinds, of_plain) for above, kinds in rungs.items()}
        for way, rungs in listed.items()
        if rungs
    }
    newest = max(plain_facts, key=lambda fact: fact.since)
    return PriceList(Prices(*plain.rates(), variants=variants), newest.since, newest.source)


def unit_prices(facts: Iterable[PriceFact]) -> tuple[UnitPrice, ...]:
    """The prices by other units of facts in force, in order."""
    return tuple(
        sorted(
            UnitPrice(fact.kind, fact.detail, fact.pico_usd, fact.tier, fact.since, fact.source)
            for fact in facts
            if fact.kind not in TOKEN_KINDS
        )
    )


def _plain(kinds: Mapping[str, int]) -> Price:
    read, written, written_1h = (kinds.get(kind) for kind in TOKEN_KINDS[2:])
    if read is not None and written is None and written_1h is None:
        written = written_1h = kinds["input"]
    elif written is not None and written_1h is None:
        written_1h = max(2 * kinds["input"], written)
    return Price.of(kinds["input"], kinds["output"], cache_read=read, cache_write_5m=written, cache_write_1h=written_1h)


def _filled(kinds: Mapping[str, int], of_plain: Mapping[str, int]) -> Price:
    """The price of a variant, with what only the plain price lists; cheaper input does not make a cache cheaper."""
    plain_input = of_plain["input"]
    most = max(kinds.get("input", 0), plain_input)
    return _plain({**{kind: -(-rate * most // plain_input) for kind, rate in of_plain.items()}, **kinds})

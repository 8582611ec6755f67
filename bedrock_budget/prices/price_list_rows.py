"""What one row of the AWS Price List is the price of. Pure: products in, `PriceFact`s out; the rest by name.

A product says what it is in words scattered over its attributes, and differently by service code, so each condition is
looked for in all of them. What cannot be told is never guessed: the row is *unmapped*, which says that a rule is
missing; rows that are known not to be token prices of a model are *skipped*.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from ..core.model_ids import parse_model_id
from ..core.price_facts import PriceFact
from .price_list_names import REGION_PREFIXES, model_named

MARKETPLACE_CODE = "AmazonBedrockFoundationModels"
SOURCE = "aws-price-list"
OFFER_SOURCE = "aws-agreement-offer"
#: A price with no date of its own holds from here on: the day Bedrock became generally available.
KNOWN_SINCE = date(2023, 9, 28)

#: Of a base model id the prompt length above which its long-context prices hold; None: not known.
LongAbove = Callable[[str], int | None]

_WORD = re.compile(r"\d+(?:h|m|k)(?![a-z])|[A-Z]?[a-z]+|\d+|[A-Z]+(?![a-z])")
_PICO_PER_USD = Decimal(10**12)
_TOKENS_IN = {"1k tokens": 1000, "1m tokens": 10**6, "1k token": 1000, "1m token": 10**6}
_OTHER_UNITS = re.compile(
    r"text ?unit|image|video|audio|request|hour|month|minute|second|search|quer|page|gb|tpm|document",
    re.IGNORECASE,
)
_TIERS = {"batch": "batch", "flex": "flex", "priority": "priority"}
_PLAIN_TIERS = {"", "standard", "default", "on demand"}


class NotMapped(Exception):
    """A row that gives no price. ``name``: how to call it in a report; ``known``: a rule says so, none is missing."""

    def __init__(self, name: str, *, known: bool) -> None:
        super().__init__(name)
        self.name = name
        self.known = known


class Row(NamedTuple):
    """One price and how far to trust it. ``rank``: of rows for the same thing the lowest counts. ``description``: what
    the source calls the model."""

    fact: PriceFact
    rank: int
    sku: str
    description: str


def rows_of(service_code: str, product: Mapping[str, Any], long_above: LongAbove) -> list[Row]:
    """The prices of one product of the Query API, one for each date from which it has another.

    Raises NotMapped; KeyError, TypeError or AttributeError for what is no product.
    """
    attributes: Mapping[str, str] = product["product"]["attributes"]
    usage = str(attributes.get("usagetype", ""))
    rows: list[Row] = []
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        since = _day(term.get("effectiveDate"))
        for dimension in term["priceDimensions"].values():
            row = _row(service_code, attributes, usage, dimension, since, long_above)
            rows.append(row._replace(sku=str(product["product"].get("sku", ""))))
    if not rows:
        raise NotMapped(f"{usage}: no on-demand price", known=True)
    return rows


def offer_row(model: str, rate: Mapping[str, str], long_above: LongAbove) -> Row:
    """The price of one rate of a model's agreement offer, whose ``dimension`` begins with a region's prefix.

    Raises NotMapped.
    """
    dimension = rate.get("dimension", "")
    usage = f"{dimension.partition('_')[0]}-MP:{dimension}"
    price = {
        "unit": rate.get("unit", ""),
        "pricePerUnit": {"USD": rate.get("price", "")},
        "description": rate.get("description", ""),
    }
    row = _row(MARKETPLACE_CODE, {"model id": model}, usage, price, KNOWN_SINCE, long_above)
    return Row(row.fact._replace(source=OFFER_SOURCE), -1, "", "")


def chosen(rows: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """One row for each thing that has a price, whatever the order of the rows; and where their prices differed.

    A row that is on the same conditions through another endpoint (mantle) gives way; of equals the dearest counts.
    """
    products: dict[PriceFact, dict[tuple[int, str], list[Row]]] = {}
    for row in rows:
        thing = row.fact._replace(pico_usd=0, source="", since=KNOWN_SINCE)
        products.setdefault(thing, {}).setdefault((row.rank, row.sku), []).append(row)
    kept: list[Row] = []
    differing: list[str] = []
    for thing in sorted(products, key=_place):
        dated = [_dated(found) for found in products[thing].values()]
        best = min(dated, key=lambda found: (found[-1].rank, -found[-1].fact.pico_usd, found[-1].sku))
        kept += best
        if len({found[-1].fact.pico_usd for found in dated}) > 1:
            differing.append(_place(thing))
    return kept, differing


def _dated(rows: list[Row]) -> list[Row]:
    """The rows of one product by the day they begin, of several for one day the dearest."""
    dearest = {row.fact.since: row for row in sorted(rows, key=lambda row: row.fact.pico_usd)}
    return [dearest[since] for since in sorted(dearest)]


def _place(fact: PriceFact) -> str:
    above = f" above {fact.above_tokens}" if fact.above_tokens else ""
    latency = "" if fact.latency == "standard" else f" {fact.latency}"
    profile = fact.profile or "in-region"
    return f"{fact.model} {fact.region} {profile} {fact.tier}{latency}{above} {fact.kind}"


def _row(
    service_code: str,
    attributes: Mapping[str, str],
    usage: str,
    dimension: Mapping[str, Any],
    since: date,
    long_above: LongAbove,
) -> Row:
    description = str(dimension.get("description", ""))
    said = [usage, *(attributes.get(name, "") for name in _SAYING), *_last_part(description)]
    words = [word for text in said for word in (*_words(text), "|")]
    names = _names(service_code, attributes, usage)
    called = next((name for name in names if name), "") or usage or "?"
    per = _tokens_per_unit(service_code, dimension, words, called)
    model = attributes.get("model id") or next((found for name in names if (found := model_named(name))), None)
    if re.search(r"\(\s*100K\s*\)", called, re.IGNORECASE):
        raise NotMapped(f"{called}: legacy listing", known=True)
    if model is None:
        raise NotMapped(f"{called}: no model id is known for this name", known=False)
    region = attributes.get("regionCode") or REGION_PREFIXES.get(usage.partition("-")[0])
    if not region:
        raise NotMapped(f"{called}: no region in {usage!r}", known=False)
    above = 0
    if _adjacent(words, "long", "context") or _adjacent(words, "long", "ctx"):
        above = long_above(model) or 0
        if not above:
            raise NotMapped(f"{called}: long-context price, and it is not known above how many tokens", known=False)
    slow = not any(_adjacent(_words(text), "latency", "optimized") for text in (*said, called))
    fact = PriceFact(
        model=model,
        profile="global" if "global" in words else None,
        region=region,
        tier=_tier(words, attributes.get("service_tier", ""), called),
        latency="standard" if slow else "optimized",
        above_tokens=above,
        kind=_kind(said, called),
        detail="",
        pico_usd=_pico(dimension["pricePerUnit"], per, called),
        since=since,
        source=SOURCE,
    )
    if fact.pico_usd == 0 and not (fact.kind == "output" and "embed" in parse_model_id(model).text):
        raise NotMapped(f"{called}: listed as free, which no token is", known=True)
    rank = 2 * ("mantle" in words) + ("geo" in words)
    return Row(fact, rank, "", re.sub(r"\s*\(Amazon Bedrock Edition\)", "", called))


#: The attributes that say under which conditions a price holds. Not the names of models: they hold words of their own.
_SAYING = ("inferenceType", "feature", "featuretype", "service_tier", "crossRegion", "tokenType", "operation")


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _adjacent(words: list[str], first: str, second: str) -> bool:
    return any(pair == (first, second) for pair in itertools.pairwise(words))


def _last_part(description: str) -> list[str]:
    # "AWS Marketplace software usage|us-east-1|Million Response Tokens Regional". Other descriptions are sentences.
    return [description.rpartition("|")[2]] if "|" in description or description.startswith("Million") else []


def _names(service_code: str, attributes: Mapping[str, str], usage: str) -> list[str]:
    """How a product may call its model, the best name first."""
    if service_code == MARKETPLACE_CODE:
        return [attributes.get("servicename", "")]  # the usage type is the same for all models
    titan = re.sub(r"-(input|output)$", "", attributes.get("titanModel", ""))
    _, _, rest = usage.partition("-")
    inside = re.split(r"-(?:mantle|input|output|cache|text-input|text-output)\b", rest, maxsplit=1)[0]
    return [attributes.get("model", ""), titan, inside]


def _tokens_per_unit(service_code: str, dimension: Mapping[str, Any], words: list[str], called: str) -> int:
    unit = str(dimension.get("unit", "")).strip()
    if "reserved" in words or "tpm" in words or "provisioned" in words:
        raise NotMapped("reserved or provisioned capacity: not a token rate", known=True)
    if _adjacent(words, "custom", "model") or "customization" in words or "training" in words:
        raise NotMapped("custom models: not the price of a foundation model", known=True)
    if unit.lower() in _TOKENS_IN:
        per = _TOKENS_IN[unit.lower()]
    elif unit.lower() == "units" and service_code == MARKETPLACE_CODE:
        if not {"token", "tokens"} & set(words):
            raise NotMapped("not priced by the token: Units", known=True)
        per = 1000 if "thousand" in words else 10**6
    else:
        known = bool(_OTHER_UNITS.search(unit))
        name = f"not priced by the token: {unit}" if known else f"{called}: unknown unit {unit!r}"
        raise NotMapped(name, known=known)
    if {"speech", "audio", "video"} & set(words):
        raise NotMapped("speech, audio or video tokens: not metered", known=True)
    return per


def _tier(words: list[str], service_tier: str, called: str) -> str:
    found = {tier for word, tier in _TIERS.items() if word in words}
    named = " ".join(word for word in _words(service_tier) if word != "tier")
    if named not in _PLAIN_TIERS and named not in found:
        found.add(named)  # one that no rule knows: kept as it is
    if len(found) > 1:
        raise NotMapped(f"{called}: two tiers in one row ({', '.join(sorted(found))})", known=False)
    return found.pop() if found else "default"


def _kind(said: list[str], called: str) -> str:
    # Cache first: those rows say "input" too. The usage type first: the other texts may be of the general kind.
    everything = [word for text in said for word in _words(text)]
    if "cache" in everything or "cached" in everything:
        if "write" in everything:
            hours = "1h" in everything or _adjacent(everything, "1", "hour") or _adjacent(everything, "1", "h")
            return "cache_write_1h" if hours else "cache_write_5m"
        if "read" in everything:
            return "cache_read"
        raise NotMapped(f"{called}: a cache that is neither read nor written", known=False)
    for text in said:
        words = set(_words(text))
        found = {"input"} if "input" in words else set[str]()
        found |= {"output"} if words & {"output", "response"} else set()
        if len(found) == 1:
            return found.pop()
    raise NotMapped(f"{called}: neither input, output nor cache", known=False)


def _pico(prices: Mapping[str, str], per: int, called: str) -> int:
    if "USD" not in prices:
        raise NotMapped(f"{called}: priced in {', '.join(sorted(prices)) or 'nothing'}, not in USD", known=False)
    try:
        pico = Decimal(prices["USD"]) * _PICO_PER_USD / per
        if pico < 0 or pico != pico.to_integral_value():
            raise ValueError(pico)
    except (InvalidOperation, ValueError, TypeError):
        raise NotMapped(f"{called}: {prices['USD']!r} USD is not a price a token", known=False) from None
    return int(pico)


def _day(text: object) -> date:
    return date.fromisoformat(str(text)[:10]) if text else KNOWN_SINCE

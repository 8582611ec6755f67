"""Cached prices in DynamoDB: the items of the table ``PricingCache``.

``model_id`` + ``price_key`` and the specified attributes; and ``variants``, a map of all prices in pico-USD a unit, by
`variant_name`. An item that another program wrote has none: then its two prices are all that is known.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from ..core.cached_prices import CachedPrices, PriceKey, facts_of, variant_name
from ..core.errors import StoreError
from . import dynamodb_items as items
from .contract import Store, UnreadableItem
from .dynamodb_calls import DynamoDBCalls, Item, attempts_while_busy
from .rules import expired
from .tables import PRICING_CACHE

_MOST_WRITES = 25
_PLAIN = {"input": "input_price_usd_micros_per_1m", "output": "output_price_usd_micros_per_1m"}


class Unwritten(StoreError):
    """DynamoDB left items of a batch unwritten, which is normal under load."""


class PricesInDynamoDB(Store):
    """The `Store` methods of cached prices."""

    _calls: DynamoDBCalls

    def read_prices(self, keys: Collection[PriceKey], *, now_epoch: float) -> Mapping[PriceKey, CachedPrices]:
        wanted = [_key(key) for key in dict.fromkeys(keys)]
        found: dict[PriceKey, CachedPrices] = {}
        for _, item in self._calls.batch_get({PRICING_CACHE: wanted}, consistent=False):
            prices = _prices(item)
            if not expired(prices.expires_at_epoch, now_epoch):
                found[prices.key] = prices
        return found

    def write_prices(self, prices: Sequence[CachedPrices]) -> None:
        table = self._calls.physical(PRICING_CACHE)
        for start in range(0, len(prices), _MOST_WRITES):
            puts = [{"PutRequest": {"Item": _item(each)}} for each in prices[start : start + _MOST_WRITES]]
            self._write({table: puts})

    def _write(self, requests: Mapping[str, Any]) -> None:
        left = requests
        for attempt in attempts_while_busy(Unwritten):
            with attempt:
                answer = self._calls.call("BatchWriteItem", PRICING_CACHE, RequestItems=left)
                left = cast("Mapping[str, Any]", answer.get("UnprocessedItems") or {})
                if left:
                    count = sum(len(puts) for puts in left.values())
                    raise Unwritten(f"DynamoDB BatchWriteItem left {count} prices unwritten: try again later")


def _key(key: PriceKey) -> Item:
    return {"model_id": items.text(key.model), "price_key": items.text(key.price_key)}


def _item(prices: CachedPrices) -> Item:
    named = {"model_label": prices.label, "tier": prices.label, "family": prices.family}
    plain = dict(zip(_PLAIN.values(), prices.plain, strict=True))
    return {
        **_key(prices.key),
        **{name: items.text(value) for name, value in {**named, "description": prices.description}.items()},
        **{name: items.number(price) for name, price in plain.items() if price is not None},
        "variants": {"M": {variant_name(fact): items.number(fact.pico_usd) for fact in prices.facts}},
        "fetched_at_epoch": items.number(prices.fetched_at_epoch),
        "expires_at_epoch": items.number(prices.expires_at_epoch),
    }


def _prices(item: Item) -> CachedPrices:
    try:
        key = PriceKey.parse(item["model_id"]["S"], item["price_key"]["S"])
        listed: Mapping[str, Item] | None = item["variants"]["M"] if "variants" in item else None
        variants = None if listed is None else dict(_numbers(listed))
        plain = {kind: items.whole(item, name) if name in item else None for kind, name in _PLAIN.items()}
        texts = [item.get(name, {}).get("S", "") for name in ("model_label", "family", "description")]
        return CachedPrices(
            key,
            facts_of(key, variants, plain),
            items.whole(item, "fetched_at_epoch", 0),
            items.whole(item, "expires_at_epoch"),
            *texts,
        )
    except (KeyError, ValueError, ArithmeticError) as exc:
        shown = {name: item.get(name, {}).get("S") for name in ("model_id", "price_key")}
        raise UnreadableItem(f"DynamoDB item {shown} cannot be read ({type(exc).__name__}: {exc}); delete it") from exc


def _numbers(listed: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name in listed:
        yield name, items.whole(listed, name)

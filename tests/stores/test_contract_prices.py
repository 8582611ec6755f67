"""One suite for all stores: what `stores/contract.py` promises of cached prices."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from stores.batches import NOW
from stores.threads import in_threads

from bedrock_budget.core.cached_prices import (
    CACHE_TTL_SECS,
    CachedPrices,
    PriceKey,
    fact_of,
    keys_of,
    last_known,
    variant_name,
)
from bedrock_budget.core.price_facts import PriceFact
from bedrock_budget.stores import DynamoDBStore, Store, StoreSetupError, UnreadableItem
from bedrock_budget.stores.contract import Store as Contract
from bedrock_budget.stores.tables import PRICING_CACHE

MODEL = "amazon.nova-pro-v1:0"
DAY = date(2026, 1, 23)
EPOCH = int(NOW)


def fact(kind: str, pico_usd: int, **other: Any) -> PriceFact:
    since = date(2026, 1, 1)
    plain = PriceFact(MODEL, None, None, "default", "standard", 0, kind, "", pico_usd, since, "aws-price-list")
    return plain._replace(**other)


def cached(
    facts: Sequence[PriceFact], *, region: str | None = None, day: date = DAY, epoch: int = EPOCH, **other: str
) -> CachedPrices:
    key = PriceKey(MODEL, day, region)
    own = sorted((each._replace(region=region) for each in facts), key=variant_name)
    return CachedPrices(key, tuple(own), epoch, epoch + CACHE_TTL_SECS, **other)


def read(store: Store, *keys: PriceKey, now: float = NOW) -> dict[PriceKey, CachedPrices]:
    return dict(store.read_prices(keys, now_epoch=now))


EVERYTHING = [
    fact("input", 800_000),
    fact("output", 3_200_000),
    fact("cache_read", 1),
    fact("input", 10**18, tier="batch", profile="global"),
    fact("input", 1_600_000, latency="optimized", above_tokens=200_000),
    fact("image", 40_000_000_000, detail="1024x1024/premium"),
    fact("input", 700_000, since=date(2026, 12, 1)),
]


def test_what_was_never_written_is_left_out(store: Store) -> None:
    key = PriceKey(MODEL, DAY, None)
    assert read(store, key) == {}
    assert read(store) == {}
    store.write_prices([])


@pytest.mark.parametrize("region", [None, "eu-central-1"])
def test_prices_come_back_as_they_were(store: Store, region: str | None) -> None:
    prices = cached(EVERYTHING, region=region, label="premium", family="amazon-nova", description="Nova Pro")
    store.write_prices([prices])
    (found,) = read(store, prices.key).values()
    assert found._replace(facts=()) == prices._replace(facts=())
    assert sorted(found.facts, key=variant_name) == sorted(prices.facts, key=variant_name)


def test_the_same_again_changes_nothing_and_others_take_their_place(store: Store) -> None:
    prices = cached([fact("input", 1)])
    store.write_prices([prices])
    store.write_prices([prices])
    assert read(store, prices.key) == {prices.key: prices}
    later = cached([fact("input", 2)])
    store.write_prices([later])
    assert read(store, prices.key) == {prices.key: later}


def test_regions_and_days_are_apart(store: Store) -> None:
    every = [
        cached([fact("input", number)], region=region, day=DAY - timedelta(days=back))
        for number, (region, back) in enumerate([(None, 0), (None, 1), ("us-east-1", 0), ("eu-west-1", 1)])
    ]
    store.write_prices(every)
    keys = keys_of([MODEL, "another.model"], [None, "us-east-1", "eu-west-1"], DAY)
    assert len(keys) == 2 * 3 * 4
    found = read(store, *keys)
    assert found == {each.key: each for each in every}
    newest = last_known(found.values())
    assert {place: prices.key.day for place, prices in newest.items()} == {
        (MODEL, None): DAY,
        (MODEL, "us-east-1"): DAY,
        (MODEL, "eu-west-1"): DAY - timedelta(days=1),  # the last known price carries over midnight
    }


def test_expired_prices_are_not_there(store: Store) -> None:
    prices = cached([fact("input", 1)])
    store.write_prices([prices])
    assert read(store, prices.key, now=prices.expires_at_epoch - 1) != {}
    assert read(store, prices.key, now=prices.expires_at_epoch) == {}


def test_many_at_once(store: Store) -> None:
    every = [cached(EVERYTHING, region=f"xx-region-{number}") for number in range(130)]
    store.write_prices(every)
    assert len(read(store, *(each.key for each in every))) == 130


def test_threads_may_write_the_same(store: Store) -> None:
    prices = cached(EVERYTHING)
    in_threads(8, lambda _: store.write_prices([prices]))
    assert read(store, prices.key)[prices.key].expires_at_epoch == prices.expires_at_epoch


def test_a_variant_s_name_says_all_of_it() -> None:
    for each in EVERYTHING:
        assert fact_of(PriceKey(MODEL, DAY, None), variant_name(each), each.pico_usd) == each
    with pytest.raises(ValueError, match="unpack"):
        fact_of(PriceKey(MODEL, DAY, None), "input", 1)


def test_a_store_without_prices_leaves_the_bundled_table(store: Store) -> None:
    assert Contract.read_prices(store, [PriceKey(MODEL, DAY, None)], now_epoch=NOW) == {}
    with pytest.raises(StoreSetupError, match="keeps no prices"):
        Contract.write_prices(store, [])


# -- DynamoDB: the items


def test_items_have_the_specified_keys_and_attributes(dynamodb_store: DynamoDBStore, dynamodb_client: Any) -> None:
    prices = cached(EVERYTHING[:2], region="us-east-1", label="premium", family="amazon-nova", description="Nova Pro")
    dynamodb_store.write_prices([prices])
    table = dynamodb_store._calls.physical(PRICING_CACHE)
    (item,) = dynamodb_client.scan(TableName=table)["Items"]
    variants = item.pop("variants")["M"]
    assert item == {
        "model_id": {"S": MODEL},
        "price_key": {"S": "2026-01-23#us-east-1"},
        "model_label": {"S": "premium"},
        "tier": {"S": "premium"},
        "family": {"S": "amazon-nova"},
        "description": {"S": "Nova Pro"},
        "input_price_usd_micros_per_1m": {"N": "800000"},
        "output_price_usd_micros_per_1m": {"N": "3200000"},
        "fetched_at_epoch": {"N": str(EPOCH)},
        "expires_at_epoch": {"N": str(EPOCH + 259_200)},
    }
    assert variants["-/default/standard/0/input/2026-01-01/aws-price-list/"] == {"N": "800000"}


def test_items_of_other_programs_are_read(dynamodb_store: DynamoDBStore, dynamodb_client: Any) -> None:
    item = {
        "model_id": {"S": MODEL},
        "price_key": {"S": "2026-01-23"},
        "model_label": {"S": "premium"},
        "input_price_usd_micros_per_1m": {"N": "3000000"},
        "output_price_usd_micros_per_1m": {"N": "15000000"},
        "fetched_at_epoch": {"N": str(EPOCH)},
        "expires_at_epoch": {"N": str(EPOCH + 60)},
    }
    table = dynamodb_store._calls.physical(PRICING_CACHE)
    dynamodb_client.put_item(TableName=table, Item=item)
    (found,) = read(dynamodb_store, PriceKey(MODEL, DAY, None)).values()
    assert found.plain == (3_000_000, 15_000_000)
    assert {each.source for each in found.facts} == {"pricing-cache"}
    dynamodb_client.put_item(TableName=table, Item={**item, "variants": {"M": {"nonsense": {"N": "1"}}}})
    with pytest.raises(UnreadableItem, match="2026-01-23"):
        read(dynamodb_store, PriceKey(MODEL, DAY, None))

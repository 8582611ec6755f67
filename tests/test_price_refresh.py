"""Fetching prices into the store, and how calls come to be priced by them."""

import logging
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import boto3
import pytest
from prices.price_list_products import BEDROCK, OFFER_FILE, nova
from prices.price_list_server import PriceListServer, serving

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.cached_prices import PriceKey, keys_of, last_known
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.pricing import Price
from bedrock_budget.price_cache import RELOAD_SECS, PriceCache
from bedrock_budget.price_refresh import Refreshed, refresh, refresh_daily, refresh_if_due, was_refreshed
from bedrock_budget.prices import bundled
from bedrock_budget.prices.price_list import PriceList, PriceListError, PriceListing
from bedrock_budget.prices.price_list_rows import rows_of
from bedrock_budget.prices.resolution import KnownPrices
from bedrock_budget.stores import MemoryStore
from bedrock_budget.testing import LocalBedrock, ManualClock

NOVA, HAIKU, TITAN = (
    "amazon.nova-pro-v1:0",
    "anthropic.claude-haiku-4-5-20251001-v1:0",
    "amazon.titan-embed-text-v2:0",
)
TODAY = date(2026, 1, 15)  # the manual clock's


class CountingStore(MemoryStore):
    """Counts what is written and read of prices."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.away = False

    def read_prices(self, keys: Any, *, now_epoch: float) -> Any:
        self.calls["read"] += 1
        if self.away:
            raise StoreError("away")
        return super().read_prices(keys, now_epoch=now_epoch)

    def write_prices(self, prices: Any) -> None:
        self.calls["written"] += len(prices)
        super().write_prices(prices)


@pytest.fixture
def server() -> Iterator[PriceListServer]:
    with serving(PriceListServer({code: list(products) for code, products in OFFER_FILE.items()})) as server:
        yield server


@pytest.fixture
def price_list(server: PriceListServer, aws_credentials: None, monkeypatch: pytest.MonkeyPatch) -> PriceList:
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", server.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", server.url)
    return PriceList()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def known(store: MemoryStore, clock: ManualClock, *regions: str) -> KnownPrices:
    now = clock.now()
    keys = keys_of([NOVA, HAIKU, TITAN, "anthropic.claude-opus-4-7"], [*regions, None], now.astimezone(UTC).date())
    return KnownPrices(bundled(), last_known(store.read_prices(keys, now_epoch=now.timestamp()).values()))


def change(
    server: PriceListServer, price: str, *, since: str = "2026-01-01T00:00:00Z", region: str = "us-east-1"
) -> None:
    """Nova Pro's input price is another one now."""
    old = [each for each in server.products[BEDROCK] if is_nova_input(each, region)]
    server.products[BEDROCK] = [each for each in server.products[BEDROCK] if each not in old]
    server.products[BEDROCK].append(nova(price, "USE1-NovaPro-input-tokens", since=since, region=region))


def is_nova_input(product: Any, region: str) -> bool:
    attributes = product["product"]["attributes"]
    return attributes["regionCode"] == region and attributes["usagetype"].endswith("-NovaPro-input-tokens")


# -- refreshing


def test_a_second_run_changes_nothing(store: CountingStore, price_list: PriceList, clock: ManualClock) -> None:
    first = refresh(store, price_list, clock)
    assert len(first.new) == len(first.listing.rows) == 27
    assert not first.changed
    assert first.written > 10
    assert was_refreshed(store, clock)
    before, written = dict(store._prices), store.calls["written"]
    clock.advance(3600)
    second = refresh(store, price_list, clock)
    assert (second.new, second.changed, second.unlisted, second.written) == ((), (), (), 0)
    assert store.calls["written"] == written
    assert store._prices == before


def test_a_new_day_writes_all_under_its_date_and_changes_no_price(
    store: CountingStore, price_list: PriceList, clock: ManualClock
) -> None:
    first = refresh(store, price_list, clock)
    clock.advance(86_400)
    assert not was_refreshed(store, clock)
    second = refresh(store, price_list, clock)
    assert (second.new, second.changed, second.written) == ((), (), first.written)
    keys = [PriceKey(NOVA, TODAY + timedelta(days=number), "us-east-1") for number in (0, 1)]
    found = store.read_prices(keys, now_epoch=clock.now().timestamp())
    assert found[keys[0]].facts == found[keys[1]].facts
    assert found[keys[1]].expires_at_epoch == int(clock.now().timestamp()) + 3 * 86_400


def test_a_changed_price_is_told_and_the_one_before_is_kept(
    store: CountingStore, server: PriceListServer, price_list: PriceList, clock: ManualClock
) -> None:
    refresh(store, price_list, clock)
    change(server, "0.0009", since="2026-01-10T00:00:00Z")
    done = refresh(store, price_list, clock)
    assert [(each.before_pico_usd, each.fact.pico_usd, each.fact.region) for each in done.changed] == [
        (800_000, 900_000, "us-east-1")
    ]
    assert done.written == 2  # the region's and the one for all regions
    prices = known(store, clock, "us-east-1")
    for on, price in ((date(2026, 1, 9), 800_000), (date(2026, 1, 10), 900_000)):
        found = prices.find(NOVA, region="us-east-1", on=on)
        assert found is not None
        assert found.price.input == price


def test_a_price_that_changes_without_a_date_holds_from_today(
    store: CountingStore, server: PriceListServer, price_list: PriceList, clock: ManualClock
) -> None:
    refresh(store, price_list, clock)
    change(server, "0.0009")
    (changed,) = refresh(store, price_list, clock).changed
    assert changed.fact.since == TODAY


def test_a_broken_page_changes_nothing_and_says_so(
    store: CountingStore, server: PriceListServer, price_list: PriceList, clock: ManualClock
) -> None:
    refresh(store, price_list, clock)
    before = dict(store._prices)
    server.page_size = 7
    change(server, "0.0009")
    server.broken[BEDROCK, 3] = "{}"
    clock.advance(86_400)
    with pytest.raises(PriceListError, match="AmazonBedrock, page 3 cannot be read"):
        refresh(store, price_list, clock)
    assert store._prices == before
    found = known(store, clock, "us-east-1").find(NOVA, region="us-east-1", on=TODAY + timedelta(days=1))
    assert found is not None
    assert found.origin == "region"  # the last known price carries over midnight
    assert found.cached is not None
    assert found.cached.key.day == TODAY


def test_what_is_unmapped_or_gone_never_takes_the_place_of_what_is_known(
    store: CountingStore, server: PriceListServer, price_list: PriceList, clock: ManualClock
) -> None:
    refresh(store, price_list, clock)
    for product in server.products[BEDROCK]:
        if is_nova_input(product, "us-east-1"):
            server.products[BEDROCK].remove(product)
            break
    clock.advance(86_400)
    done = refresh(store, price_list, clock)
    assert [(each.model, each.kind, each.region) for each in done.unlisted] == [(NOVA, "input", "us-east-1")]
    found = known(store, clock, "us-east-1").find(NOVA, region="us-east-1", on=TODAY)
    assert found is not None
    assert found.price.input == 800_000


def test_a_dry_run_writes_nothing(store: CountingStore, price_list: PriceList, clock: ManualClock) -> None:
    done = refresh(store, price_list, clock, dry_run=True)
    assert done.new
    assert done.written > 10
    assert store._prices == {}


def test_a_region_alone_says_nothing_of_all_regions(
    store: CountingStore, price_list: PriceList, clock: ManualClock
) -> None:
    refresh(store, price_list, clock, regions=["ap-northeast-1"])
    assert {key.region for key in store._prices} == {"ap-northeast-1"}
    assert not was_refreshed(store, clock)


def test_labels_are_noted_and_kept(store: CountingStore, price_list: PriceList, clock: ManualClock) -> None:
    refresh(store, price_list, clock, labels={NOVA: "standard"})
    assert refresh(store, price_list, clock).written == 0
    (prices,) = store.read_prices([PriceKey(NOVA, TODAY, None)], now_epoch=0).values()
    assert (prices.label, prices.family, prices.description) == ("standard", "amazon-nova", "Nova Pro")
    assert prices.plain == (800_000, 3_200_000)


# -- an aggregator's daily job


class Source:
    """Prices in hand."""

    def __init__(self) -> None:
        self.reads = 0
        self.error: Exception | None = None

    def read(self, regions: Collection[str] | None = None) -> PriceListing:
        self.reads += 1
        if self.error:
            raise self.error
        rows = rows_of(BEDROCK, nova("0.0008", "USE1-NovaPro-input-tokens"), lambda _: None)
        return PriceListing(tuple(rows), {"a name": 3}, {}, (), ("a note",))


def test_once_a_day_is_enough_for_a_fleet(store: CountingStore, clock: ManualClock) -> None:
    sources = [Source() for _ in range(3)]
    for _ in range(2):
        assert all(refresh_if_due(store, source, clock) for source in sources)
    assert [source.reads for source in sources] == [1, 0, 0]
    clock.advance(86_400)
    assert refresh_if_due(store, sources[1], clock)
    assert [source.reads for source in sources] == [1, 1, 0]


@pytest.mark.parametrize("error", [PriceListError("page 3"), StoreError("away"), RuntimeError("bug")])
def test_errors_are_logged_and_stop_nothing(
    store: CountingStore, clock: ManualClock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    source.error = error
    assert not refresh_if_due(store, source, clock)
    assert "the last known ones stay" in caplog.text
    source.error = None
    with caplog.at_level(logging.INFO, "bedrock_budget"):
        assert refresh_if_due(store, source, clock)
    assert "prices refreshed: 1 new, 0 changed, 2 items written, 3 rows unmapped" in caplog.text
    assert "a note" in caplog.text


def test_the_daily_job_ends_when_it_is_told_to(store: CountingStore, clock: ManualClock) -> None:
    stop, source = threading.Event(), Source()
    thread = threading.Thread(target=refresh_daily, args=(store, source, clock, stop))
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert source.reads <= 1


# -- which price counts


def test_the_order_of_sources(store: CountingStore, price_list: PriceList, clock: ManualClock) -> None:
    refresh(store, price_list, clock)
    prices = known(store, clock, "us-east-1", "ap-northeast-1", "eu-west-1")

    def found(model_id: str, region: str | None, on: date = TODAY) -> Any:
        return prices.find(model_id, region=region, on=on)

    assert found(NOVA, "us-east-1").origin == "region"
    assert found(NOVA, "eu-west-1").origin == "default"  # nothing is known of that region
    assert found(NOVA, "ap-northeast-1").origin == "default"  # its output price is not: nothing is mixed
    assert found(NOVA, None).origin == "default"
    assert found("amazon.nova-lite-v1:0", "us-east-1").origin == "bundled"
    assert found(NOVA, "us-east-1", date(2025, 1, 1)).origin == "bundled"  # fetched prices do not reach back
    assert found("nobody.knows-v1:0", "us-east-1") is None
    assert found("arn:aws:bedrock:us-east-1:1:application-inference-profile/abcdefghijkl", "us-east-1") is None
    # a geographic profile costs what its source region does, and a global one has its own price
    assert found(f"us.{HAIKU}", "us-east-1").price.input == 1_100_000
    assert found(f"global.{HAIKU}", "us-east-1").price == Price(1_000_000, 5_000_000, 100_000, 1_250_000, 2_000_000)
    # what was fetched for all regions is from the US, and what is in-region is not global: the table knows better
    assert found(f"eu.{NOVA}", "eu-west-1").origin == "bundled"
    assert found(f"us.{NOVA}", "us-east-1").origin == "region"
    assert found(NOVA, "us-gov-west-1").origin == "bundled"
    opus = found("global.anthropic.claude-opus-4-7", "us-east-1")
    assert (opus.origin, opus.price.input, opus.price.output) == ("bundled", 5_000_000, 25_000_000)
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"
    assert found(arn, "eu-west-1").origin == "region"
    assert found(TITAN, "us-east-1").price.output == 0


def test_cache_prices_that_were_not_fetched_keep_the_table_s_proportion(
    store: CountingStore, price_list: PriceList, clock: ManualClock
) -> None:
    refresh(store, price_list, clock)
    found = known(store, clock, "us-east-1").find(f"us.{HAIKU}", region="us-east-1", on=TODAY)
    assert found is not None
    assert found.price == Price(1_100_000, 5_500_000, 110_000, 1_375_000, 2_200_000)


# -- in a process


def test_the_store_is_read_seldom_and_never_in_a_call(
    store: CountingStore, price_list: PriceList, clock: ManualClock
) -> None:
    cache = PriceCache(store, clock, "us-east-1")
    cache.read_when_due([NOVA])
    assert cache.version == 0
    refresh(store, price_list, clock)
    reads = store.calls["read"]
    cache.read_when_due([NOVA])
    assert store.calls["read"] == reads
    found = cache.find(NOVA, on=TODAY)
    assert found is not None
    assert found.origin == "bundled"
    clock.advance(RELOAD_SECS)
    cache.read_when_due([NOVA])
    assert (store.calls["read"], cache.version) == (reads + 1, 1)
    found = cache.find(NOVA, on=TODAY)
    assert found is not None
    assert found.origin == "region"
    cache.find(HAIKU, on=TODAY)  # a model of nobody's budget
    cache.read_when_due([])
    cache.read_when_due([])
    assert (store.calls["read"], cache.version) == (reads + 2, 2)
    cache.after_fork_in_child()


def test_a_store_that_is_away_leaves_the_last_known_prices(
    store: CountingStore, price_list: PriceList, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    refresh(store, price_list, clock)
    cache = PriceCache(store, clock, "us-east-1")
    cache.read_when_due([NOVA])
    store.away = True
    for _ in range(3):
        clock.advance(RELOAD_SECS)
        cache.read_when_due([NOVA, HAIKU])
    found = cache.find(NOVA, on=TODAY)
    assert found is not None
    assert found.origin == "region"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    store.away = False
    clock.advance(86_400 * 4)
    cache.read_when_due([NOVA])  # they have expired
    found = cache.find(NOVA, on=TODAY)
    assert found is not None
    assert found.origin == "bundled"


def test_a_changed_price_holds_from_a_later_look_on(
    store: CountingStore,
    server: PriceListServer,
    price_list: PriceList,
    clock: ManualClock,
    local_bedrock: LocalBedrock,
) -> None:
    refresh(store, price_list, clock)
    config = {
        "model_labels": {"one": {"id": NOVA}},
        "org_defaults": {"timezone": "UTC", "model_ordering": ["one"], "quotas": {"one": None}},
    }
    client = boto3.client("bedrock-runtime", region_name="ap-northeast-1", endpoint_url=local_bedrock.url)
    bedrock = PriceKeeperClient(
        client, org_id="acme", app_id="chat", config=config, store=store, clock=clock, metering="sync"
    )

    def price() -> int:
        answer = bedrock.converse(messages=[{"role": "user", "content": [{"text": "Hello"}]}])
        record = answer["ResponseMetadata"]["PriceKeeper"]
        usage = record["usage"]
        whole, rest = divmod(record["cost_pico_usd"] - usage["output_tokens"] * 3_200_000, usage["input_tokens"])
        assert rest == 0
        return int(whole)

    try:
        assert price() == 800_000  # of all regions: that of its own lacks an output price
        change(server, "0.0009", since="2026-01-10T00:00:00Z")
        refresh(store, price_list, clock)
        assert price() == 800_000
        clock.advance(RELOAD_SECS + 60)
        assert price() == 900_000
    finally:
        bedrock.close()
        client.close()


def test_the_times_of_tests_are_the_manual_clock_s(clock: ManualClock) -> None:
    assert clock.now().astimezone(UTC) == datetime(2026, 1, 15, 12, tzinfo=UTC)
    assert Refreshed._fields[-1] == "written"

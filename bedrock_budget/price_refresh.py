"""Fetching prices into the store: what the AWS Price List says now, over what was fetched before.

Idempotent: a second run of the same UTC day writes nothing that has not changed. The first run of a day writes all
prices under the day's date (the table's keys are dates), with three days to live.
"""

import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date
from typing import NamedTuple, Protocol

from .clock import Clock
from .core.cached_prices import ALL_MODELS, CACHE_TTL_SECS, CachedPrices, PriceKey, keys_of, last_known
from .core.errors import StoreError
from .core.model_ids import request_format
from .core.price_facts import PriceFact
from .prices.price_list import HOME_REGION, PriceListError, PriceListing
from .prices.price_list_rows import Row
from .stores.contract import Store

log = logging.getLogger("bedrock_budget")

#: How often an aggregator asks whether the day's prices have been fetched.
CHECK_SECS = 3600.0

_Place = tuple[str, str | None]


class Source(Protocol):
    """What prices are fetched from."""

    def read(self, regions: Collection[str] | None = None) -> PriceListing: ...


class Change(NamedTuple):
    """One price that has changed. ``fact``: as it is now."""

    fact: PriceFact
    before_pico_usd: int


class Refreshed(NamedTuple):
    """What a refresh did. ``new`` and ``changed``: of regions; the prices for all regions follow them. ``unlisted``:
    prices that were fetched before and are not listed any more: they stay. ``written``: items of the store."""

    listing: PriceListing
    new: tuple[PriceFact, ...]
    changed: tuple[Change, ...]
    unlisted: tuple[PriceFact, ...]
    written: int


def refresh(
    store: Store,
    source: Source,
    clock: Clock,
    *,
    regions: Collection[str] | None = None,
    labels: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> Refreshed:
    """Fetch the prices of these regions (None: of all, which also gives those for all regions).

    ``labels``: by base model id the label to note beside it. Everything is read before anything is written.
    Raises PriceListError, and then nothing has changed; StoreError.
    """
    listing = source.read(regions)
    now = clock.now()
    today, epoch = now.astimezone(UTC).date(), int(now.timestamp())
    rows = list(listing.rows) if regions is not None else [*listing.rows, *_for_all_regions(listing.rows)]
    groups: dict[_Place, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.fact.model, row.fact.region), []).append(row)
    keys = [key for model, region in groups for key in keys_of([model], [region], today)]
    standing = store.read_prices(keys, now_epoch=epoch)
    before = last_known(standing.values())
    new: list[PriceFact] = []
    changed: list[Change] = []
    unlisted: list[PriceFact] = []
    puts: list[CachedPrices] = []
    for place, group in sorted(groups.items(), key=lambda pair: (pair[0][0], pair[0][1] or "")):
        known = before[place].facts if place in before else ()
        merged = _Merged(known, [row.fact for row in group], today)
        if place[1] is not None:
            new += merged.new
            changed += merged.changed
            unlisted += merged.unlisted
        key = PriceKey(place[0], today, place[1])
        prices = CachedPrices(
            key,
            merged.facts,
            epoch,
            epoch + CACHE_TTL_SECS,
            labels.get(place[0], "") if labels is not None else before[place].label if place in before else "",
            request_format(place[0]),
            min((row.description for row in group if row.description), default=""),
        )
        if _says_else(standing.get(key), prices):
            puts.append(prices)
    if puts and not dry_run:
        store.write_prices(puts)
    if regions is None and not dry_run and not was_refreshed(store, clock):
        marker = PriceKey(ALL_MODELS, today, None)
        store.write_prices([CachedPrices(marker, (), epoch, epoch + CACHE_TTL_SECS)])  # last: all the others are there
    return Refreshed(listing, tuple(new), tuple(changed), tuple(unlisted), len(puts))


def was_refreshed(store: Store, clock: Clock) -> bool:
    """Whether somebody has fetched all prices today (UTC)."""
    now = clock.now()
    key = PriceKey(ALL_MODELS, now.astimezone(UTC).date(), None)
    return key in store.read_prices([key], now_epoch=now.timestamp())


def refresh_daily(store: Store, source: Source, clock: Clock, stop: threading.Event) -> None:
    """Fetch all prices once a day, whoever of a fleet comes first, until ``stop`` is set. Errors are logged, and it is
    tried again in an hour."""
    while not stop.is_set():
        refresh_if_due(store, source, clock)
        stop.wait(CHECK_SECS)


def refresh_if_due(store: Store, source: Source, clock: Clock) -> bool:
    """Fetch all prices unless that was done today. Never raises. Whether the day's prices are there."""
    try:
        if was_refreshed(store, clock):
            return True
        done = refresh(store, source, clock)
    except (PriceListError, StoreError) as exc:
        log.error("the prices were not refreshed, the last known ones stay: %s", exc)
        return False
    except Exception:  # whatever it is, daily totals are more important
        log.exception("the prices were not refreshed, the last known ones stay")
        return False
    unmapped = sum(done.listing.unmapped.values())
    figures = (len(done.new), len(done.changed), done.written, unmapped)
    log.info("prices refreshed: %d new, %d changed, %d items written, %d rows unmapped", *figures)
    for note in done.listing.notes:
        log.warning("%s", note)
    return True


def thing_of(fact: PriceFact) -> PriceFact:
    """What a price is the price of, whatever it is and since when."""
    return fact._replace(pico_usd=0, since=date.min, source="")


class _Merged:
    """Prices of one model and region as they are to be kept: those listed, the ones before them where they have
    changed, and those that are not listed any more. A price that has not changed keeps the day it is known since."""

    def __init__(self, known: Iterable[PriceFact], listed: Iterable[PriceFact], today: date) -> None:
        before: dict[PriceFact, list[PriceFact]] = {}
        for fact in sorted(known, key=lambda fact: fact.since):
            before.setdefault(thing_of(fact), []).append(fact)
        now: dict[PriceFact, list[PriceFact]] = {}
        for fact in sorted(listed, key=lambda fact: fact.since):
            now.setdefault(thing_of(fact), []).append(fact)
        self.new: list[PriceFact] = []
        self.changed: list[Change] = []
        self.unlisted = [facts[-1] for thing, facts in before.items() if thing not in now]
        kept: list[PriceFact] = [fact for thing, facts in before.items() if thing not in now for fact in facts]
        for thing, facts in now.items():
            last = before[thing][-1] if thing in before else None
            fact = facts[-1]
            if last is None:
                self.new.append(fact)
                kept += facts
            elif last.pico_usd == fact.pico_usd:
                kept += before[thing]
            else:
                # A price without a date of its own, or with an earlier one, has changed some time since the last look.
                fact = fact if fact.since > last.since else fact._replace(since=today)
                self.changed.append(Change(fact, last.pico_usd))
                kept += [last, fact] if last.since < fact.since else [fact]
        self.facts = tuple(sorted(kept, key=lambda fact: (fact.profile or "", *fact[3:8], fact.since)))


def _for_all_regions(rows: Iterable[Row]) -> list[Row]:
    """Prices for regions of which none are known: those of us-east-1, for a model that is not there the dearest."""
    found: dict[PriceFact, dict[str | None, list[Row]]] = {}
    at_home = {row.fact.model for row in rows if row.fact.region == HOME_REGION}
    for row in rows:
        if row.fact.region == HOME_REGION or row.fact.model not in at_home:
            by_region = found.setdefault(thing_of(row.fact)._replace(region=None), {})
            by_region.setdefault(row.fact.region, []).append(row)
    default: list[Row] = []
    for by_region in found.values():
        dearest = max(by_region, key=lambda region: (max(row.fact.pico_usd for row in by_region[region]), region or ""))
        default += [row._replace(fact=row.fact._replace(region=None)) for row in by_region[dearest]]
    return default


def _says_else(standing: CachedPrices | None, prices: CachedPrices) -> bool:
    """Whether prices differ from those that stand under the same key, leaving aside when they were fetched."""
    if standing is None:
        return True
    return set(standing.facts) != set(prices.facts) or standing[4:] != prices[4:]

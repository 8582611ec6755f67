"""Cached prices in the SQLite file."""

import json
from collections.abc import Collection, Mapping, Sequence

from ..core.cached_prices import CachedPrices, PriceKey, facts_of, variant_name
from .contract import Store, UnreadableItem
from .sqlite_file import SQLiteFile

_GET = (
    "SELECT variants, fetched_at_epoch, expires_at_epoch, label, family, description FROM prices "
    "WHERE model_id = ? AND price_key = ? AND expires_at_epoch > ?"
)
_PUT = (
    "INSERT OR REPLACE INTO prices "
    "(model_id, price_key, variants, fetched_at_epoch, expires_at_epoch, label, family, description) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_DELETE_EXPIRED = "DELETE FROM prices WHERE expires_at_epoch <= ?"


class PricesInSQLite(Store):
    """The `Store` methods of cached prices."""

    _reading: SQLiteFile
    _writing: SQLiteFile

    def read_prices(self, keys: Collection[PriceKey], *, now_epoch: float) -> Mapping[PriceKey, CachedPrices]:
        found: dict[PriceKey, CachedPrices] = {}
        with self._reading.transaction("BEGIN") as connection:
            for key in keys:
                if row := connection.execute(_GET, (key.model, key.price_key, now_epoch)).fetchone():
                    try:
                        facts = facts_of(key, json.loads(row[0]), {})
                    except ValueError as exc:
                        raise UnreadableItem(f"the prices of {key} cannot be read: {exc}") from exc
                    found[key] = CachedPrices(key, facts, *row[1:])
        return found

    def write_prices(self, prices: Sequence[CachedPrices]) -> None:
        rows = [
            (
                *(each.key.model, each.key.price_key),
                json.dumps({variant_name(fact): fact.pico_usd for fact in each.facts}),
                *(each.fetched_at_epoch, each.expires_at_epoch, each.label, each.family, each.description),
            )
            for each in prices
        ]
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            connection.executemany(_PUT, rows)
            # Nobody else deletes what has expired; a file whose prices are never written again keeps a few.
            connection.execute(_DELETE_EXPIRED, (min((each.fetched_at_epoch for each in prices), default=0),))

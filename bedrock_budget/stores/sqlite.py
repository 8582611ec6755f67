"""A store in one SQLite file: for all processes of one machine. Needs nothing but Python's standard library."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..core.account import ZERO, Amounts, Batch
from ..core.holds import Grant, Granted
from ..core.keys import UsageKey, utc_hour
from ..core.usage import Usage
from . import sqlite_statements as sql
from .contract import Controls, DailyTotal, Override, Profile, SequenceConflict, ShardSum, Sticky, Stop
from .rules import (
    MismatchLog,
    check_app,
    check_batch,
    check_grant,
    expired,
    judge,
    moves_forward,
    plain_item,
    stop_in_force,
    stop_is_over,
    takes_place_of,
)
from .sqlite_file import SQLiteFile, absolute
from .sqlite_prices import PricesInSQLite


def _columns(amounts: Amounts) -> tuple[int, ...]:
    return (amounts.cost_pico_usd, *amounts.usage, amounts.requests)


def _amounts(columns: tuple[int, ...]) -> Amounts:
    return Amounts(columns[0], Usage(*columns[1:6]), columns[6])


class SQLiteStore(PricesInSQLite):
    """See `Store`. Durable (``synchronous=FULL``); any number of processes on one machine may share the file.

    Amounts of one shard go up to 2^63-1 pico-USD ($9.2 million) and tokens; beyond that StoreError is raised and
    nothing is added. The file must lie on a local disk: SQLite's write-ahead log does not work over networks.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = absolute(path)
        self._mismatches = MismatchLog()
        # Two connections: in WAL mode readers need not wait for writers, so they should not wait for a lock either.
        self._writing = SQLiteFile(self.path)
        self._reading = SQLiteFile(self.path)

    def __repr__(self) -> str:
        return f"<SQLiteStore {self.path}>"

    @property
    def url(self) -> str:
        """The store URL of this store."""
        return f"sqlite:///{self.path}"

    def write_batch(self, batch: Batch, *, now_epoch: float) -> None:
        check_batch(batch)
        shard = (*batch.key, batch.shard)
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            row = connection.execute(sql.GET_SEQUENCE, (*shard, batch.writer_id)).fetchone()
            applied = row[0] if row else 0
            if applied == batch.sequence:
                return
            if applied > batch.sequence:
                raise SequenceConflict(
                    f"batch {batch.sequence} of writer {batch.writer_id} for {batch.key} came after batch {applied}"
                )
            connection.execute(sql.PUT_SEQUENCE, (*shard, batch.writer_id, batch.sequence))
            connection.execute(
                sql.ADD_TO_SHARD,
                (*shard, *_columns(batch.amounts), int(now_epoch), batch.shard_count, utc_hour(now_epoch)),
            )

    def read_shards(self, keys: Mapping[UsageKey, int], *, writer_id: str | None = None) -> Mapping[UsageKey, ShardSum]:
        sums: dict[UsageKey, ShardSum] = {}
        with self._reading.transaction("BEGIN") as connection:
            for key, asked in keys.items():
                amounts, count = ZERO, asked
                # summed here and not by SQL: Python's integers do not overflow
                for row in connection.execute(sql.GET_SHARDS, key):
                    amounts, count = amounts.plus(_amounts(row[:7])), max(count, row[7])
                sequence = connection.execute(sql.GET_LAST_SEQUENCE, (*key, count, writer_id)).fetchone()[0]
                sums[key] = ShardSum(amounts, sequence or 0, count)
        for key, asked in keys.items():
            self._mismatches.note(key, asked, sums[key].shard_count)
        return sums

    def read_totals(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, DailyTotal]:
        totals: dict[UsageKey, DailyTotal] = {}
        with self._reading.transaction("BEGIN") as connection:
            for key in keys:
                if row := connection.execute(sql.GET_TOTAL, key).fetchone():
                    totals[key] = DailyTotal(_amounts(row[:7]), row[7])
        return totals

    def write_total(self, key: UsageKey, total: DailyTotal) -> bool:
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            row = connection.execute(sql.GET_TOTAL, key).fetchone()
            if row and not takes_place_of(DailyTotal(_amounts(row[:7]), row[7]), total):
                return False
            connection.execute(sql.PUT_TOTAL, (*key, *_columns(total.amounts), total.updated_at_epoch))
            return True

    def active_keys(self, hours: Iterable[str]) -> Mapping[UsageKey, int]:
        active: dict[UsageKey, int] = {}
        with self._reading.transaction("BEGIN") as connection:
            for hour in set(hours):
                for scope, label, day, shard in connection.execute(sql.GET_ACTIVE, (hour,)):
                    key = UsageKey(scope, label, day)
                    active[key] = max(active.get(key, 0), shard + 1)
        return active

    def read_controls(
        self, org_id: str, app_id: str | None, *, scope: str, day: str, now_epoch: float, consistent: bool = False
    ) -> Controls:
        app = app_id or ""
        with self._reading.transaction("BEGIN") as connection:
            items = {key: json.loads(text) for key, text in connection.execute(sql.GET_CONFIGS, (org_id, app))}
            pin = connection.execute(sql.GET_OVERRIDE, (org_id, app, now_epoch)).fetchone()
            stops = [Stop(*found) for found in connection.execute(sql.GET_STOPS, (org_id, app, now_epoch))]
            row = connection.execute(sql.GET_STICKY, (scope, day)).fetchone()
        sticky = Sticky(*row) if row else None
        return Controls(
            items.get(""),
            items.get(app) if app else None,
            Override(*pin) if pin else None,
            sticky if sticky and not expired(sticky.expires_at_epoch, now_epoch) else None,
            stop_in_force(stops, now_epoch),
        )

    def advance_sticky(self, scope: str, day: str, sticky: Sticky) -> Sticky:
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            row = connection.execute(sql.GET_STICKY, (scope, day)).fetchone()
            standing = Sticky(*row) if row else None
            if standing is not None and not moves_forward(standing, sticky):
                return standing
            connection.execute(sql.PUT_STICKY, (scope, day, *sticky))
            return sticky

    def clear_sticky(self, scope: str, day: str) -> None:
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            connection.execute(sql.DELETE_STICKY, (scope, day))

    def put_override(self, org_id: str, app_id: str | None, override: Override) -> None:
        check_app(app_id)
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            connection.execute(sql.PUT_OVERRIDE, (org_id, app_id or "", *override))

    def clear_override(self, org_id: str, app_id: str | None) -> bool:
        check_app(app_id)
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            deleted = connection.execute(sql.DELETE_OVERRIDE, (org_id, app_id or ""))
            return deleted.rowcount > 0

    def put_stop(self, org_id: str, stop: Stop) -> None:
        check_app(stop.app_id)
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            connection.execute(sql.PUT_STOP, (org_id, stop.app_id or "", *stop[1:], ""))

    def put_automatic_stop(self, org_id: str, stop: Stop, *, day: str) -> Stop | None:
        check_app(stop.app_id)
        place = (org_id, stop.app_id or "")
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            if row := connection.execute(sql.GET_STOP, place).fetchone():
                standing, (automatic_day, _, lifted_at) = Stop(*row[:5]), row[5:]
                if lifted_at is None and not stop_is_over(standing, stop.stopped_at_epoch):
                    return standing
                if automatic_day >= day:
                    return None
            connection.execute(sql.PUT_STOP, (*place, *stop[1:], day))
            return stop

    def lift_stop(self, org_id: str, app_id: str | None, *, lifted_by: str, now_epoch: int) -> Stop | None:
        check_app(app_id)
        place, lifted = (org_id, app_id or ""), (lifted_by, now_epoch)
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            row = connection.execute(sql.GET_STOP, place).fetchone()
            stop = Stop(*row[:5]) if row and row[6:] in ((None, None), lifted) else None
            if stop is None or stop_is_over(stop, now_epoch):
                return None
            connection.execute(sql.LIFT_STOP, (*lifted, *place))
            return stop

    def stops(self, org_id: str, *, now_epoch: float) -> list[Stop]:
        with self._reading.transaction("BEGIN") as connection:
            return [Stop(*row) for row in connection.execute(sql.GET_ALL_STOPS, (org_id, now_epoch))]

    def put_config(self, org_id: str, app_id: str | None, item: Mapping[str, Any]) -> None:
        text = json.dumps(plain_item(item), ensure_ascii=False, allow_nan=False)
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            connection.execute(sql.PUT_CONFIG, (org_id, app_id or "", text))

    def put_profile(self, org_id: str, profile: Profile) -> None:
        check_app(profile.app_id)
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            connection.execute(sql.PUT_PROFILE, (org_id, profile.app_id or "", *profile[1:]))

    def remove_profile(self, org_id: str, app_id: str | None, label: str) -> bool:
        check_app(app_id)
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            return connection.execute(sql.DELETE_PROFILE, (org_id, app_id or "", label)).rowcount > 0

    def profiles(self, org_id: str, app_id: str | None) -> list[Profile]:
        with self._reading.transaction("BEGIN") as connection:
            return [Profile(*row) for row in connection.execute(sql.GET_PROFILES, (org_id, app_id or ""))]

    def write_grant(self, grant: Grant, *, once: bool = False) -> Granted:
        check_grant(grant)
        key = grant.key
        with self._writing.transaction("BEGIN IMMEDIATE") as connection:
            pool = connection.execute(sql.GET_POOL, key).fetchone()
            row = connection.execute(sql.GET_HOLDER, (*key, grant.holder_id)).fetchone()
            applied = row[0] if row else 0
            outcome = judge(grant, pool[0] if pool else None, applied)
            if outcome.applied and applied < grant.sequence:
                connection.execute(sql.PUT_POOL, (*key, outcome.granted_pico_usd, grant.expires_at_epoch))
                connection.execute(sql.PUT_HOLDER, (*key, grant.holder_id, grant.sequence))
            return outcome

    def read_granted(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, int]:
        granted: dict[UsageKey, int] = {}
        with self._reading.transaction("BEGIN") as connection:
            for key in keys:
                if row := connection.execute(sql.GET_POOL, key).fetchone():
                    granted[key] = row[0]
        return granted

    def app_ids(self, org_id: str) -> list[str]:
        with self._reading.transaction("BEGIN") as connection:
            rows = connection.execute(sql.GET_APPS, (org_id,))
            return sorted(row[0] for row in rows)

    def close(self) -> None:
        self._writing.close()
        self._reading.close()

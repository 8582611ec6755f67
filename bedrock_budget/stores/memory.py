"""A store in this process's memory: for tests, trials and programs of one process. Nothing outlives the process."""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from ..core.account import ZERO, Amounts, Batch
from ..core.cached_prices import CachedPrices, PriceKey
from ..core.holds import Grant, Granted
from ..core.keys import UsageKey, utc_hour
from .contract import Controls, DailyTotal, Override, Profile, SequenceConflict, ShardSum, Sticky, Stop, Store
from .processes import PerProcess
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


class _Shard(NamedTuple):
    amounts: Amounts
    sequences: Mapping[str, int]
    shard_count: int
    active_hour: str


class _Pool(NamedTuple):
    granted_pico_usd: int
    sequences: Mapping[str, int]


class _Stopped(NamedTuple):
    """A stop and what became of it. ``automatic_day``: the last org day that an automatic stop was made for."""

    stop: Stop
    automatic_day: str = ""
    lifted: tuple[str, int] | None = None  # by whom and when


class MemoryStore(Store):
    """See `Store`. Not durable; a forked child goes on with a copy of its own.

    Every change is one assignment of an immutable value, so that a fork in the middle of a write of another thread
    leaves the child with all of it or none.
    """

    def __init__(self) -> None:
        self._lock = PerProcess(threading.Lock)
        self._shards: dict[tuple[UsageKey, int], _Shard] = {}
        self._totals: dict[UsageKey, DailyTotal] = {}
        self._pools: dict[UsageKey, _Pool] = {}
        self._stickies: dict[tuple[str, str], Sticky] = {}
        self._overrides: dict[tuple[str, str | None], Override] = {}
        self._stops: dict[tuple[str, str | None], _Stopped] = {}
        self._configs: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._prices: Mapping[PriceKey, CachedPrices] = {}
        self._profiles: dict[tuple[str, str | None, str], Profile] = {}
        self._mismatches = MismatchLog()

    def __repr__(self) -> str:
        return f"<MemoryStore at {id(self):#x}>"

    def write_batch(self, batch: Batch, *, now_epoch: float) -> None:
        check_batch(batch)
        place = (batch.key, batch.shard)
        with self._lock.get():
            shard = self._shards.get(place) or _Shard(ZERO, {}, 0, "")
            applied = shard.sequences.get(batch.writer_id, 0)
            if applied == batch.sequence:
                return
            if applied > batch.sequence:
                raise SequenceConflict(
                    f"batch {batch.sequence} of writer {batch.writer_id} for {batch.key} came after batch {applied}"
                )
            self._shards[place] = _Shard(
                shard.amounts.plus(batch.amounts),
                {**shard.sequences, batch.writer_id: batch.sequence},
                max(shard.shard_count, batch.shard_count),
                utc_hour(now_epoch),
            )

    def read_shards(self, keys: Mapping[UsageKey, int], *, writer_id: str | None = None) -> Mapping[UsageKey, ShardSum]:
        sums = {key: ShardSum(ZERO, 0, asked) for key, asked in keys.items()}
        with self._lock.get():
            for (key, _), shard in self._shards.items():
                if key in sums:
                    amounts, sequence, count = sums[key]
                    own = shard.sequences.get(writer_id, 0) if writer_id else 0
                    sums[key] = ShardSum(amounts.plus(shard.amounts), max(sequence, own), max(count, shard.shard_count))
        for key, asked in keys.items():
            self._mismatches.note(key, asked, sums[key].shard_count)
        return sums

    def read_totals(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, DailyTotal]:
        with self._lock.get():
            return {key: self._totals[key] for key in keys if key in self._totals}

    def write_total(self, key: UsageKey, total: DailyTotal) -> bool:
        with self._lock.get():
            if not takes_place_of(self._totals.get(key), total):
                return False
            self._totals[key] = total
            return True

    def active_keys(self, hours: Iterable[str]) -> Mapping[UsageKey, int]:
        wanted = set(hours)
        active: dict[UsageKey, int] = {}
        with self._lock.get():
            for (key, number), shard in self._shards.items():
                if shard.active_hour in wanted:
                    active[key] = max(active.get(key, 0), number + 1)
        return active

    def read_controls(
        self, org_id: str, app_id: str | None, *, scope: str, day: str, now_epoch: float, consistent: bool = False
    ) -> Controls:
        with self._lock.get():
            app_item = self._configs.get((org_id, app_id)) if app_id is not None else None
            pins = [self._overrides.get((org_id, app)) for app in dict.fromkeys((app_id, None))]
            sticky = self._stickies.get((scope, day))
            stops = [self._stops.get((org_id, app)) for app in dict.fromkeys((None, app_id))]
            return Controls(
                deepcopy(self._configs.get((org_id, None))),
                deepcopy(app_item),
                next((pin for pin in pins if pin and not expired(pin.expires_at_epoch, now_epoch)), None),
                sticky if sticky and not expired(sticky.expires_at_epoch, now_epoch) else None,
                stop_in_force([each.stop for each in stops if each and not each.lifted], now_epoch),
            )

    def advance_sticky(self, scope: str, day: str, sticky: Sticky) -> Sticky:
        with self._lock.get():
            standing = self._stickies.get((scope, day))
            if standing is not None and not moves_forward(standing, sticky):
                return standing
            self._stickies[scope, day] = sticky
            return sticky

    def clear_sticky(self, scope: str, day: str) -> None:
        with self._lock.get():
            self._stickies.pop((scope, day), None)

    def put_override(self, org_id: str, app_id: str | None, override: Override) -> None:
        check_app(app_id)
        with self._lock.get():
            self._overrides[org_id, app_id] = override

    def clear_override(self, org_id: str, app_id: str | None) -> bool:
        check_app(app_id)
        with self._lock.get():
            return self._overrides.pop((org_id, app_id), None) is not None

    def put_stop(self, org_id: str, stop: Stop) -> None:
        check_app(stop.app_id)
        with self._lock.get():
            standing = self._stops.get((org_id, stop.app_id))
            self._stops[org_id, stop.app_id] = _Stopped(stop, standing.automatic_day if standing else "")

    def put_automatic_stop(self, org_id: str, stop: Stop, *, day: str) -> Stop | None:
        check_app(stop.app_id)
        with self._lock.get():
            standing = self._stops.get((org_id, stop.app_id))
            if standing is not None:
                if not standing.lifted and not stop_is_over(standing.stop, stop.stopped_at_epoch):
                    return standing.stop
                if standing.automatic_day >= day:
                    return None
            self._stops[org_id, stop.app_id] = _Stopped(stop, day)
            return stop

    def lift_stop(self, org_id: str, app_id: str | None, *, lifted_by: str, now_epoch: int) -> Stop | None:
        check_app(app_id)
        lifted = (lifted_by, now_epoch)
        with self._lock.get():
            standing = self._stops.get((org_id, app_id))
            if standing is None or standing.lifted not in (None, lifted) or stop_is_over(standing.stop, now_epoch):
                return None
            self._stops[org_id, app_id] = standing._replace(lifted=lifted)
            return standing.stop

    def stops(self, org_id: str, *, now_epoch: float) -> list[Stop]:
        with self._lock.get():
            found = [each.stop for (org, _), each in self._stops.items() if org == org_id and not each.lifted]
        return sorted((each for each in found if not stop_is_over(each, now_epoch)), key=lambda each: each.app_id or "")

    def put_config(self, org_id: str, app_id: str | None, item: Mapping[str, Any]) -> None:
        plain = plain_item(item)
        with self._lock.get():
            self._configs[org_id, app_id] = plain

    def put_profile(self, org_id: str, profile: Profile) -> None:
        check_app(profile.app_id)
        key = (org_id, profile.app_id, profile.label)
        with self._lock.get():
            standing = self._profiles.get(key, profile)
            self._profiles[key] = profile._replace(created_at_epoch=standing.created_at_epoch)

    def remove_profile(self, org_id: str, app_id: str | None, label: str) -> bool:
        check_app(app_id)
        with self._lock.get():
            return self._profiles.pop((org_id, app_id, label), None) is not None

    def profiles(self, org_id: str, app_id: str | None) -> list[Profile]:
        with self._lock.get():
            found = [each for (org, _, _), each in self._profiles.items() if org == org_id]
        return sorted(
            (each for each in found if each.app_id in (None, app_id)), key=lambda each: (each.app_id or "", each.label)
        )

    def write_grant(self, grant: Grant, *, once: bool = False) -> Granted:
        check_grant(grant)
        with self._lock.get():
            pool = self._pools.get(grant.key)
            sequences: Mapping[str, int] = pool.sequences if pool else {}
            applied = sequences.get(grant.holder_id, 0)
            outcome = judge(grant, pool.granted_pico_usd if pool else None, applied)
            if outcome.applied and applied < grant.sequence:
                self._pools[grant.key] = _Pool(outcome.granted_pico_usd, {**sequences, grant.holder_id: grant.sequence})
            return outcome

    def read_granted(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, int]:
        with self._lock.get():
            return {key: self._pools[key].granted_pico_usd for key in keys if key in self._pools}

    def read_prices(self, keys: Collection[PriceKey], *, now_epoch: float) -> Mapping[PriceKey, CachedPrices]:
        prices = self._prices
        found = {key: prices[key] for key in keys if key in prices}
        return {key: each for key, each in found.items() if not expired(each.expires_at_epoch, now_epoch)}

    def write_prices(self, prices: Sequence[CachedPrices]) -> None:
        with self._lock.get():
            self._prices = {**self._prices, **{each.key: each for each in prices}}

    def app_ids(self, org_id: str) -> list[str]:
        with self._lock.get():
            return sorted(app for org, app in self._configs if org == org_id and app is not None)

    def close(self) -> None:
        """Nothing to give back; what is stored stays."""

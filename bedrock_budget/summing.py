"""Shards in, daily totals out: the part that passes over the index and batches of a stream have in common."""

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from .clock import Clock
from .core.account import Amounts
from .core.errors import StoreError
from .core.keys import UsageKey
from .stores import Store
from .stores.contract import DailyTotal, UnreadableItem
from .stores.parallel import in_parallel

log = logging.getLogger("bedrock_budget.aggregator")

#: Keys whose shards are summed by one request to the store.
KEYS_AT_ONCE = 50
#: A request for many keys that failed is repeated key by key, until so many in a row fail: the store is away.
FAILURES_IN_A_ROW = 3
#: A total that does not change is written again by the first pass after so many intervals, as long as its key is
#: listed. Clients call it stale after three, and the pass after this one may come up to as many later.
REWRITE_INTERVALS = 1.5
#: Keys remembered to have more shards than configured.
_MAX_LARGER = 10_000


class Sums(NamedTuple):
    """What came of summing some keys. ``failures``: why others have no totals."""

    totals_written: int
    failures: Mapping[UsageKey, StoreError]

    def plus(self, other: "Sums") -> "Sums":
        return Sums(self.totals_written + other.totals_written, {**self.failures, **other.failures})


class Summing:
    """Sums shards by consistent reads and writes totals that are not lower than those that stand.

    So any number of these, in any order and repeated at will, leave the same totals. ``shard_count_of``: the
    configured shard count of an org id; items may say more. An unchanged total is not written again within
    `REWRITE_INTERVALS` of ``interval_secs``.
    """

    def __init__(
        self, store: Store, clock: Clock, *, shard_count_of: Callable[[str], int], interval_secs: float
    ) -> None:
        self._store = store
        self._clock = clock
        self._shard_count_of = shard_count_of
        self._interval_secs = interval_secs
        self._lock = threading.Lock()
        self._failures: list[StoreError] = []  # of requests, in a row
        self._at_least: Mapping[UsageKey, Amounts] = {}
        # Which shard says so may not be named again for hours, but the others do not know of it.
        self._larger: dict[UsageKey, int] = {}
        self.written: dict[UsageKey, tuple[Amounts, float]] = {}

    def shards(self, key: UsageKey) -> int:
        """How many shards a key is configured to have."""
        return self._shard_count_of(key.scope.removeprefix("ORG#").partition("#")[0])

    def sum_all(self, keys: Mapping[UsageKey, int], at_least: Mapping[UsageKey, Amounts] | None = None) -> Sums:
        """Sum these keys under at least so many shards each. A key that fails does not keep the others from theirs.

        ``at_least``: what the shards of a key are known to have added up to already.
        """
        self._failures = []
        self._at_least = at_least or {}
        ordered = sorted(keys)
        chunks = [
            {
                key: max(keys[key], self._larger.get(key) or self.shards(key))
                for key in ordered[start : start + KEYS_AT_ONCE]
            }
            for start in range(0, len(ordered), KEYS_AT_ONCE)
        ]
        done = Sums(0, {})
        # One alone first: if the store is away, one request should find that out and not one of each thread.
        for some in (chunks[:1], chunks[1:]):
            for sums in in_parallel(self._sum_some, some, self._store.parallel_requests):
                done = done.plus(sums)
        return done

    def forget_all_but(self, keys: Collection[UsageKey]) -> None:
        """Remember what was written for these keys alone."""
        self.written = {key: kept for key, kept in self.written.items() if key in keys}

    def _sum_some(self, keys: Mapping[UsageKey, int]) -> Sums:
        if away := self._away():
            return Sums(0, dict.fromkeys(keys, away))
        began = self._clock.now().timestamp()
        try:
            sums = self._store.read_shards(keys)
        except StoreError as exc:
            self._failed(exc, keys)
            if len(keys) == 1:
                return Sums(0, dict.fromkeys(keys, exc))
            done = Sums(0, {})
            for key, shard_count in keys.items():
                done = done.plus(self._sum_some({key: shard_count}))
            return done
        written = 0
        failures: dict[UsageKey, StoreError] = {}
        for key, found in sums.items():
            if found.shard_count > self.shards(key):
                self._remember_larger(key, found.shard_count)
            if away := self._away():
                failures[key] = away
                continue
            try:
                written += self._write(key, found.amounts, began)
                self._succeeded()
            except StoreError as exc:
                self._failed(exc, [key])
                failures[key] = exc
        return Sums(written, failures)

    def _remember_larger(self, key: UsageKey, shard_count: int) -> None:
        with self._lock:
            if len(self._larger) >= _MAX_LARGER:
                del self._larger[next(iter(self._larger))]
            self._larger[key] = shard_count

    def _write(self, key: UsageKey, read: Amounts, began: float) -> bool:
        amounts = higher(read, self._at_least.get(key, read))
        before = self.written.get(key)
        if before is not None and before[0] == amounts and began - before[1] < REWRITE_INTERVALS * self._interval_secs:
            return False
        done = self._store.write_total(key, DailyTotal(amounts, int(began)))
        self.written[key] = (amounts, began)
        return done

    def _away(self) -> StoreError | None:
        """The error of a store that is taken to be away until the keys at hand are through."""
        with self._lock:
            return self._failures[-1] if len(self._failures) >= FAILURES_IN_A_ROW else None

    def _succeeded(self) -> None:
        with self._lock:
            self._failures.clear()

    def _failed(self, exc: StoreError, keys: Collection[UsageKey]) -> None:
        if not isinstance(exc, UnreadableItem):  # which is a definite answer: the store is not away
            with self._lock:
                self._failures.append(exc)
        what = f"{len(keys)} keys" if len(keys) > 1 else next(iter(keys))
        log.warning("no totals for %s in this try: %s", what, exc)


def higher(one: Amounts, other: Amounts) -> Amounts:
    """The later of two states of a sum that only grows."""
    return max(one, other, key=lambda each: (each.cost_pico_usd, each.requests))

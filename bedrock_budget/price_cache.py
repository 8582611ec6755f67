"""The prices that a process binds its budgets to: those that were fetched into the store, over the bundled table.

One for all scopes of a client. It reads the store in the background, with the looks, and never in a call: a price that
has changed there holds from the next look of a scope after it was read.
"""

import logging
import threading
from collections.abc import Iterable
from datetime import UTC, date
from math import inf

from .clock import Clock
from .core.cached_prices import CachedPrices, PriceKey, keys_of, last_known
from .core.errors import StoreError
from .core.model_ids import parse_model_id
from .prices import bundled
from .prices.resolution import FoundPrice, KnownPrices
from .stores.contract import Store

log = logging.getLogger("bedrock_budget")

#: Between two readings of the store, and after one that failed.
RELOAD_SECS = 900.0
#: How long a look waits for another one that reads the prices.
_WAIT_SECS = 1.0
#: Models asked for in calls that no budget names.
_MOST_MODELS = 1000


class PriceCache:
    """See the module's text. Thread-safe."""

    def __init__(self, store: Store, clock: Clock, region: str | None) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._lock = threading.Lock()
        self._known: KnownPrices | None = None  # None: nothing was fetched, as far as is known
        self._cached: dict[tuple[str, str | None], CachedPrices] = {}
        self._wanted: set[tuple[str, str | None]] = set()
        self._read: set[tuple[str, str | None]] = set()
        self._due_at = -inf
        self._warned = False
        #: Goes up whenever a price may have changed.
        self.version = 0

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def find(self, model_id: str, *, on: date, region: str | None = None) -> FoundPrice | None:
        """See `KnownPrices.find`; ``region`` None: the client's. No I/O."""
        self._want(model_id)
        known = self._known or KnownPrices(bundled(), {})
        return known.find(model_id, region=region or self._region, on=on)

    def read_when_due(self, model_ids: Iterable[str]) -> None:
        """Read the prices of these models, and of all that were asked for before, if that is due. Never raises."""
        for model_id in model_ids:
            self._want(model_id)
        if not self._is_due() or not self._lock.acquire(timeout=_WAIT_SECS):
            return
        try:
            if self._is_due():  # still, after the wait
                self._read_now()
        finally:
            self._lock.release()

    def _want(self, model_id: str) -> None:
        parsed = parse_model_id(model_id)
        if parsed.base is not None and len(self._wanted) < _MOST_MODELS:
            self._wanted.add((parsed.base, parsed.region or self._region))

    def _is_due(self) -> bool:
        now = self._clock.monotonic()
        # After a failure new models wait like the others: a store that is away is asked seldom.
        return now >= self._due_at or (not self._warned and not self._wanted <= self._read)

    def _read_now(self) -> None:
        now = self._clock.now()
        wanted = set(self._wanted)
        today = now.astimezone(UTC).date()
        keys: list[PriceKey] = []
        for model, region in wanted:
            keys += keys_of([model], [region, None], today)
        self._due_at = self._clock.monotonic() + RELOAD_SECS
        try:
            found = self._store.read_prices(list(dict.fromkeys(keys)), now_epoch=now.timestamp())
        except StoreError as exc:
            level = logging.DEBUG if self._warned else logging.WARNING
            log.log(level, "cannot read the prices that were fetched, going on with those known: %s", exc)
            self._warned = True
            return
        self._warned = False
        self._read = wanted
        cached = last_known(found.values())
        if {place: each.facts for place, each in cached.items()} != {
            place: each.facts for place, each in self._cached.items()
        }:
            self._known = KnownPrices(bundled(), cached)
            self.version += 1
        self._cached = cached

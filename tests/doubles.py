"""Stand-ins that several tests share: a store that fails on demand, and a way to wait for background threads."""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from bedrock_budget import lifecycle
from bedrock_budget.call import Call
from bedrock_budget.clock import Clock
from bedrock_budget.config import load_budgets
from bedrock_budget.core.account import Amounts, Batch, sum_of
from bedrock_budget.core.cached_prices import CachedPrices, PriceKey
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.holds import Grant, Granted
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.keeper import Keeper
from bedrock_budget.scopes import ScopeDay
from bedrock_budget.stores import Controls, DailyTotal, MemoryStore, Override, ShardSum, Sticky, Stop, Store
from bedrock_budget.stores.contract import Profile
from bedrock_budget.testing import ManualClock

T = TypeVar("T")

AWAY = StoreError("the store is away")


class UnreliableStore(MemoryStore):  # not of `Store`, among whose kinds it does not count
    """A `MemoryStore` that can be away, lose the reply to a write that it has applied, and keep callers waiting.

    ``reads_fail`` and ``writes_fail`` are raised instead of doing anything. ``lose_replies``: so many writes of
    batches are applied and then fail; ``lose_grant_replies``: of grants. ``open``: every call waits for this event.
    ``fails``: called with the name of each method and its first argument; what it returns is raised. ``calls``: what
    was asked, in order.
    """

    def __init__(self, inner: MemoryStore | None = None) -> None:
        super().__init__()
        self.inner = inner or MemoryStore()
        self.reads_fail: Exception | None = None
        self.writes_fail: Exception | None = None
        self.lose_replies = 0
        self.lose_grant_replies = 0
        self.open = threading.Event()
        self.open.set()
        self.fails: Callable[[str, Any], Exception | None] = lambda name, subject: None
        self.calls: list[tuple[str, Any]] = []
        self.batches: list[Batch] = []
        self.waiting = 0
        self._counting = threading.Lock()

    def go_away(self) -> None:
        self.reads_fail = self.writes_fail = AWAY

    def come_back(self) -> None:
        self.reads_fail = self.writes_fail = None

    def count(self, name: str) -> int:
        """How often a method was called."""
        with self._counting:
            return sum(called == name for called, _ in self.calls)

    def _do(self, name: str, subject: Any, is_write: bool, work: Callable[[], T]) -> T:
        with self._counting:
            self.calls.append((name, subject))
            self.waiting += 1
        self.open.wait(30)
        with self._counting:
            self.waiting -= 1
        error = (self.writes_fail if is_write else self.reads_fail) or self.fails(name, subject)
        if error is not None:
            raise error
        return work()

    def write_batch(self, batch: Batch, *, now_epoch: float) -> None:
        with self._counting:
            self.batches.append(batch)
        self._do("write_batch", batch, True, lambda: self.inner.write_batch(batch, now_epoch=now_epoch))
        with self._counting:
            lost = self.lose_replies > 0
            self.lose_replies -= lost
        if lost:
            raise StoreError("the reply was lost")

    def read_shards(self, keys: Mapping[UsageKey, int], *, writer_id: str | None = None) -> Mapping[UsageKey, ShardSum]:
        return self._do("read_shards", dict(keys), False, lambda: self.inner.read_shards(keys, writer_id=writer_id))

    def read_totals(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, DailyTotal]:
        return self._do("read_totals", list(keys), False, lambda: self.inner.read_totals(keys))

    def write_total(self, key: UsageKey, total: DailyTotal) -> bool:
        return self._do("write_total", key, True, lambda: self.inner.write_total(key, total))

    def active_keys(self, hours: Iterable[str]) -> Mapping[UsageKey, int]:
        listed = list(hours)
        return self._do("active_keys", listed, False, lambda: self.inner.active_keys(listed))

    def read_controls(
        self, org_id: str, app_id: str | None, *, scope: str, day: str, now_epoch: float, consistent: bool = False
    ) -> Controls:
        return self._do(
            "read_controls",
            (org_id, app_id, day),
            False,
            lambda: self.inner.read_controls(
                org_id, app_id, scope=scope, day=day, now_epoch=now_epoch, consistent=consistent
            ),
        )

    def advance_sticky(self, scope: str, day: str, sticky: Sticky) -> Sticky:
        return self._do("advance_sticky", sticky, True, lambda: self.inner.advance_sticky(scope, day, sticky))

    def clear_sticky(self, scope: str, day: str) -> None:
        self.inner.clear_sticky(scope, day)

    def put_override(self, org_id: str, app_id: str | None, override: Override) -> None:
        self.inner.put_override(org_id, app_id, override)

    def clear_override(self, org_id: str, app_id: str | None) -> bool:
        return self.inner.clear_override(org_id, app_id)

    def put_stop(self, org_id: str, stop: Stop) -> None:
        self.inner.put_stop(org_id, stop)

    def put_automatic_stop(self, org_id: str, stop: Stop, *, day: str) -> Stop | None:
        return self._do("put_automatic_stop", stop, True, lambda: self.inner.put_automatic_stop(org_id, stop, day=day))

    def lift_stop(self, org_id: str, app_id: str | None, *, lifted_by: str, now_epoch: int) -> Stop | None:
        return self.inner.lift_stop(org_id, app_id, lifted_by=lifted_by, now_epoch=now_epoch)

    def stops(self, org_id: str, *, now_epoch: float) -> list[Stop]:
        return self.inner.stops(org_id, now_epoch=now_epoch)

    def put_config(self, org_id: str, app_id: str | None, item: Mapping[str, Any]) -> None:
        self.inner.put_config(org_id, app_id, item)

    def app_ids(self, org_id: str) -> list[str]:
        return self.inner.app_ids(org_id)

    def profiles(self, org_id: str, app_id: str | None) -> list[Profile]:
        return self._do("profiles", org_id, False, lambda: self.inner.profiles(org_id, app_id))

    def read_prices(self, keys: Collection[PriceKey], *, now_epoch: float) -> Mapping[PriceKey, CachedPrices]:
        return self._do("read_prices", keys, False, lambda: self.inner.read_prices(keys, now_epoch=now_epoch))

    def write_grant(self, grant: Grant, *, once: bool = False) -> Granted:
        outcome = self._do("write_grant", grant, True, lambda: self.inner.write_grant(grant, once=once))
        with self._counting:
            lost = self.lose_grant_replies > 0
            self.lose_grant_replies -= lost
        if lost:
            raise AWAY
        return outcome

    def read_granted(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, int]:
        return self._do("read_granted", keys, False, lambda: self.inner.read_granted(keys))

    def close(self) -> None:
        self.inner.close()


def stored(store: Store, *keys: UsageKey) -> Amounts:
    """What the shards of these keys add up to."""
    inner = store.inner if isinstance(store, UnreliableStore) else store
    return sum_of(found.amounts for found in inner.read_shards(dict.fromkeys(keys, 64)).values())


def wait_until(holds: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until something that a background thread does has happened. Fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.001)


#: A token of any label costs one USD micro, so tokens are micros.
LABEL_PRICE = {"input_price_usd_micros_per_1m": 1_000_000, "output_price_usd_micros_per_1m": 1_000_000}
CHAIN = ("premium", "standard", "economy")
CONFIG: dict[str, Any] = {
    "model_labels": {label: {"id": f"model.{label}", **LABEL_PRICE} for label in (*CHAIN, "embed")},
    "org_defaults": {
        "timezone": "UTC",
        "quota_scope": "APP",
        "model_ordering": list(CHAIN),
        "quotas": {"premium": 1000, "standard": 1000, "economy": 1000},
    },
}


def config(**org_defaults: Any) -> dict[str, Any]:
    """`CONFIG` with other defaults."""
    return {**CONFIG, "org_defaults": {**CONFIG["org_defaults"], **org_defaults}}


def usage_key(label: str = "premium", day: str = "20260115", app: str = "chat") -> UsageKey:
    return UsageKey(f"ORG#acme#APP#{app}", label, day)


class ByHand:
    """A process at work on a store, with no background threads: it looks and writes when the test says so.

    A call that needs a look makes it itself.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        budget: Mapping[str, Any] | None = CONFIG,
        *,
        app: str = "chat",
        sync: bool = False,
        **keywords: Any,
    ) -> None:
        self.store = store
        self.clock = clock
        budgets = None if budget is None else load_budgets(budget)
        self.keeper = Keeper(store, budgets, clock, keywords=keywords, region="us-east-1", sync=sync)
        self.keeper.meter._start_thread = lambda: None  # type: ignore[method-assign]
        self.keeper.scopes._refresher._get_help = lambda: False  # type: ignore[method-assign]
        self.keeper._used = True  # the end of the test run is not its own
        lifecycle._mortals.pop(id(self.keeper))
        self.scope = self.keeper.scopes.enter("acme", app)

    @property
    def day(self) -> ScopeDay:
        assert self.scope.day is not None
        return self.scope.day

    def admit(self, asked: str | None = None) -> Call:
        return self.keeper.admit(self.scope, asked, "Converse", {})

    def spend(self, usd_micros: int, asked: str | None = None) -> dict[str, Any]:
        """One call of this cost; its record."""
        return self.admit(asked).settle(Usage(usd_micros))

    def goes_to(self, asked: str | None = None) -> tuple[str, str]:
        """Where a call would go, and why."""
        record = self.admit(asked).record
        return record["label"], record["reason"]

    def look(self) -> None:
        """The background look that is due now: at the controls, and at the spend when that is due."""
        self.keeper.scopes._look(self.day)

    def look_at_spend(self) -> None:
        """Move the manual clock to when the next look at the spend is due, and look."""
        self._pass_time(self.day.schedule.due_at_secs)
        self.look()

    def look_when_due(self) -> float:
        """Move the manual clock to when the next look is due, and look. Returns the seconds that took."""
        secs = self._pass_time(self.day.due_at)
        self.look()
        return secs

    def _pass_time(self, until: float) -> float:
        assert isinstance(self.clock, ManualClock)
        secs = max(until - self.clock.monotonic(), 0.0)
        self.clock.advance(math.ceil(secs * 1e6) / 1e6)  # the clock counts in microseconds
        return secs

    def write(self) -> None:
        """The background write."""
        with suppress(StoreError):
            self.keeper.meter._outbox.write_dirty()

    def pass_midnight(self) -> None:
        """What the refresher does with the scope's day at its end."""
        self.look()
        self.keeper.scopes._forget(self.day)

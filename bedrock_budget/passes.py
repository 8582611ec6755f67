"""Passes over what was written lately, one an interval: daily totals without a stream.

A pass follows writes, not days: it lists the keys written since the last complete pass began, a little more where the
store cannot tell so exactly, and sums all their shards, whatever their org day. The first pass lists 48 hours, the
first of each UTC hour that hour and the two before. Totals never go down, so any number may run at once. A stopped
aggregator costs reads, not control: the clients then sum the shards themselves.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .clock import Clock
from .core.errors import StoreError
from .core.keys import UsageKey, recent_hours, utc_hour
from .partition import Partition
from .stores import Store
from .summing import Summing

log = logging.getLogger("bedrock_budget.aggregator")

INTERVAL_SECS = 60
RECENT_HOURS = 2
FIRST_PASS_HOURS = 48
#: How long before the last complete pass began a write may be marked that it did not see: the index is some seconds
#: late, clocks differ, and a request may be under way.
LOOK_BACK_SECS = 120


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did.

    All usage acknowledged before ``began_at_epoch`` is in the totals (the index may be some seconds late).
    ``lag_secs``: how old the oldest usage that was not could be when the pass ended: the time since it began.
    ``longest_lag_secs``: the same just before it ended: the time since the complete pass before it began, None if
    there was none.
    """

    began_at_epoch: float
    keys: int
    totals_written: int
    lag_secs: float
    longest_lag_secs: float | None = None


class Aggregator:
    """Runs passes over a store. ``shard_count_of``: the configured shard count of an org id; items may say more.
    ``partition``: the share of the keys that it takes."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        shard_count_of: Callable[[str], int],
        interval_secs: float = INTERVAL_SECS,
        partition: Partition = Partition(),  # noqa: B008 - it cannot change
    ) -> None:
        self.store = store
        self._clock = clock
        self.summing = Summing(store, clock, shard_count_of=shard_count_of, interval_secs=interval_secs)
        self._partition = partition
        self.interval_secs = interval_secs
        self.last_pass: Pass | None = None
        self.last_error: str | None = None

    def run_pass(self) -> Pass:
        """Sum everything written since the last complete pass, once. A key that fails does not keep the others from
        their totals.

        Raises StoreError if any of it failed; what was done is done, and the next pass repeats the rest.
        """
        began = self._clock.now().timestamp()
        try:
            listed = self._listed(began)
        except StoreError as exc:
            self.last_error = str(exc)
            raise
        keys = {key: shard_count for key, shard_count in listed.items() if self._partition.has(key)}
        sums = self.summing.sum_all(keys)
        if sums.failures:
            first = next(iter(sums.failures.values()))
            self.last_error = str(first)
            raise first
        self.summing.forget_all_but(keys)
        self.last_error = None
        ended = self._clock.now().timestamp()
        before = self.last_pass
        longest = None if before is None else ended - before.began_at_epoch
        self.last_pass = Pass(began, len(keys), sums.totals_written, ended - began, longest)
        return self.last_pass

    def run(self, stop: threading.Event) -> None:
        """Pass after pass, one an interval, until ``stop`` is set. Store errors are logged and tried again."""
        from tenacity import (  # noqa: PLC0415
            RetryCallState,
            Retrying,
            retry_if_exception_type,
            sleep_using_event,
            stop_when_event_set,
            wait_random_exponential,
        )

        def complain(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            log.error("no daily totals since %s tries: %s", state.attempt_number, error)

        retrying = Retrying(
            retry=retry_if_exception_type(StoreError),
            wait=wait_random_exponential(multiplier=1, max=self.interval_secs),
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=complain,
            reraise=True,
        )
        while not stop.is_set():
            started = self._clock.monotonic()
            try:
                done = retrying(self.run_pass)
            except StoreError as exc:  # only when stopping
                log.error("stopping with a pass undone: %s", exc)
                return
            log.info("%s", text_of(done))
            stop.wait(max(self.interval_secs - (self._clock.monotonic() - started), 0.0))

    def _listed(self, began: float) -> Mapping[UsageKey, int]:
        """The keys that a pass sums: no write since the last complete pass may be missed."""
        last = self.last_pass
        if last is None:
            return self.store.active_keys(recent_hours(began, FIRST_PASS_HOURS))
        if utc_hour(began) != utc_hour(last.began_at_epoch) and began > last.began_at_epoch:
            # Once an hour all, and an hour more: a mark later than `LOOK_BACK_SECS` allows (a slow index, a clock that
            # is wrong) may delay a total by up to an hour but not lose it.
            hours = RECENT_HOURS + 1 + int(began - last.began_at_epoch) // 3600
            return self.store.active_keys(recent_hours(began, min(hours, FIRST_PASS_HOURS)))
        recent = recent_hours(began, RECENT_HOURS)
        if began < last.began_at_epoch:  # the clock was set back: what the last pass took for lately is anybody's guess
            return self.store.active_keys(recent)
        since = last.began_at_epoch - LOOK_BACK_SECS
        return self.store.active_keys_since(recent, since_epoch=since, now_epoch=began)

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether a pass succeeded within the last three intervals, and the figures behind it.

        ``lag_secs``: how old the oldest usage that is in no daily total may be now: the time since the last complete
        pass began.
        """
        last = self.last_pass
        age = None if last is None else self._clock.now().timestamp() - last.began_at_epoch
        healthy = age is not None and age <= 3 * self.interval_secs
        return healthy, {
            "status": "ok" if healthy else "failing",
            "lag_secs": age,
            "partition": str(self._partition),
            "last_pass": None if last is None else asdict(last),
            "age_secs": age,
            "last_error": self.last_error,
        }


def text_of(done: Pass) -> str:
    """A pass, for the log."""
    longest = "" if done.longest_lag_secs is None else f", lag up to {done.longest_lag_secs:.1f} s"
    return f"{done.keys} keys, {done.totals_written} totals written, {done.lag_secs:.3f} s{longest}"

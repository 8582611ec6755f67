"""The aggregator: sums the shards of what was written lately into daily totals.

``python -m bedrock_budget.aggregator --store URL [--config FILE] [--interval 60] [--once] [--health-port N]``

It follows writes, not days: a pass lists the keys written in this UTC hour and the one before (its first pass: 48
hours) and sums all their shards, whatever their org day. Totals never go down, so any number may run at once. A
stopped aggregator costs reads, not control: the clients then sum the shards themselves.
"""

import argparse
import logging
import queue
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .clock import Clock, SystemClock
from .config import load_budgets, table_budgets
from .core.account import Amounts
from .core.budget_rules import Budgets
from .core.errors import BudgetError, ConfigError, StoreError
from .core.keys import UsageKey, recent_hours
from .health import HealthServer
from .stores import Store, default_store_url, open_store
from .stores.contract import DailyTotal

log = logging.getLogger("bedrock_budget.aggregator")

INTERVAL_SECS = 60
RECENT_HOURS = 2
FIRST_PASS_HOURS = 48
#: Keys whose shards are summed by one request to the store.
KEYS_AT_ONCE = 50
#: A request for many keys that failed is repeated key by key, until so many in a row fail: the store is away.
FAILURES_A_PASS = 3
#: A total that does not change is written again by the first pass after so many intervals. Clients call it stale
#: after three, and the pass after this one may come up to as many later.
REWRITE_INTERVALS = 1.5


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did. ``lag_secs``: how long before its end it began to read."""

    began_at_epoch: float
    keys: int
    totals_written: int
    lag_secs: float


class Aggregator:
    """Runs passes over a store. ``shard_count_of``: the configured shard count of an org id; items may say more."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        shard_count_of: Callable[[str], int],
        interval_secs: float = INTERVAL_SECS,
    ) -> None:
        self._store = store
        self._clock = clock
        self._shard_count_of = shard_count_of
        self.interval_secs = interval_secs
        self.last_pass: Pass | None = None
        self.last_error: str | None = None
        self._written: dict[UsageKey, tuple[Amounts, float]] = {}
        self._failures = 0  # of requests of this pass, in a row

    def run_pass(self) -> Pass:
        """Sum everything written lately, once. A key that fails does not keep the others from their totals.

        Raises StoreError if any of it failed; what was done is done, and the next pass repeats the rest.
        """
        began = self._clock.now().timestamp()
        self._failures = 0
        try:
            keys = self._store.active_keys(recent_hours(began, self._hours(began)))
            written, failure = self._sum_all(keys)
        except StoreError as exc:
            self.last_error = str(exc)
            raise
        if failure is not None:
            self.last_error = str(failure)
            raise failure
        self._written = {key: kept for key, kept in self._written.items() if key in keys}
        self.last_error = None
        self.last_pass = Pass(began, len(keys), written, self._clock.now().timestamp() - began)
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
            log.info("%d keys, %d totals written, %.3f s", done.keys, done.totals_written, done.lag_secs)
            stop.wait(max(self.interval_secs - (self._clock.monotonic() - started), 0.0))

    def _hours(self, began: float) -> int:
        """How many hours back a pass lists: no write since the last complete pass may be missed."""
        if self.last_pass is None:
            return FIRST_PASS_HOURS
        return min(RECENT_HOURS + max(int(began - self.last_pass.began_at_epoch), 0) // 3600, FIRST_PASS_HOURS)

    def _sum_all(self, keys: Mapping[UsageKey, int]) -> tuple[int, StoreError | None]:
        written = 0
        first: StoreError | None = None
        ordered = sorted(keys)
        for start in range(0, len(ordered), KEYS_AT_ONCE):
            some = {key: max(keys[key], self._shards(key)) for key in ordered[start : start + KEYS_AT_ONCE]}
            done, failure = self._sum_some(some)
            written += done
            first = first or failure
            if self._failures >= FAILURES_A_PASS:
                break
        return written, first

    def _sum_some(self, keys: Mapping[UsageKey, int]) -> tuple[int, StoreError | None]:
        began = self._clock.now().timestamp()
        written = 0
        first: StoreError | None = None
        try:
            sums = self._store.read_shards(keys)
        except StoreError as exc:
            self._failed(exc, keys)
            if len(keys) == 1:
                return 0, exc
            for key, shard_count in keys.items():
                if self._failures >= FAILURES_A_PASS:
                    break
                done, _ = self._sum_some({key: shard_count})
                written += done
            return written, exc
        for key, found in sums.items():
            try:
                written += self._write(key, found.amounts, began)
                self._failures = 0
            except StoreError as exc:
                self._failed(exc, [key])
                first = first or exc
                if self._failures >= FAILURES_A_PASS:
                    break
        return written, first

    def _failed(self, exc: StoreError, keys: Collection[UsageKey]) -> None:
        self._failures += 1
        what = f"{len(keys)} keys" if len(keys) > 1 else next(iter(keys))
        log.warning("no totals for %s in this try: %s", what, exc)

    def _shards(self, key: UsageKey) -> int:
        return self._shard_count_of(key.scope.split("#")[1])

    def _write(self, key: UsageKey, amounts: Amounts, began: float) -> bool:
        before = self._written.get(key)
        if before is not None and before[0] == amounts and began - before[1] < REWRITE_INTERVALS * self.interval_secs:
            return False
        done = self._store.write_total(key, DailyTotal(amounts, int(began)))
        self._written[key] = (amounts, began)
        return done

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether a pass succeeded within the last three intervals, and the figures behind it."""
        last = self.last_pass
        age = None if last is None else self._clock.now().timestamp() - last.began_at_epoch
        healthy = age is not None and age <= 3 * self.interval_secs
        return healthy, {
            "status": "ok" if healthy else "failing",
            "last_pass": None if last is None else asdict(last),
            "age_secs": age,
            "last_error": self.last_error,
        }


def aggregator_for(store_url: str | None, config: str | None, interval_secs: float | None = None) -> Aggregator:
    """An aggregator for a store URL and a configuration file, else for what the two environment variables name.

    Raises ConfigError.
    """
    url = store_url or default_store_url()
    if url.startswith("memory://"):
        raise ConfigError(
            f"store {url}: is private to one client, so there is nothing in it to sum; name a shared store"
        )
    budgets: Budgets | None = load_budgets(config)
    if interval_secs is None:
        interval_secs = budgets.aggregator_interval_secs() if budgets else INTERVAL_SECS
    return Aggregator(
        open_store(url),
        SystemClock(),
        shard_count_of=(budgets or table_budgets()).shard_count,
        interval_secs=interval_secs,
    )


_in_lambda: Aggregator | None = None


def lambda_handler(event: object, context: object) -> dict[str, Any]:
    """AWS Lambda on a schedule: one pass, by ``$BEDROCK_BUDGET_STORE`` and ``$BEDROCK_BUDGET_CONFIG``.

    A container keeps its aggregator, so only its first pass lists 48 hours. Raises StoreError, which Lambda reports.
    """
    global _in_lambda  # noqa: PLW0603 - Lambda keeps state between invocations in globals
    if _in_lambda is None:
        _in_lambda = aggregator_for(None, None)
    return asdict(_in_lambda.run_pass())


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of ``python -m bedrock_budget.aggregator``. Exit codes: 0 done, 1 failed, 2 bad usage."""
    parser = argparse.ArgumentParser(
        prog="python -m bedrock_budget.aggregator", description="Sum the shards of recent usage into daily totals."
    )
    parser.add_argument("--store", metavar="URL", help="the store ($BEDROCK_BUDGET_STORE)")
    parser.add_argument("--config", metavar="FILE", help="the budget.yaml ($BEDROCK_BUDGET_CONFIG)")
    parser.add_argument("--interval", type=_seconds, metavar="SECS", help="between two passes (60)")
    parser.add_argument("--once", action="store_true", help="one pass, then end")
    parser.add_argument("--health-port", type=_port, metavar="N", help="answer /healthz on 127.0.0.1:N")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        aggregator = aggregator_for(options.store, options.config, options.interval)
        if options.once:
            done = aggregator.run_pass()
            log.info("%d keys, %d totals written", done.keys, done.totals_written)
            return 0
    except BudgetError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1 if isinstance(exc, StoreError) else 2
    stop = threading.Event()
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # unlike an Event, a handler may use it at any point

    def on_signal(number: int, frame: object) -> None:
        signals.put(number)

    def await_signal() -> None:
        signals.get()
        stop.set()

    threading.Thread(target=await_signal, name="bedrock-budget-signals", daemon=True).start()
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        health = HealthServer(options.health_port, aggregator.health)
    except OSError as exc:
        print(f"error: cannot answer on port {options.health_port}: {exc.strerror}", file=sys.stderr)
        return 1
    with health:
        aggregator.run(stop)
    log.info("stopped")
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())

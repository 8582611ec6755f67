"""The aggregator: sums the shards of what was written lately into daily totals.

``python -m bedrock_budget.aggregator --store URL [--config FILE] [--interval 60] [--once] [--health-port N]
[--partition I/N] [--refresh-prices]``

Passes: `passes`. Batches of a DynamoDB stream: `usage_stream`. What both do with a key: `summing`.
"""

import argparse
import logging
import queue
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .clock import SystemClock
from .config import load_budgets, table_budgets
from .core.budget_rules import Budgets
from .core.errors import BudgetError, ConfigError, StoreError
from .health import HealthServer
from .partition import PARTITION_VARIABLE, Partition
from .passes import INTERVAL_SECS, Aggregator, Pass, text_of
from .price_refresh import refresh_daily, refresh_if_due
from .prices.price_list import PriceList
from .stores import default_store_url, open_store

__all__ = ["Aggregator", "Pass", "aggregator_for", "lambda_handler", "main", "stream_handler"]

log = logging.getLogger("bedrock_budget.aggregator")


def aggregator_for(
    store_url: str | None, config: str | None, interval_secs: float | None = None, partition: Partition | None = None
) -> Aggregator:
    """An aggregator for a store URL and a configuration file, else for what the two environment variables name; of
    all keys, of a share of them, or of the share that ``$BEDROCK_BUDGET_PARTITION`` names.

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
        partition=partition or Partition.of_environment(),
    )


_in_lambda: Aggregator | None = None


def _lambda_aggregator() -> Aggregator:
    global _in_lambda  # noqa: PLW0603 - Lambda keeps state between invocations in globals
    if _in_lambda is None:
        _in_lambda = aggregator_for(None, None)
    return _in_lambda


def lambda_handler(event: object, context: object) -> dict[str, Any]:
    """AWS Lambda on a schedule: one pass, by ``$BEDROCK_BUDGET_STORE``, ``$BEDROCK_BUDGET_CONFIG`` and
    ``$BEDROCK_BUDGET_PARTITION``.

    A container keeps its aggregator, so only its first pass lists 48 hours. Raises StoreError, which Lambda reports.
    """
    return asdict(_lambda_aggregator().run_pass())


def stream_handler(event: Mapping[str, Any], context: object) -> dict[str, list[dict[str, str]]]:
    """AWS Lambda on the DynamoDB stream of ``UsageAggSharded``: the totals of the keys that a batch of records names,
    by ``$BEDROCK_BUDGET_STORE`` and ``$BEDROCK_BUDGET_CONFIG``.

    The event source mapping must have ``ReportBatchItemFailures``: the answer says from which record on Lambda is to
    repeat. Any batch may come any number of times and in any order.
    """
    from .usage_stream import sum_records  # noqa: PLC0415 - it needs boto3's types

    if "Records" not in event:
        raise ConfigError("stream_handler: not an event of a DynamoDB stream, it has no Records")
    aggregator = _lambda_aggregator()
    failed = sum_records(event["Records"], aggregator.summing, SystemClock())
    return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}


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
    parser.add_argument(
        "--partition",
        type=_partition,
        metavar="I/N",
        help=f"take only share I of N of the keys, I from 1 to N; run one process for each (${PARTITION_VARIABLE})",
    )
    parser.add_argument(
        "--refresh-prices",
        action="store_true",
        help="fetch list prices from the AWS Price List once a day, unless another aggregator has",
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        aggregator = aggregator_for(options.store, options.config, options.interval, options.partition)
        if options.once:
            log.info("%s", text_of(aggregator.run_pass()))
            if options.refresh_prices:
                refresh_if_due(aggregator.store, PriceList(), SystemClock())
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
    if options.refresh_prices:
        threading.Thread(
            target=refresh_daily,
            args=(aggregator.store, PriceList(), SystemClock(), stop),
            name="bedrock-budget-prices",
            daemon=True,  # reading takes minutes, and nothing is lost if it ends half-way
        ).start()
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


def _partition(text: str) -> Partition:
    try:
        return Partition.parse(text)
    except ConfigError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())

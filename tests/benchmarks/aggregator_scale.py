"""What passes of the aggregator over many keys take and cost, on a real engine.

    python tests/benchmarks/aggregator_scale.py [--keys 10000] [--shards 8]

The aggregator's clock is moved by hand, an interval from pass to pass; seconds are real, of one process, and so is the
time for which a write that came just after the pass began would lag at its end. A unit is a read or write unit, as the
engine reports them; dollars are on demand, us-east-1; both are compared with the pass to which all keys are new.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import boto3
from botocore.config import Config
from engines import dynoxide
from engines.fixtures import CREDENTIALS, REGION

from bedrock_budget.aggregator import Aggregator, Pass
from bedrock_budget.core.account import Amounts
from bedrock_budget.core.keys import UsageKey, active_partition, shard_key
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.stores import dynamodb_items as items
from bedrock_budget.stores.tables import create_tables
from bedrock_budget.testing import ManualClock

PREFIX = "scale-"
INTERVAL_SECS = 60
READ_UNIT_USD, WRITE_UNIT_USD = 0.125e-6, 0.625e-6
_AT_ONCE = 25


class Cost(NamedTuple):
    """What one pass took and consumed."""

    done: Pass
    secs: float
    read_units: float
    write_units: float

    @property
    def units(self) -> float:
        return self.read_units + self.write_units

    @property
    def usd(self) -> float:
        return self.read_units * READ_UNIT_USD + self.write_units * WRITE_UNIT_USD


def usage_key(number: int) -> UsageKey:
    return UsageKey(f"ORG#org{number // 100:04}#APP#app{number // 4 % 25:02}", f"label{number % 4}", "20260115")


class Fleet:
    """Many keys with several shards each, an aggregator, and a clock."""

    def __init__(self, endpoint: str, prefix: str, keys: int, shards: int) -> None:
        self.keys = [usage_key(number) for number in range(keys)]
        self.shards = shards
        self.clock = ManualClock()
        self.clock.advance(60)  # into a slot
        self.store = DynamoDBStore(region=REGION, prefix=prefix, endpoint_url=endpoint)
        self._table = f"{prefix}UsageAggSharded"
        self._client: Any = boto3.client(
            "dynamodb", region_name=REGION, endpoint_url=endpoint, config=Config(max_pool_connections=8)
        )
        self.aggregator = Aggregator(
            self.store, self.clock, shard_count_of=lambda org_id: shards, interval_secs=INTERVAL_SECS
        )

    def write(self, keys: Iterable[UsageKey], requests: int) -> None:
        """Leave every shard of these keys as it is after so many requests. Not by the meter's conditional additions:
        they are not what is measured."""
        puts = [{"PutRequest": {"Item": self._item(key, n, requests)}} for key in keys for n in range(self.shards)]
        chunks = [puts[start : start + _AT_ONCE] for start in range(0, len(puts), _AT_ONCE)]
        with ThreadPoolExecutor(8) as pool:
            assert not any(pool.map(self._put, chunks))

    def _put(self, puts: list[dict[str, Any]]) -> Any:
        return self._client.batch_write_item(RequestItems={self._table: puts})["UnprocessedItems"]

    def _item(self, key: UsageKey, shard: int, requests: int) -> dict[str, Any]:
        now = self.clock.now().timestamp()
        name = shard_key(key.scope, key.label, shard)
        amounts = Amounts(1_400_000 * requests, Usage(20 * requests, 5 * requests), requests)
        return {
            **items.day_item_key("shard_key", name, key.day),
            "cost_usd_micros": items.cost(amounts.cost_pico_usd),
            **{field: items.number(count) for field, count in zip(Usage._fields, amounts.usage, strict=True)},
            "requests": items.number(requests),
            "updated_at_epoch": items.number(int(now)),
            "shard_count": items.number(self.shards),
            "active_hour": items.text(active_partition(now, name)),
            **{f"wAAAAAAAA{writer:02}": items.number(requests) for writer in range(3)},
        }

    def run_pass(self, secs_later: float = INTERVAL_SECS) -> Cost:
        """Let time go by, then one pass."""
        self.clock.advance(secs_later)
        self.store.consumed.reset()
        started = time.perf_counter()
        done = self.aggregator.run_pass()
        secs = time.perf_counter() - started
        units = self.store.consumed.units()
        return Cost(done, secs, units.read_units, units.write_units)

    def close(self) -> None:
        self.store.close()
        self._client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=8)
    options = parser.parse_args()
    os.environ.update(CREDENTIALS)
    with dynoxide.running() as endpoint:
        admin: Any = boto3.client("dynamodb", region_name=REGION, endpoint_url=endpoint)
        create_tables(admin, PREFIX)
        fleet = Fleet(endpoint, PREFIX, options.keys, options.shards)
        print(f"{options.keys:,} keys x {options.shards} shards, one process, {os.cpu_count()} CPUs, by dynoxide")
        print(f"{'pass':42} {'secs':>6} {'read u.':>9} {'write u.':>9} {'totals':>7} {'units':>8} {'USD':>8}")
        fleet.write(fleet.keys, 1)
        show("the first: 48 hours, all keys new", fleet.run_pass(0))
        fleet.write(fleet.keys, 2)
        active = fleet.run_pass()
        show("all keys written since the last", active, active)
        minutes, cost = 1, fleet.run_pass()
        show("idle for 1 minute", cost, active)
        while cost.done.keys:
            minutes, cost = minutes + 1, fleet.run_pass()
            if minutes == 2 or not cost.done.keys:
                show(f"idle for {minutes} minutes", cost, active)
        some = fleet.keys[::100]
        fleet.write(some, 3)
        show(f"1 % of the keys written ({len(some)})", fleet.run_pass(), active)
        show("the same 1 % idle for 1 minute", fleet.run_pass(), active)
        fleet.close()
        admin.close()


def show(name: str, cost: Cost, active: Cost | None = None) -> None:
    shares = "" if active is None else f"{cost.units / active.units:9.2%} {cost.usd / active.usd:8.2%}"
    print(
        f"{name:42} {cost.secs:6.1f} {cost.read_units:9,.1f} {cost.write_units:9,.1f} {cost.done.totals_written:7,}"
        + shares,
        flush=True,
    )


if __name__ == "__main__":
    main()

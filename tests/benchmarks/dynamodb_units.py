"""What 1,000 calls cost in DynamoDB units: measured by consumed capacity on a real engine.

    python tests/benchmarks/dynamodb_units.py [--calls 1000] [--rate 100]

One process makes the calls at a steady rate; usage is written once a second, looks follow the adaptive schedule.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.overhead import CONFIG, MESSAGES, client_of, local_bedrock
from engines import dynoxide
from engines.fixtures import CREDENTIALS

from bedrock_budget import PriceKeeperClient
from bedrock_budget.aggregator import Aggregator
from bedrock_budget.clock import SystemClock
from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.stores.tables import create_tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second")
    options = parser.parse_args()
    os.environ.update(CREDENTIALS)
    with dynoxide.running() as endpoint, local_bedrock() as url:
        store = DynamoDBStore(region="us-east-1", prefix="bench-", endpoint_url=endpoint)
        import boto3

        create_tables(boto3.client("dynamodb", region_name="us-east-1", endpoint_url=endpoint), "bench-")
        with PriceKeeperClient(client_of(url), org_id="acme", app_id="bench", config=CONFIG, store=store) as bedrock:
            started = time.monotonic()
            for number in range(options.calls):
                bedrock.converse(messages=MESSAGES)
                time.sleep(max(started + (number + 1) / options.rate - time.monotonic(), 0))
            bedrock.flush()
        print(f"{options.calls} calls at {options.rate:g} a second, one process:")
        show(store.consumed.units(), options.calls)
        store.consumed.reset()
        Aggregator(store, SystemClock(), shard_count_of=lambda _: 8).run_pass()
        print("one aggregator pass over them (its first: 48 hours):")
        show(store.consumed.units(), options.calls)


def show(consumed: Any, calls: int) -> None:
    for name, units in (
        ("write units, tables", consumed.table_write_units),
        ("write units, index", consumed.index_write_units),
        ("read units", consumed.read_units),
    ):
        print(f"  {name:22} {float(units):8.1f}   per 1,000 calls {float(units) * 1000 / calls:8.1f}")
    dollars = float(consumed.write_units) * 0.625e-6 + float(consumed.read_units) * 0.125e-6
    print(f"  {'on-demand, us-east-1':22} ${dollars:.7f}")


if __name__ == "__main__":
    main()

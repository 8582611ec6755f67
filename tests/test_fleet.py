"""Four processes, one aggregator, one DynamoDB store: what they metered, and when they moved on."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.prices import bundled
from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.stores.contract import Store
from bedrock_budget.testing import LocalBedrock

WORKERS = 4
CALLS = 500
REFRESH_SECS = 2
PREMIUM, STANDARD = "amazon.nova-pro-v1:0", "amazon.nova-micro-v1:0"
USAGE = Usage(input_tokens=10, output_tokens=21, cache_read_tokens=3)
PREMIUM_MICROS_A_CALL = 76  # 10 x .8 + 21 x 3.2 + 3 x .2 = 75.8 micros
CONFIG: dict[str, Any] = {
    "model_labels": {"premium": {"id": PREMIUM}, "standard": {"id": STANDARD}},
    "metering": {"refresh_interval_normal_secs": REFRESH_SECS, "refresh_interval_tight_secs": 1},
    "org_defaults": {
        "timezone": "UTC",
        "model_ordering": ["premium", "standard"],
        "quotas": {"premium": WORKERS * CALLS // 2 * PREMIUM_MICROS_A_CALL, "standard": None},
    },
}
SCOPE = "ORG#acme#APP#fleet"


@contextmanager
def process(*arguments: str, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, *arguments]
    running = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stdin=subprocess.PIPE, **options)
    with running:
        try:
            yield running
        finally:
            running.kill() if running.poll() is None else None


class StickyWatch:
    """Every sticky state that the store showed, in order."""

    def __init__(self, store: Store, day: str) -> None:
        self.positions: list[int] = []
        self.first_activated_at: int | None = None
        self._store = store
        self._day = day
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "StickyWatch":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            now = datetime.now(UTC).timestamp()
            sticky = self._store.read_controls("acme", "fleet", scope=SCOPE, day=self._day, now_epoch=now).sticky
            self.positions.append(sticky.position if sticky else 0)
            if sticky and self.first_activated_at is None:
                self.first_activated_at = sticky.activated_at_epoch


def prices() -> dict[str, Any]:
    rows = {
        model: bundled().find(model, region="us-east-1", on=datetime.now(UTC).date()) for model in (PREMIUM, STANDARD)
    }
    return {model: row.price for model, row in rows.items() if row}


def test_a_fleet_meters_every_call_once_and_leaves_a_used_up_label_within_one_refresh_interval(
    dynamodb_store: DynamoDBStore, dynamodb_endpoint: str, table_prefix: str
) -> None:
    url = f"dynamodb://?region=us-east-1&prefix={table_prefix}&endpoint_url={dynamodb_endpoint}"
    day = datetime.now(UTC).strftime("%Y%m%d")
    with LocalBedrock(usage=USAGE, latency_secs=0.01) as server, ExitStack() as stack:
        aggregator = stack.enter_context(
            process("-m", "bedrock_budget.aggregator", "--store", url, "--interval", "1",
                    stderr=subprocess.DEVNULL)
        )  # fmt: skip
        worker = str(Path(__file__).with_name("fleet_worker.py"))
        arguments = (worker, server.url, url, json.dumps(CONFIG), str(CALLS))
        workers = [stack.enter_context(process(*arguments)) for _ in range(WORKERS)]
        watch = stack.enter_context(StickyWatch(dynamodb_store, day))
        for each in workers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        told = [line.split() for each in workers for line in each.communicate("go\n", timeout=120)[0].splitlines()]
        assert [each.returncode for each in workers] == [0] * WORKERS
        aggregator.terminate()
        assert aggregator.wait(timeout=30) == 0
        entries = server.ledger.entries()
        served_pico = server.ledger.cost_pico_usd(prices())
    if datetime.now(UTC).strftime("%Y%m%d") != day:
        pytest.skip("midnight UTC fell into the run")

    # Every call once, to the pico-dollar: what the callers were told, the shards, the totals, the server's ledger.
    assert len(told) == len(entries) == WORKERS * CALLS
    keys = {UsageKey(SCOPE, label, day): 8 for label in ("premium", "standard")}
    sums = dynamodb_store.read_shards(keys)
    once = [sys.executable, "-m", "bedrock_budget.aggregator", "--once", "--store", url]
    subprocess.run(once, check=True, stderr=subprocess.DEVNULL, env=dict(os.environ))
    totals = dynamodb_store.read_totals(keys)
    assert {key: total.amounts for key, total in totals.items()} == {key: found.amounts for key, found in sums.items()}
    assert sum(found.amounts.cost_pico_usd for found in sums.values()) == served_pico
    assert sum(int(cost) for _, cost in told) == served_pico
    assert sum(found.amounts.requests for found in sums.values()) == WORKERS * CALLS

    # The sticky state only moved forward, and nobody stayed behind for longer than one refresh interval.
    assert watch.positions == sorted(watch.positions)
    assert watch.first_activated_at is not None
    last_on_premium = max(entry.started_at for entry in entries if entry.model_id == PREMIUM)
    assert last_on_premium <= watch.first_activated_at + 1 + REFRESH_SECS  # it is written in whole seconds
    quota = CONFIG["org_defaults"]["quotas"]["premium"] * 10**6
    spent = sums[UsageKey(SCOPE, "premium", day)].amounts.cost_pico_usd
    print(f"premium: {spent / quota:.2%} of its quota; sticky states seen: {sorted(set(watch.positions))}")
    assert quota <= spent

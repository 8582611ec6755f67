"""Processes that make calls while an operator stops and resumes them, and while they stop themselves."""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from programs import environment_of_tests

from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DynamoDBStore, SQLiteStore, open_store
from bedrock_budget.suspension import AUTOMATIC
from bedrock_budget.testing import LocalBedrock

REFRESH_SECS = 1
#: From the command to the last call that it does not reach: an interval, and a look on a busy machine.
SOON_SECS = REFRESH_SECS + 4
#: Until a test gives up.
PATIENCE_SECS = 60
CALL_MICROS = 35
CONFIG: dict[str, Any] = {
    "model_labels": {
        "premium": {
            "id": "amazon.nova-micro-v1:0",
            "input_price_usd_micros_per_1m": 1_000_000,
            "output_price_usd_micros_per_1m": 1_000_000,
        }
    },
    "metering": {"refresh_interval_normal_secs": REFRESH_SECS, "refresh_interval_tight_secs": REFRESH_SECS},
    "org_defaults": {"timezone": "UTC", "model_ordering": ["premium"], "quotas": {"premium": 1_000_000_000}},
}


class Worker:
    """A process that makes calls, and what it said of them."""

    def __init__(self, running: "subprocess.Popen[str]") -> None:
        self._running = running
        self._said: queue.Queue[list[str]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._running.stdout
        for line in self._running.stdout:
            self._said.put(line.split(maxsplit=2))

    def wait_for(self, outcome: str) -> tuple[float, str]:
        """When the next call with this outcome began, and what else was said of it."""
        deadline = time.monotonic() + PATIENCE_SECS
        while True:
            said = self._said.get(timeout=max(deadline - time.monotonic(), 0.001))
            if said[0] == outcome:
                return float(said[1]), said[2].strip() if len(said) > 2 else ""

    def outcomes_until(self, moment: float) -> list[str]:
        """What became of all calls up to the first one that began at ``moment`` or later."""
        outcomes: list[str] = []
        while True:
            said = self._said.get(timeout=PATIENCE_SECS)
            outcomes.append(said[0])
            if float(said[1]) >= moment:
                return outcomes


@contextmanager
def workers(count: int, server: LocalBedrock, store_url: str, config: dict[str, Any]) -> Iterator[list[Worker]]:
    program = str(Path(__file__).with_name("stop_worker.py"))
    arguments = [sys.executable, program, server.url, store_url, json.dumps(config)]
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            running = stack.enter_context(
                subprocess.Popen(
                    arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment_of_tests()
                )
            )
            stack.callback(running.kill)
            started.append(running)
        yield [Worker(each) for each in started]
        for each in started:
            assert each.stdin
            each.stdin.close()
        assert [each.wait(PATIENCE_SECS) for each in started] == [0] * count


def command(*words: str, store_url: str) -> float:
    """Run a command; when it ended."""
    line = [sys.executable, "-m", "bedrock_budget", *words, "--org", "acme", "--by", "kim", "--store", store_url]
    subprocess.run(line, check=True, capture_output=True, env=environment_of_tests())
    return time.time()


@pytest.fixture(params=["sqlite", "dynamodb"])
def shared_store(request: pytest.FixtureRequest) -> SQLiteStore | DynamoDBStore:
    if request.param == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        return SQLiteStore(folder / "budget.db")
    found: DynamoDBStore = request.getfixturevalue("dynamodb_store")
    return found


def test_every_process_follows_a_stop_and_its_end(shared_store: SQLiteStore | DynamoDBStore) -> None:
    url = shared_store.url
    with LocalBedrock(usage=Usage(10, 25)) as server, workers(2, server, url, CONFIG) as fleet:
        for each in fleet:
            each.wait_for("served")
        for words in (("--app", "chat"), ()):
            ended_at = command("stop", *words, "--reason", "a drill", store_url=url)
            for each in fleet:
                began, by = each.wait_for("stopped")
                assert by == "kim"
                assert began <= ended_at + SOON_SECS
            quiet = len(server.ledger.entries())
            for each in fleet:
                assert set(each.outcomes_until(time.time() + REFRESH_SECS)) == {"stopped"}
            assert len(server.ledger.entries()) == quiet
            ended_at = command("resume", *words, store_url=url)
            for each in fleet:
                began, _ = each.wait_for("served")
                assert began <= ended_at + SOON_SECS
    shared_store.close()


def test_a_fleet_stops_itself_once_and_goes_on_once_resumed(shared_store: SQLiteStore | DynamoDBStore) -> None:
    url = shared_store.url
    quota = 40 * CALL_MICROS
    # Calls go to the label whatever its quota, as under an override.
    config = {**CONFIG, "org_defaults": {**CONFIG["org_defaults"], "quotas": {"premium": quota}, "stop_at_pct": 200}}
    config["org_defaults"]["on_exhausted"] = "last"
    day = datetime.now(UTC).strftime("%Y%m%d")
    with LocalBedrock(usage=Usage(10, 25)) as server, workers(2, server, url, config) as fleet:
        for each in fleet:
            _, by = each.wait_for("stopped")
            assert by == AUTOMATIC
        assert len(server.ledger.entries()) >= 2 * quota // CALL_MICROS
        looking = open_store(url)
        (stop,) = looking.stops("acme", now_epoch=time.time())
        assert (stop.app_id, stop.stopped_by) == ("chat", AUTOMATIC)
        looking.close()
        command("resume", "--app", "chat", store_url=url)
        for each in fleet:
            each.wait_for("served")
        some_looks_later = time.time() + 3 * REFRESH_SECS
        outcomes = {outcome for each in fleet for outcome in each.outcomes_until(some_looks_later)}
        if datetime.now(UTC).strftime("%Y%m%d") != day:
            pytest.skip("midnight UTC fell into the run")
        assert outcomes == {"served"}
    shared_store.close()

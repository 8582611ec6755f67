"""A simulated AWS Lambda: sandboxes frozen between invocations and never ended; what was called is in the store."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from metered import PRICES, budget
from programs import environment_of_tests

from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.pricing import cost_pico_usd
from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.testing import LocalBedrock

EXAMPLES = Path(__file__).parents[1] / "examples" / "servers"
SANDBOXES, INVOCATIONS = 3, 20
WAIT_SECS = 30

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this platform cannot freeze a process")


class RuntimeApi:
    """What Lambda's service is for one sandbox: hands out events, takes answers."""

    def __init__(self) -> None:
        self.events: queue.Queue[str] = queue.Queue()
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(json.dumps({"question": api.events.get()}).encode())

            def do_POST(self) -> None:
                api.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._reply(b"{}")

            def _reply(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", "1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"


@contextmanager
def sandbox(environment: dict[str, str]) -> Iterator[tuple[RuntimeApi, "subprocess.Popen[bytes]"]]:
    api = RuntimeApi()
    command = [sys.executable, str(Path(__file__).with_name("lambda_sandbox.py")), "lambda_function.handler"]
    process = subprocess.Popen(command, env={**environment, "AWS_LAMBDA_RUNTIME_API": api.address})
    try:
        yield api, process
    finally:
        process.kill()  # how a sandbox ends that is of no more use, frozen or not
        process.wait()
        api.server.shutdown()
        api.server.server_close()


def invoke(api: RuntimeApi, process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """One invocation; the sandbox is frozen as soon as its answer is there."""
    process.send_signal(signal.SIGCONT)
    api.events.put("Why do budgets help?")
    answer = api.answers.get(timeout=WAIT_SECS)
    process.send_signal(signal.SIGSTOP)
    return answer


def test_frozen_sandboxes_leave_nothing_unwritten(
    tmp_path: Path, local_bedrock: LocalBedrock, dynamodb_store: DynamoDBStore
) -> None:
    (tmp_path / "budget.json").write_text(json.dumps(budget()))
    inherited = environment_of_tests(traced=False)
    environment = {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES), inherited["PYTHONPATH"]]),
        "BEDROCK_BUDGET_CONFIG": str(tmp_path / "budget.json"),
        "BEDROCK_BUDGET_STORE": dynamodb_store.url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": local_bedrock.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    today = datetime.now(UTC)
    for _ in range(SANDBOXES):
        with sandbox(environment) as (api, process):
            for _ in range(INVOCATIONS // SANDBOXES + 1):
                assert invoke(api, process)["statusCode"] == 200
    days = {f"{today + timedelta(days=days):%Y%m%d}" for days in (0, 1)}
    keys = [UsageKey("ORG#acme#APP#functions", "premium", day) for day in days]
    found = dynamodb_store.read_shards(dict.fromkeys(keys, 8))
    entries = local_bedrock.ledger.entries()
    assert len(entries) >= INVOCATIONS
    assert sum(shards.amounts.requests for shards in found.values()) == len(entries)
    billed = sum(cost_pico_usd(entry.usage, PRICES[entry.model_id]) for entry in entries)
    assert sum(shards.amounts.cost_pico_usd for shards in found.values()) == billed

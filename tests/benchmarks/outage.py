"""A store outage under load: what is lost, what memory it takes, and how long calls wait for the library.

    python tests/benchmarks/outage.py [--calls 100000] [--threads 4]

Every call is real HTTP against a local Bedrock in a process of its own; the store is a DynamoDB engine behind a
proxy. For each kind of outage a client calls for 20 apps while the store is up, then while it is out (``--calls`` with
connections refused, a twentieth of it with the other kinds), then the store comes back and all is written.

- *lost*: what callers were told, the shards and Bedrock's own ledger must agree, to the token.
- *memory*: the highest resident set of this process during and after the outage, over that before it.
- *latency*: blocks of wrapped calls alternate with blocks of plain boto3 calls. ``added`` is the difference of their
  percentiles, ``in library`` the time of a wrapped call less that of the boto3 call within it.

Exits with 1 if something is lost or memory grows by `MOST_MEMORY_MB` or more. Latency is shown, not judged.
"""

import argparse
import gc
import itertools
import json
import logging
import os
import select
import socket
import socketserver
import sys
import threading
import time
import urllib.request
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import boto3

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.overhead import client_of, local_bedrock
from engines import dynoxide, proxy
from engines.fixtures import CREDENTIALS

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.account import ZERO, Amounts, sum_of
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.stores.tables import create_tables

MOST_MEMORY_MB = 50.0
APPS = [f"app{number}" for number in range(20)]
LATE_APP = "late"  # first used during the outage
WARM_UP_CALLS = 2_000
#: Calls of a block; a block of plain calls is a quarter of one of wrapped calls.
BLOCK_CALLS = 400
INPUT_PICO_USD, OUTPUT_PICO_USD = 800_000, 3_200_000  # a token
PRICES = {"input_price_usd_micros_per_1m": INPUT_PICO_USD, "output_price_usd_micros_per_1m": OUTPUT_PICO_USD}
PREFIX = "outage-"


class Gate:
    """A TCP port before another one. Shut, it refuses connections and has cut those there were."""

    def __init__(self, target_url: str) -> None:
        self._target = (str(urlsplit(target_url).hostname), urlsplit(target_url).port)
        self._held = socket.socket()  # keeps the port while the gate is shut
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self._address = self._held.getsockname()
        self._connections: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._address[1]}"
        self.open()

    def open(self) -> None:
        gate = self

        class Passage(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                gate._connections.add(self.request)
                with suppress(OSError), socket.create_connection(gate._target) as onwards:
                    other = {self.request: onwards, onwards: self.request}
                    while True:
                        for ready in select.select(list(other), [], [])[0]:
                            if not (data := ready.recv(65536)):
                                return
                            other[ready].sendall(data)

            def finish(self) -> None:
                gate._connections.discard(self.request)

        self._server = socketserver.ThreadingTCPServer(self._address, Passage, bind_and_activate=False)
        self._server.allow_reuse_address = self._server.daemon_threads = True
        self._server.server_bind()
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def shut(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


PLAIN, WRAPPED, LIBRARY = "plain boto3", "wrapped", "in library"


class Told:
    """What one thread's calls were told, and the seconds they took."""

    def __init__(self) -> None:
        self.amounts = dict.fromkeys((*APPS, LATE_APP), ZERO)
        self.forget_figures()

    def forget_figures(self) -> None:
        self.degraded = 0
        self.secs = {name: array("d") for name in (PLAIN, WRAPPED, LIBRARY)}


class Load:
    """Threads that call, each adding up for itself."""

    def __init__(self, client: Any, bedrock: PriceKeeperClient, threads: int) -> None:
        self._plain = client.converse
        client.converse = self._timed
        self._views = {app: bedrock.for_app(app) for app in (*APPS, LATE_APP)}
        self._numbers = itertools.count()
        self._turns = itertools.count()  # of the apps
        self._inner = threading.local()
        self.pool = ThreadPoolExecutor(threads)
        self.told = [Told() for _ in range(threads)]

    def _timed(self, **arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._plain(**arguments)
        finally:
            self._inner.secs = time.perf_counter() - started

    def wrapped(self, calls: int) -> None:
        """So many calls through the library, over all apps."""
        self._spread(lambda told: self._call(told, APPS[next(self._turns) % len(APPS)]), calls)

    def plain(self, calls: int) -> None:
        """So many calls of the boto3 client itself."""
        self._spread(self._call_plain, calls)

    def call_late_app(self) -> float:
        """The first call of an app that was not in use before. Returns how long the library kept it."""
        self._call(self.told[0], LATE_APP)
        return self.told[0].secs[LIBRARY][-1]

    def _spread(self, call: Callable[[Told], None], calls: int) -> None:
        def share(told: Told) -> None:
            for _ in range(self.told.index(told), calls, len(self.told)):
                call(told)

        list(self.pool.map(share, self.told))

    def _call(self, told: Told, app: str) -> None:
        view, arguments = self._views[app], self._arguments()
        started = time.perf_counter()
        answer = view.converse(**arguments)
        secs = time.perf_counter() - started
        told.secs[WRAPPED].append(secs)
        told.secs[LIBRARY].append(secs - self._inner.secs)
        record = answer["ResponseMetadata"]["PriceKeeper"]
        told.degraded += record["degraded"]
        told.amounts[app] = told.amounts[app].plus(Amounts(record["cost_pico_usd"], Usage(**record["usage"]), 1))

    def _call_plain(self, told: Told) -> None:
        arguments = self._arguments()
        started = time.perf_counter()
        self._plain(modelId="outage.plain", **arguments)
        told.secs[PLAIN].append(time.perf_counter() - started)

    def _arguments(self) -> dict[str, Any]:
        """Of a call that costs something else than those before it."""
        number = next(self._numbers)
        message = {"role": "user", "content": [{"text": "word" * (1 + number % 50)}]}
        return {"messages": [message], "inferenceConfig": {"maxTokens": 1 + number % 19}}


def status_kb(name: str) -> int:
    """A figure of this process in ``/proc``: ``VmRSS``, or ``VmHWM``, its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


class Kind(NamedTuple):
    """One kind of outage: what ``begin`` breaks, ``end`` mends."""

    name: str
    calls: int
    begin: Callable[[], object]
    end: Callable[[], object]


@dataclass
class Outcome:
    """What was measured of one kind."""

    kind: Kind
    load: Load
    shards: dict[str, Amounts]  # by app
    grown_mb: float
    outage_secs: float
    write_secs: float
    late_secs: float

    def told(self, app: str) -> Amounts:
        return sum_of(told.amounts[app] for told in self.load.told)

    def secs(self, name: str) -> list[float]:
        """Of all calls, in ascending order."""
        return sorted(itertools.chain.from_iterable(told.secs[name] for told in self.load.told))

    def losses(self, billed: tuple[int, Usage]) -> list[str]:
        """Where the shards are not what callers were told, or their sum is not what Bedrock billed."""
        wrong = [app for app, found in self.shards.items() if found != self.told(app)]
        calls, usage = billed
        cost = usage.input_tokens * INPUT_PICO_USD + usage.output_tokens * OUTPUT_PICO_USD
        total = sum_of(self.shards.values())
        return wrong if total == (cost, usage, calls) else [*wrong, f"{total} in the shards, {billed} billed"]


def measure(kind: Kind, bedrock_url: str, gate_url: str, engine: DynamoDBStore, threads: int) -> Outcome:
    first_day = today()
    client = client_of(bedrock_url)
    config = {
        "model_labels": {kind.name: {"id": f"outage.{kind.name}", **PRICES}},
        "org_defaults": {"timezone": "UTC", "model_ordering": [kind.name], "quotas": {kind.name: 10**12}},
    }
    store = f"dynamodb://?region=us-east-1&prefix={PREFIX}&endpoint_url={gate_url}"
    settings: dict[str, Any] = {"config": config, "store": store, "on_store_error": "open"}
    with PriceKeeperClient(client, org_id="acme", app_id=APPS[0], **settings) as bedrock:
        load = Load(client, bedrock, threads)
        load.wrapped(WARM_UP_CALLS)
        load.plain(WARM_UP_CALLS // 4)
        bedrock.flush()
        gc.collect()
        before_kb = status_kb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again
        started = time.monotonic()
        kind.begin()
        late_secs = load.call_late_app()
        for told in load.told:
            told.forget_figures()
        for first in range(1, kind.calls, BLOCK_CALLS):
            calls = min(BLOCK_CALLS, kind.calls - first)
            load.plain(calls // 4)
            load.wrapped(calls)
        outage_secs = time.monotonic() - started
        kind.end()
        bedrock.flush()
        write_secs = time.monotonic() - started - outage_secs
        grown_mb = (status_kb("VmHWM") - before_kb) / 1024
    load.pool.shutdown()
    client.close()
    days = {first_day, today()}
    shards: dict[str, Amounts] = {}
    for app in (*APPS, LATE_APP):
        keys = {UsageKey(f"ORG#acme#APP#{app}", kind.name, day): 8 for day in days}
        shards[app] = sum_of(found.amounts for found in engine.read_shards(keys).values())
    return Outcome(kind, load, shards, grown_mb, outage_secs, write_secs, late_secs)


def billed_by_model(bedrock_url: str) -> dict[str, tuple[int, Usage]]:
    """(calls, usage) of each model, by Bedrock's ledger."""
    with urllib.request.urlopen(f"{bedrock_url}/_local/ledger") as answer:
        billed: dict[str, tuple[int, Usage]] = {}
        for entry in json.load(answer)["entries"]:
            calls, usage = billed.get(entry["model_id"], (0, Usage()))
            billed[entry["model_id"]] = (calls + 1, usage.plus(Usage(**entry["usage"])))
    return billed


def show(outcome: Outcome, losses: list[str]) -> None:
    """The part of the table about one kind."""
    calls = sum(outcome.told(app).requests for app in outcome.shards)
    degraded = sum(told.degraded for told in outcome.load.told)
    figures = {name: percentiles(outcome.secs(name)) for name in (PLAIN, WRAPPED, LIBRARY)}
    print(f"{outcome.kind.name}: out for {outcome.kind.calls} calls, {outcome.outage_secs:.1f} s")
    print(f"  {'lost or doubled':30} {'; '.join(losses) or f'nothing of {calls} calls, warm-up included'}")
    print(f"  {'calls marked degraded':30} {degraded} of {outcome.kind.calls - 1}")
    print(f"  {'written after its return in':30} {outcome.write_secs:.1f} s")
    print(f"  {'memory, peak over warm':30} {outcome.grown_mb:+.1f} MB (goal: below {MOST_MEMORY_MB:g})")
    print(f"  {'calls kept for over 100 ms':30} {sum(secs > 0.1 for secs in outcome.secs(LIBRARY))}")
    print(f"  {'first call of another app':30} {outcome.late_secs * 1e3:.1f} ms in the library")
    print(f"  {'ms a call':30} {'p50':>8} {'p99':>8} {'max':>8}")
    for name, secs in figures.items():
        print(f"    {name:28} " + " ".join(f"{each * 1e3:8.2f}" for each in secs))
    added = [ours - its for ours, its in zip(figures[WRAPPED], figures[PLAIN], strict=True)]
    print(f"    {'added (p99 goal: below 5)':28} " + " ".join(f"{each * 1e3:+8.2f}" for each in added))


def today() -> str:
    return datetime.now(UTC).strftime("%Y%m%d")


def percentiles(secs: list[float]) -> list[float]:
    return [secs[len(secs) // 2], secs[len(secs) * 99 // 100], secs[-1]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    os.environ.update(CREDENTIALS)
    logging.getLogger("bedrock_budget").setLevel(logging.CRITICAL)  # each failure is logged; that is not the question
    with dynoxide.running() as endpoint, proxy.running(endpoint) as between, local_bedrock() as bedrock_url:
        engine = DynamoDBStore(region="us-east-1", prefix=PREFIX, endpoint_url=endpoint)
        create_tables(boto3.client("dynamodb", region_name="us-east-1", endpoint_url=endpoint), PREFIX)
        gate = Gate(between.url)
        released = threading.Event()
        forward = between.rule
        throttled = proxy.answer_error("ProvisionedThroughputExceededException")

        def hold(_: proxy.Request) -> str:
            released.wait()
            return proxy.DROP_REQUEST

        def answer(rule: proxy.Rule) -> None:
            between.rule = rule
            released.set() if rule is forward else released.clear()

        few = max(options.calls // 20, BLOCK_CALLS)
        kinds = [
            Kind("refused", options.calls, gate.shut, gate.open),
            Kind("silent", few, lambda: answer(hold), lambda: answer(forward)),
            Kind("throttled", few, lambda: answer(lambda _: throttled), lambda: answer(forward)),
        ]
        outcomes = [measure(kind, bedrock_url, gate.url, engine, options.threads) for kind in kinds]
        billed = billed_by_model(bedrock_url)
    failed = False
    for outcome in outcomes:
        losses = outcome.losses(billed[f"outage.{outcome.kind.name}"])
        failed = failed or bool(losses) or outcome.grown_mb >= MOST_MEMORY_MB
        show(outcome, losses)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What a call costs on top of plain boto3: paired blocks of plain and wrapped calls against one local server.

    python tests/benchmarks/overhead.py [--calls 3000]

CPU is this process's, all threads included; the server runs in another process. A pair is one block of plain calls
and one of wrapped calls; each figure is the median over the pairs, so a machine whose speed drifts does not matter.
``null`` wraps nothing: the difference of two blocks of plain calls, the noise of the method.
"""

import argparse
import datetime as dt
import importlib.resources
import json
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.pricing import cost_pico_usd
from bedrock_budget.core.served import Served
from bedrock_budget.core.usage import Usage
from bedrock_budget.prices import PriceTable, bundled

MESSAGES = [{"role": "user", "content": [{"text": "How much does a call cost?"}]}]
NOVA_BODY = b'{"messages": [{"role": "user", "content": [{"text": "How much does a call cost?"}]}]}'
FEW_EVENTS, MANY_EVENTS = 20, 220
CONFIG: dict[str, Any] = {
    "model_labels": {
        "premium": {"id": "us.anthropic.claude-sonnet-4-5-20250929-v1:0"},
        "standard": {"id": "amazon.nova-pro-v1:0"},
        "economy": {"id": "amazon.nova-micro-v1:0"},
    },
    "org_defaults": {
        "timezone": "America/New_York",
        "model_ordering": ["standard", "premium", "economy"],
        "quotas": {"premium": 10**12, "standard": 10**12, "economy": 10**12},
    },
}
COMMON: dict[str, Any] = {"org_id": "acme", "app_id": "bench", "config": CONFIG, "store": "memory://"}
MODEL = "amazon.nova-pro-v1:0"
#: Added to a call in normal mode by strict mode while its slice lasts. Shown beside the figure, not judged.
STRICT_GOAL_SECS = 40e-6
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@contextmanager
def local_bedrock() -> Iterator[str]:
    """The URL of a local Bedrock in a process of its own."""
    command = [sys.executable, "-m", "bedrock_budget.testing.local_bedrock", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def client_of(url: str) -> Any:
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}),
    )


def cpu_secs(run: Callable[[], object], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - started) / times


def paired(plain: Callable[[], object], other: Callable[[], object], calls: int, block: int) -> tuple[float, float]:
    """(median seconds of a plain call, median difference of the other), over alternating blocks."""
    cpu_secs(plain, block), cpu_secs(other, block)  # warm up
    bases: list[float] = []
    differences: list[float] = []
    for pair in range(calls // block):
        if pair % 2:
            base, cost = cpu_secs(plain, block), cpu_secs(other, block)
        else:
            cost, base = cpu_secs(other, block), cpu_secs(plain, block)
        bases.append(base)
        differences.append(cost - base)
    return statistics.median(bases), statistics.median(differences)


def operations(client: Any, model: dict[str, str]) -> dict[str, Callable[[], object]]:
    def converse() -> None:
        client.converse(messages=MESSAGES, **model)

    def invoke_model() -> None:
        client.invoke_model(body=NOVA_BODY, **model)["body"].read()

    def converse_stream() -> None:
        for _ in client.converse_stream(messages=MESSAGES, **model)["stream"]:
            pass

    return {"converse": converse, "invoke_model": invoke_model, "converse_stream": converse_stream}


def calls_overhead(calls: int) -> None:
    print(f"{'CPU of a call':34} {'plain boto3':>12} {'added':>10} {'ratio':>7}")
    with local_bedrock() as url:
        client = client_of(url)
        with PriceKeeperClient(client, **COMMON) as bedrock:
            plain = operations(client, {"modelId": MODEL})
            wrapped = operations(bedrock, {})
            for name in ("converse", "invoke_model"):
                show(name, plain[name], wrapped[name], calls, 50)
            with tempfile.TemporaryDirectory() as folder:
                for sync in ("normal", "full"):
                    journal = {"journal": folder, "journal_sync": sync}
                    with PriceKeeperClient(client, **COMMON, **journal) as journaled:
                        one = operations(journaled, {})["converse"]
                        show(f"converse, journal_sync={sync!r}", plain["converse"], one, calls, 50)
                strict_overhead(client, plain["converse"], wrapped["converse"], calls)
                strict_overhead(client, plain["converse"], wrapped["converse"], calls, journal=folder)
            added = {}
            for events in FEW_EVENTS, MANY_EVENTS:
                _set(url, stream_events=events)
                name = f"converse_stream of {events} deltas"
                added[events] = show(name, plain["converse_stream"], wrapped["converse_stream"], calls // 5, 10)
    an_event = (added[MANY_EVENTS] - added[FEW_EVENTS]) / (MANY_EVENTS - FEW_EVENTS)
    print(f"{'a stream event (their difference)':34} {'':12} {an_event * 1e6:+7.3f} µs")


def strict_overhead(
    client: Any, plain: Callable[[], object], normal: Callable[[], object], calls: int, **journal: str
) -> None:
    """Strict mode while its slice lasts (here 0.25 % of a million dollars), beside plain boto3 and normal mode."""
    name = "converse, strict" + (" and a journal" if journal else "")
    with PriceKeeperClient(client, **COMMON, enforcement="strict", **journal) as bedrock:
        strict = operations(bedrock, {})["converse"]
        show(name, plain, strict, calls, 50)
        if journal:  # beside normal mode with one
            with (
                tempfile.TemporaryDirectory() as folder,
                PriceKeeperClient(client, **COMMON, journal=folder) as journaled,
            ):
                normal = operations(journaled, {})["converse"]
                added = paired(normal, strict, calls, 50)[1]
        else:
            added = paired(normal, strict, calls, 50)[1]
    goal = f"goal: {STRICT_GOAL_SECS * 1e6:g} µs"
    print(f"{'  over normal mode, the same else':34} {'':12} {added * 1e6:+7.1f} µs {goal:>14}")


def show(name: str, plain: Callable[[], object], wrapped: Callable[[], object], calls: int, block: int) -> float:
    """Print and return the seconds added to a call."""
    base, added = paired(plain, wrapped, calls, block)
    noise = paired(plain, plain, calls, block)[1]
    print(f"{name:34} {base * 1e6:9.1f} µs {added * 1e6:+7.1f} µs {1 + added / base:7.3f}")
    print(f"{'  null (plain against itself)':34} {'':12} {noise * 1e6:+7.1f} µs")
    return added


def _set(url: str, **settings: object) -> None:
    import urllib.request

    data = json.dumps(settings).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/_local/settings", data=data, method="POST")).close()


def import_overhead(runs: int = 15) -> None:
    def cpu(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - started

    plain, ours = "import boto3", "import boto3, bedrock_budget"
    cpu(plain), cpu(ours)
    pairs = [(cpu(plain), cpu(ours)) for _ in range(runs)]
    base = statistics.median(plain_secs for plain_secs, _ in pairs)
    added = statistics.median(ours_secs - plain_secs for plain_secs, ours_secs in pairs)
    print(f"{'import bedrock_budget':34} {base * 1e3:9.1f} ms {added * 1e3:+7.1f} ms {1 + added / base:7.3f}")


def prices_overhead(loops: int = 100_000) -> None:
    """Loading the price table, and pricing one call of known usage."""

    def load() -> None:
        text = importlib.resources.files("bedrock_budget.prices").joinpath("bundled.json").read_text(encoding="utf-8")
        PriceTable.from_json(json.loads(text), lazily=True)

    day = dt.date(2026, 11, 21)
    print(f"{'load the price table':34} {min(timeit.repeat(load, number=1, repeat=20)) * 1e3:9.2f} ms")
    claude, nova = (bundled().find(model, region="us-east-1", on=day) for model in (CLAUDE, MODEL))
    assert claude is not None
    assert nova is not None
    short, long, flex = Usage(1_000, 200, 5_000), Usage(1_000, 200, 250_000), Served("flex")
    ways: dict[str, Callable[[], object]] = {
        "default": lambda: claude.prices.cost(short),
        "long prompt": lambda: claude.prices.cost(long),
        "flex tier": lambda: cost_pico_usd(short, nova.prices.served(flex, 6_000).price),
        "find a price": lambda: bundled().find(CLAUDE, region="us-east-1", on=day),
    }
    for name, way in ways.items():
        secs = min(timeit.repeat(way, number=loops, repeat=5)) / loops
        print(f"{f'pricing one call, {name}' if name != 'find a price' else name:34} {secs * 1e6:9.2f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    options = parser.parse_args()
    calls_overhead(options.calls)
    prices_overhead()
    import_overhead()


if __name__ == "__main__":
    main()

"""A fleet of worker processes behind faulty connections, some of which are killed; and what it leaves behind."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from engines import dynoxide, proxy
from engines.fixtures import CREDENTIALS, REGION
from faults import traffic
from faults.comparison import Evidence, Generation, Report, Returned, Write, with_journals, without_journals
from faults.plan import BEDROCK_FAULTS, PAST_TIMEOUT_SECS, STORE_FAULTS, Plan
from faults.worker import Settings
from programs import environment_of_tests

from bedrock_budget.core.keys import UsageKey
from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.stores.tables import create_tables
from bedrock_budget.testing import LocalBedrock

PREFIX = "faults-"
#: A kill comes this soon after the one before, of the same worker, in a quarter of all cases: while it starts, replays
#: or has hardly begun.
_AGAIN_SECS = (0.05, 2.0)
_AGAIN_SHARE = 0.25
#: This share of the kills waits for the worker to be in the middle of a write, which it seldom is.
_IN_WRITE_SHARE = 0.4
_IN_WRITE_WAIT_SECS = 1.5
_CLOSE_SECS = 90


@dataclass(frozen=True)
class Run:
    """What to do. ``folder``: empty, for journals and notes."""

    folder: Path
    seed: int
    seconds: float
    kills: int
    workers: int = 4
    threads: int = 4
    journal: bool = True
    latency_secs: float = 0.03


class Worker:
    """One worker process."""

    def __init__(self, run: Run, number: int, settings: Settings, environment: dict[str, str]) -> None:
        self.number = number
        self.killed_at: float | None = None
        self._settings = settings
        self._errors = run.folder / f"{number}-stderr.txt"
        program = str(Path(__file__).with_name("worker.py"))
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, program, json.dumps(settings._asdict())],
                stdin=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )

    def kill(self) -> None:
        """SIGKILL. Raises RuntimeError if it has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"worker {self.number} ended by itself: {self.errors()[-2000:]}")
        self.killed_at = time.monotonic()
        self._process.kill()
        self._process.communicate()

    def wait_for_write(self, timeout: float) -> None:
        """Wait until it has noted the begin of a write and not yet its end."""
        until = time.monotonic() + timeout
        path = Path(self._settings.writes)
        while time.monotonic() < until:
            if path.exists():
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - 300))
                    if b' "begin", ' in (file.read().splitlines() or [b""])[-1]:
                        return
            time.sleep(0.001)

    def stop(self) -> None:
        """Tell it to end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> str | None:
        """Wait for its end. Returns what is wrong with it."""
        try:
            status = self._process.wait(_CLOSE_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"worker {self.number} did not end within {_CLOSE_SECS} s: {self.errors()[-2000:]}"
        return f"worker {self.number} ended with status {status}: {self.errors()[-2000:]}" if status else None

    def abandon(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def errors(self) -> str:
        """What it said on its standard error."""
        return self._errors.read_text(errors="replace")

    def generation(self) -> Generation:
        """Its notes."""
        returned = [Returned(at, name, UsageKey(*key)) for at, name, key in _lines(self._settings.returned)]
        writes = [
            Write(at, what, UsageKey(*key), cost, requests)
            for at, what, key, (cost, requests) in _lines(self._settings.writes)
        ]
        return Generation(self.number, self.killed_at, returned, writes)


def _lines(path: str) -> Iterator[Any]:
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:  # killed before it wrote anything
        return
    yield from map(json.loads, lines)


@dataclass
class Fleet:
    """Running workers, and all that ever ran."""

    run: Run
    bedrock_url: str
    store_url: str
    timezone: str
    all: list[Worker] = field(default_factory=list[Worker])
    alive: list[Worker] = field(default_factory=list[Worker])

    def start(self) -> Worker:
        number = len(self.all) + 1
        folder = self.run.folder
        journal = {"journal": str(folder / "journal"), "kept": str(folder / "kept")} if self.run.journal else {}
        settings = Settings(
            self.bedrock_url,
            self.store_url,
            self.timezone,
            generation=number,
            threads=self.run.threads,
            seed=self.run.seed,
            returned=str(folder / f"{number}-returned.txt"),
            writes=str(folder / f"{number}-writes.txt"),
            **journal,
        )
        worker = Worker(self.run, number, settings, environment())
        self.all.append(worker)
        return worker

    def work(self, chance: random.Random) -> None:
        """Kill and restart as the seed says."""
        self.alive = [self.start() for _ in range(self.run.workers)]
        began = time.monotonic()
        for at, place, in_write in kills(self.run, chance):
            time.sleep(max(0.0, began + at - time.monotonic()))
            if in_write:
                self.alive[place].wait_for_write(_IN_WRITE_WAIT_SECS)
            self.alive[place].kill()
            self.alive[place] = self.start()
        time.sleep(max(0.0, began + self.run.seconds - time.monotonic()))

    def close(self) -> list[str]:
        """End all workers cleanly. Returns what is wrong with them."""
        for worker in self.alive:
            worker.stop()
        return list(filter(None, [worker.wait() for worker in self.alive]))


def kills(run: Run, chance: random.Random) -> list[tuple[float, int, bool]]:
    """When to kill which worker, in seconds from the start, and whether to wait for a write of it."""
    first = min(2.0, run.seconds / 4)
    planned: list[tuple[float, int, bool]] = []
    while len(planned) < run.kills:
        at, place = chance.uniform(first, run.seconds), chance.randrange(run.workers)
        planned.append((at, place, chance.random() < _IN_WRITE_SHARE))
        if len(planned) < run.kills and chance.random() < _AGAIN_SHARE:
            planned.append((min(at + chance.uniform(*_AGAIN_SECS), run.seconds), place, False))
    return sorted(planned)


def environment() -> dict[str, str]:
    """For the workers: nobody's credentials and settings, and no coverage, whose files a kill would tear."""
    inherited = environment_of_tests(traced=False)
    ours = ("AWS_", "BEDROCK_BUDGET_")
    return {name: value for name, value in inherited.items() if not name.startswith(ours)} | CREDENTIALS


def replay_rest(run: Run, store_url: str) -> str:
    """Have the command replay what the last workers left, if anything. Returns what it said."""
    if not any((run.folder / "journal").glob("*/*.log")):
        return "nothing left"
    command = [sys.executable, "-m", "bedrock_budget", "journal", "replay", str(run.folder / "journal")]
    done = subprocess.run(
        [*command, "--store", store_url], capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    return f"exit status {done.returncode}: {done.stdout}{done.stderr}"


def journaled(folder: Path) -> tuple[list[Any], int]:
    """The usage records on all journals of a run, and how many lines are torn."""
    from bedrock_budget.journal.records import UsageRecord, read_segment

    paths = [*(folder / "kept").iterdir(), *(folder / "journal").glob("*/*.log")]
    segments = [read_segment(path) for path in paths]
    records = [record for segment in segments for record in segment.records if isinstance(record, UsageRecord)]
    return records, sum(segment.torn for segment in segments)


def execute(run: Run) -> Report:
    """Run workers behind faults, and compare. Raises EngineUnavailable."""
    timezone = traffic.timezone_far_from_midnight(datetime.now(UTC))
    day = traffic.day_in(timezone, datetime.now(UTC))
    for name in ("kept", "journal"):
        (run.folder / name).mkdir()
    store_plan, bedrock_plan = Plan((run.seed, "store"), STORE_FAULTS), Plan((run.seed, "bedrock"), BEDROCK_FAULTS)
    with ExitStack() as stack:
        engine = stack.enter_context(dynoxide.running())
        stack.enter_context(_credentials())
        client = boto3.client("dynamodb", region_name=REGION, endpoint_url=engine)
        stack.callback(client.close)
        create_tables(client, PREFIX)
        bedrock = LocalBedrock(latency_secs=run.latency_secs, stream_events=5, usage=traffic.usage_of_request)
        stack.enter_context(bedrock)
        before_store = stack.enter_context(proxy.running(engine, store_plan, keep_requests=False))
        before_bedrock = stack.enter_context(proxy.running(bedrock.url, bedrock_plan, keep_requests=False))
        store_url = f"dynamodb://?region={REGION}&prefix={PREFIX}&endpoint_url={before_store.url}"
        fleet = Fleet(run, before_bedrock.url, store_url, timezone)
        problems: list[str] = []
        try:
            fleet.work(random.Random(run.seed))
            problems += fleet.close()
        finally:
            for worker in fleet.all:
                worker.abandon()
        said = replay_rest(run, store_url)
        for between in (before_store, before_bedrock):
            if not between.wait_idle(30 + PAST_TIMEOUT_SECS):
                problems.append("requests were still under way half a minute after the last worker had ended")
        store = DynamoDBStore(region=REGION, prefix=PREFIX, endpoint_url=engine)
        stack.callback(store.close)
        found = store.read_shards(dict.fromkeys(traffic.all_keys(day), traffic.SHARDS))
        records, torn = journaled(run.folder) if run.journal else ([], 0)
        evidence = Evidence(
            day,
            run.threads,
            bedrock.ledger.entries(),
            {key: each.amounts for key, each in found.items()},
            [worker.generation() for worker in fleet.all],
            records,
        )
    report = with_journals(evidence) if run.journal else without_journals(evidence)
    report.broken += problems
    if run.journal:
        report.figures["torn lines"] = torn
        report.figures["journal replay"] = said
        folders = list((run.folder / "journal").iterdir())
        left = [path.name for path in folders if any(path.glob("*.log"))]
        if left:
            report.broken.append(f"journals are left: {left}")
        report.figures["empty folders left"] = len(folders) - len(left)
    _said(fleet.all, report)
    report.figures["store requests"] = dict(store_plan.done)
    report.figures["Bedrock requests"] = dict(bedrock_plan.done)
    return report


def _said(workers: list[Worker], report: Report) -> None:
    """What the workers wrote to their standard error."""
    failed: Counter[str] = Counter()
    replays = 0
    for worker in workers:
        text = worker.errors()
        failed.update(line[:100] for line in text.splitlines() if line.startswith("a call failed"))
        replays += text.count("replayed the journal of a dead process")
        if "Traceback" in text:
            report.broken.append(f"worker {worker.number} has met an error: {text[-2000:]}")
    report.figures["failed calls"] = dict(failed)
    report.figures["replays with usage to write"] = replays


@contextmanager
def _credentials() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(CREDENTIALS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

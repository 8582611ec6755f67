"""Strict enforcement while workers are killed: what was spent, and how much of the quota nobody can use any more."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from enforcement import traffic
from enforcement.fleet import Process
from enforcement.worker import Settings
from programs import environment_of_tests

from bedrock_budget.core.holds import SLICES_A_QUOTA
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.stores.urls import open_store
from bedrock_budget.testing import LocalBedrock

LATENCY_SECS = 0.02
MAX_TOKENS = 1000
OUTPUT_TOKENS = (300, 1000)
#: Kills come when this part of the quota is spent, first and last.
_KILLS_FROM, _KILLS_TO = 0.05, 0.9
#: A fleet has done all it can when the server has not been called for so long.
_QUIET_SECS = 1.0
_POLL_SECS = 0.003


@dataclass(frozen=True)
class Run:
    """What to do. ``folder``: empty, for notes and journals. ``quota_calls``: the quota, in worst cases. ``secs``: how
    long the fleet has, of which some passes when all is spent."""

    folder: Path
    store_url: str
    seed: int
    quota_calls: int
    workers: int = 4
    threads: int = 4
    kills: int = 2
    secs: float = 10.0
    journal: bool = False


class Figures(NamedTuple):
    """What came of it, in pico-USD. ``stopped``: unused when the fleet was stopped. ``unused``: after a fresh process
    has gone on until it was refused. ``stranded``: granted by the store for the day and spent by nobody. ``unknown``:
    the worst cases of the calls in flight at kills, less what those of them cost that arrived. ``failed``: calls that
    were neither answered nor refused."""

    quota: int
    worst_case: int
    largest_slice: int
    kills: int
    calls: int
    spend: int
    stopped: int
    unused: int
    granted: int
    in_flight: int
    unknown: int
    failed: int
    journal: bool

    @property
    def stranded(self) -> int:
        return self.granted - self.spend

    @property
    def most_stranded(self) -> int:
        """What kills may take away."""
        return self.unknown if self.journal else self.kills * self.largest_slice

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        found: list[str] = []
        if self.spend > self.quota:
            found.append(f"spent {self.spend:,} of a quota of {self.quota:,} pico-USD")
        if not self.spend <= self.granted <= self.quota:
            found.append(f"{self.granted:,} granted: spent {self.spend:,}, quota {self.quota:,}")
        if self.stranded > self.most_stranded:
            found.append(f"{self.kills} kills stranded {self.stranded:,}, more than {self.most_stranded:,}")
        if self.unused >= self.worst_case + self.most_stranded:
            found.append(f"{self.unused:,} of the quota could not be used")
        return found


class Fleet:
    """The workers of a run, and all that ever ran."""

    def __init__(self, run: Run, bedrock_url: str, config: dict[str, Any]) -> None:
        self.outcomes: Counter[str] = Counter()
        self._run = run
        self._bedrock_url = bedrock_url
        self._config = config
        self._all: list[Process] = []
        self._alive: list[Process] = []

    def _start(self, work: Literal["until_stopped", "until_refused"]) -> Process:
        number = len(self._all)
        run = self._run
        settings = Settings(
            self._bedrock_url,
            run.store_url,
            self._config,
            "strict",
            work,
            run.threads,
            MAX_TOKENS,
            OUTPUT_TOKENS,
            (run.seed, number),
            journal=str(run.folder / "journal") if run.journal else None,
            notes=str(run.folder / f"{number}.notes"),
        )
        process = Process(settings)
        self._all.append(process)
        return process

    def begin(self) -> None:
        """Start the workers."""
        self._alive = [self._start("until_stopped") for _ in range(self._run.workers)]
        for process in self._alive:
            process.go()

    def kill(self, place: int) -> None:
        """Kill a worker and start another one in its place."""
        self._alive[place].kill()
        self._alive[place] = self._start("until_stopped")
        self._alive[place].go()

    def end(self) -> None:
        """Stop all workers."""
        for process in self._alive:
            process.stop()
        self._hear(self._alive)

    def use_up(self) -> None:
        """Have a fresh process go on until it is refused."""
        last = self._start("until_refused")
        last.go()
        self._hear([last])

    def abandon(self) -> None:
        """Make sure that nobody is left."""
        for process in self._all:
            process.abandon()

    def _hear(self, processes: Iterable[Process]) -> None:
        for process in processes:
            self.outcomes += process.outcomes()


def execute(run: Run) -> Figures:
    """Run it."""
    chance = random.Random(run.seed)
    worst_case = traffic.worst_case(MAX_TOKENS)
    quota = run.quota_calls * worst_case // 10**6 * 10**6  # in whole micros
    config = traffic.config(quota)
    calls = quota // traffic.cost_of(sum(OUTPUT_TOKENS) // 2)
    with LocalBedrock(latency_secs=LATENCY_SECS, usage=traffic.usage_of_request) as server:
        fleet = Fleet(run, server.url, config)
        try:
            fleet.begin()
            until = time.monotonic() + run.secs
            for part in sorted(chance.uniform(_KILLS_FROM, _KILLS_TO) for _ in range(run.kills)):
                while len(server.ledger) < part * calls and time.monotonic() < until:
                    time.sleep(_POLL_SECS)
                fleet.kill(chance.randrange(run.workers))
            _wait_until_quiet(server, until)
            fleet.end()
            stopped = quota - traffic.spend(server.ledger.entries())
            if run.journal:
                replay(run)
            fleet.use_up()
        finally:
            fleet.abandon()
        entries = server.ledger.entries()
    unanswered, returned = read_notes(run.folder)
    spend = traffic.spend(entries)
    return Figures(
        quota=quota,
        worst_case=worst_case,
        largest_slice=max(run.threads * worst_case, quota // SLICES_A_QUOTA),
        kills=run.kills,
        calls=len(entries),
        spend=spend,
        stopped=stopped,
        unused=quota - spend,
        granted=_granted(run.store_url, traffic.key_of(config)),
        in_flight=unanswered,
        unknown=unanswered * worst_case - traffic.spend(each for each in entries if each.request_id not in returned),
        failed=sum(count for outcome, count in fleet.outcomes.items() if outcome.startswith("failed")),
        journal=run.journal,
    )


def replay(run: Run) -> None:
    """Have the command replay what dead workers left that no restarted one has."""
    arguments = ["journal", "replay", str(run.folder / "journal"), "--store", run.store_url]
    command = [sys.executable, "-m", "bedrock_budget", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment_of_tests(traced=False))


def read_notes(folder: Path) -> tuple[int, set[str]]:
    """How many calls were begun and never came back, and the request ids of those that did."""
    unanswered = 0
    returned: set[str] = set()
    for path in folder.glob("*.notes"):
        lines = [line.split() for line in path.read_text().splitlines()]
        ends = [line[2] for line in lines if line[0] == "end"]
        unanswered += len(lines) - 2 * len(ends)
        returned.update(ends)
    return unanswered, returned


def _wait_until_quiet(server: LocalBedrock, until: float) -> None:
    """Wait until nobody has called for a while."""
    calls, since = len(server.ledger), time.monotonic()
    while (now := time.monotonic()) < min(until, since + _QUIET_SECS):
        time.sleep(_POLL_SECS)
        if len(server.ledger) != calls:
            calls, since = len(server.ledger), now


def _granted(store_url: str, key: UsageKey) -> int:
    store = open_store(store_url)
    try:
        return store.read_granted([key]).get(key, 0)
    finally:
        store.close()

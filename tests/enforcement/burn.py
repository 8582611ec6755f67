"""Normal enforcement: how far a fleet goes beyond a quota that it uses up, by the server's own ledger."""

import time
from typing import NamedTuple

from enforcement import traffic
from enforcement.fleet import Process
from enforcement.worker import Settings

from bedrock_budget.testing import LedgerEntry, LocalBedrock

OUTPUT_TOKENS = 500
THREADS = 16
#: All have moved on when nobody has called the label for so long after the crossing.
_QUIET_SECS = 3.0


class Figures(NamedTuple):
    """Calls; they all cost the same. ``in_flight``: had begun and not settled when the quota was crossed."""

    quota: int
    served: int
    in_flight: int
    crossed_after_secs: float
    last_after_secs: float
    failed: int

    @property
    def overshoot_pct(self) -> float:
        """Beyond the quota and beyond what was in flight, in per cent of the quota."""
        return 100 * (self.served - self.quota - self.in_flight) / self.quota

    @property
    def in_flight_pct(self) -> float:
        return 100 * self.in_flight / self.quota


def execute(store_url: str, *, processes: int, calls: int, burn_secs: float, latency_secs: float, seed: int) -> Figures:
    """Have a fleet use up a quota for ``calls`` calls in ``burn_secs``, and move on."""
    config = traffic.config(calls * traffic.cost_of(OUTPUT_TOKENS), next_label=True)
    with LocalBedrock(latency_secs=latency_secs, usage=traffic.usage_of_request) as server:
        tokens = (OUTPUT_TOKENS, OUTPUT_TOKENS)
        fixed = (server.url, store_url, config, "normal", "arrive", THREADS, OUTPUT_TOKENS, tokens)
        rate = calls / burn_secs / processes
        fleet = [Process(Settings(*fixed, seed=(seed, number), rate=rate)) for number in range(processes)]
        failed = 0
        try:
            for process in fleet:
                process.wait_until_ready()
            for process in fleet:
                process.go()
            _wait_until_moved_on(server, calls, time.monotonic() + 3 * burn_secs)
            for process in fleet:
                process.stop()
            for process in fleet:
                failed += sum(n for outcome, n in process.outcomes().items() if outcome.startswith("failed"))
        finally:
            for process in fleet:
                process.abandon()
        entries = [entry for entry in server.ledger.entries() if entry.billed]
    return figures(entries, calls, latency_secs, failed)


def figures(entries: list[LedgerEntry], quota: int, latency_secs: float, failed: int = 0) -> Figures:
    """What a ledger says of a quota of so many calls. Raises RuntimeError if it was not crossed."""
    began = min(entry.started_at for entry in entries)
    starts = sorted(entry.started_at for entry in entries if entry.model_id == traffic.MODEL)
    if len(starts) < quota:
        raise RuntimeError(f"only {len(starts)} of {quota} calls were made")
    crossed_at = starts[quota - 1] + latency_secs  # each takes as long
    in_flight = sum(start <= crossed_at for start in starts[quota:])
    return Figures(quota, len(starts), in_flight, crossed_at - began, starts[-1] - began, failed)


def _wait_until_moved_on(server: LocalBedrock, quota: int, until: float) -> None:
    calls, since = 0, time.monotonic()
    while (now := time.monotonic()) < until and (calls < quota or now < since + _QUIET_SECS):
        time.sleep(0.1)
        found = sum(entry.model_id == traffic.MODEL for entry in server.ledger.entries())
        if found != calls:
            calls, since = found, now

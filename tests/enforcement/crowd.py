"""Many calls at once, from threads of several processes, against a budget for few of them."""

from collections import Counter
from typing import NamedTuple

from enforcement import traffic
from enforcement.fleet import Process
from enforcement.worker import Settings

from bedrock_budget.testing import LocalBedrock

#: Long answers at the request's limit: what is held for the input's sake is little beside them.
OUTPUT_TOKENS = 8192
#: The most that a worst case may be of what a call costs, for `LEAST_USED` to be promised.
MOST_HELD = 1.2
LEAST_USED = 0.8


class Figures(NamedTuple):
    """What came of it. ``budget`` and ``spend``: in pico-USD, the latter by the server's ledger."""

    calls: int
    served: int
    budget: int
    spend: int
    failed: int

    @property
    def used(self) -> float:
        return self.spend / self.budget

    def broken(self) -> list[str]:
        """The promises of strict enforcement that were not kept."""
        found: list[str] = []
        held = traffic.worst_case(OUTPUT_TOKENS) / traffic.cost_of(OUTPUT_TOKENS)
        if held > MOST_HELD:
            found.append(f"a worst case is {held:.2f} times a call's cost: nothing is promised here")
        if self.spend > self.budget:
            found.append(f"used {self.used:.1%} of the budget")
        if self.used < LEAST_USED:
            found.append(f"used {self.used:.1%} of the budget, less than {LEAST_USED:.0%}")
        return found


def execute(
    store_url: str, enforcement: str, *, processes: int, threads: int, budget_calls: int, latency_secs: float
) -> Figures:
    """Have each thread of each process make one call, all at once."""
    cost = traffic.cost_of(OUTPUT_TOKENS)
    budget = budget_calls * cost // 10**6 * 10**6  # in whole micros
    config = traffic.config(budget)
    outcomes: Counter[str] = Counter()
    with LocalBedrock(latency_secs=latency_secs, usage=traffic.usage_of_request) as server:
        tokens = (OUTPUT_TOKENS, OUTPUT_TOKENS)
        fixed = (server.url, store_url, config, enforcement, "once", threads, OUTPUT_TOKENS, tokens)
        crowd = [Process(Settings(*fixed, seed=number)) for number in range(processes)]
        try:
            for process in crowd:
                process.wait_until_ready()
            for process in crowd:
                process.go()
            for process in crowd:
                outcomes += process.outcomes()
        finally:
            for process in crowd:
                process.abandon()
        entries = server.ledger.entries()
    failed = sum(count for outcome, count in outcomes.items() if outcome.startswith("failed"))
    return Figures(processes * threads, len(entries), budget, traffic.spend(entries), failed)

"""How far a fleet goes beyond a quota, and what DynamoDB bills for it: simulated, with the library's own rules.

    python tests/benchmarks/overshoot.py [--write docs/concepts/overshoot.md] [--seed 1]

Prints the table of docs/concepts/overshoot.md, or writes that page. Exits with 1 if the library's defaults miss what
the page promises: `MOST_PCT`, `MOST_PCT_IN_A_MINUTE`, and `most_cost`. The model: `fleet_model`.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.fleet_model import WRITE_UNIT_USD, Result, Scenario, simulate

from bedrock_budget.core.refresh import CONTROLS_SECS

PROCESSES = (1, 10, 100, 1_000)
BURNS = {28_800: "8 h", 3_600: "1 h", 600: "10 min", 60: "1 min"}
#: Per cent of the quota, beyond what was in flight.
MOST_PCT = 1.0
MOST_PCT_IN_A_MINUTE = 3.0

COLUMNS = (
    "processes",
    "quota burnt in",
    "in flight %",
    "overshoot %: adaptive",
    "fixed",
    "WU: adaptive",
    "fixed",
    "RU: adaptive",
    "fixed",
    "USD: adaptive",
    "fixed",
    "adaptive / fixed",
)
PAGE = """# How far a quota is overshot, and what that costs

_Written by `python tests/benchmarks/overshoot.py --write docs/concepts/overshoot.md`; a test compares._

A process decides from what its last look showed and its own spend since. So a fleet goes beyond a quota by what is
spent between the crossing and the look that shows it. The library's schedule (`core/refresh.py`) keeps that small: each
look is at most half the time away in which the fleet's rate would use up what is left.

These figures are simulated, not measured: discrete events around the library's own rules (when to look and at what,
effective spend, selection, shards). The processes start together on a label whose quota lasts {calls:,} calls; the next
label has none. Calls arrive at random, cost the same and take {latency:g} s. Usage is written every {flush:g} s, near a
quota at most every 0.2 s, over {shards} shards. The store answers at once; its units are counted as an engine counts
them (a test compares).

- *Overshoot*: spend beyond the quota *and beyond what was in flight* when the settled spend crossed it, in per cent of
  the quota. No schedule can call back what is in flight. A negative figure: the processes moved on before the quota was
  used up (a daily total may lack the last 5 s of own usage, which then counts twice for a while).
- *adaptive*: the defaults. Units of the whole run, until every process has moved on and all is written.
- *fixed*: `refresh="fixed", metering="sync"`, the schema specification's way: a look every 300 s (60 s in tight mode)
  and one metering write per request. Units until the quota is crossed; what its overshoot costs is left out. How far
  it goes depends on where its looks happen to fall.
- *WU*, *RU*: DynamoDB write and read units, thousands; $0.625 and $0.125 a million. Both ways read overrides and the
  sticky state every {controls:g} s. The aggregator is the same for both and left out;
  so are registered profiles (a read unit in five minutes) and fetched prices (4 a label in a quarter of an hour).

{header}
{rows}

Up to 10 processes the defaults cost no more than one write per request, because a second's calls go out in one write.
In a large fleet each process makes so few calls that nothing merges, and each looks for itself.

Much of what 1,000 processes pay is not the schedule's. A shard's item holds an entry for each of its writers, which is
what counts every batch exactly once; 125 of them take it beyond 1 KB, so each write costs 2 units instead of 1, in both
columns. More shards (`agg_shard_count`) make items smaller and looks dearer. Against writes of 1 unit, which a plain
`ADD` that may count twice would cost, the adaptive figure is at most {bare:.1f} times as much (1,000 processes). Over
8 hours most reads are those of controls. And processes that call less than every 15 minutes forget the scope and begin
anew with each call.

## What else changes it

100 processes, the defaults.

| | overshoot % of 10 min | USD | overshoot % of 1 min | USD |
|---|--:|--:|--:|--:|
{variations}

The aggregator is not needed for control: looks that are frequent sum the shards themselves. Writing less often
costs less and overshoots by what the fleet spends meanwhile; a second is also what a kill can lose.
"""


class Row(NamedTuple):
    """One fleet under both ways."""

    adaptive: Result
    fixed: Result

    @property
    def cost(self) -> float:
        """The USD of adaptive as a multiple of fixed's."""
        return self.adaptive.units.usd / self.fixed.at_crossing.usd

    @property
    def cost_beside_plain_writes(self) -> float:
        """As `cost`, if each of fixed's writes took one unit."""
        calls = self.fixed.scenario.calls
        reads = self.fixed.at_crossing._replace(write=0).usd
        return self.adaptive.units.usd / (reads + calls * WRITE_UNIT_USD)

    def faults(self) -> Iterator[str]:
        """What the defaults miss of what is promised."""
        scenario = self.adaptive.scenario
        where = f"{scenario.processes} processes, {BURNS[int(scenario.burn_secs)]}"
        most_pct = MOST_PCT if scenario.burn_secs > 60 else MOST_PCT_IN_A_MINUTE
        if self.adaptive.overshoot_pct > most_pct:
            yield f"{where}: overshot by {self.adaptive.overshoot_pct:.2f} %, more than {most_pct:g} %"
        most = most_cost(scenario.processes)
        if self.cost > most:
            yield f"{where}: costs {self.cost:.2f} times what the fixed schedule costs, more than {most:g}"

    def __str__(self) -> str:
        adaptive, fixed = self.adaptive, self.fixed
        scenario = adaptive.scenario
        cells = (
            f"{scenario.processes:,}",
            BURNS[int(scenario.burn_secs)],
            f"{adaptive.in_flight_pct:.2f}",
            f"**{adaptive.overshoot_pct:.2f}**",
            f"{fixed.overshoot_pct:.2f}",
            f"{adaptive.units.write / 1000:.1f}",
            f"{fixed.at_crossing.write / 1000:.1f}",
            f"{adaptive.units.read / 1000:.1f}",
            f"{fixed.at_crossing.read / 1000:.1f}",
            f"{adaptive.units.usd:.4f}",
            f"{fixed.at_crossing.usd:.4f}",
            f"**{self.cost:.2f}**",
        )
        return f"| {' | '.join(cells)} |"


def most_cost(processes: int) -> float:
    """What the defaults may cost, as a multiple of the fixed schedule's with one write per request."""
    return 1.0 if processes <= 10 else 2.0


def row(processes: int, burn_secs: float, seed: int = 1) -> Row:
    """A fleet of the table."""
    scenario = Scenario(processes, burn_secs, seed=seed)
    return Row(simulate(scenario), simulate(replace(scenario, refresh="fixed", sync=True)))


def variations(seed: int = 1) -> Iterator[str]:
    """The lines of the second table."""
    base = Scenario(100, 600, seed=seed)
    kinds = {
        "as above": base,
        "one process makes half of the calls": replace(base, skewed=True),
        "the aggregator is stopped": replace(base, aggregator=False),
        "writes every 0.2 s": replace(base, flush_secs=0.2),
        "writes every 5 s": replace(base, flush_secs=5.0),
        "calls take 0.3 s": replace(base, latency_secs=0.3),
        "calls take 30 s": replace(base, latency_secs=30.0),
        "a quota of 200,000 calls": replace(base, calls=200_000),
    }
    for name, scenario in kinds.items():
        results = [simulate(replace(scenario, burn_secs=burn)) for burn in (600, 60)]
        cells = " | ".join(f"{each.overshoot_pct:.2f} | {each.units.usd:.4f}" for each in results)
        yield f"| {name} | {cells} |"


def page(rows: list[Row], lines: list[str]) -> str:
    """docs/concepts/overshoot.md."""
    scenario = rows[0].adaptive.scenario
    return PAGE.format(
        latency=scenario.latency_secs,
        calls=scenario.calls,
        flush=scenario.flush_secs,
        shards=scenario.shard_count,
        controls=CONTROLS_SECS,
        header=f"| {' | '.join(COLUMNS)} |\n|{'--:|' * len(COLUMNS)}",
        rows="\n".join(map(str, rows)),
        bare=max(each.cost_beside_plain_writes for each in rows),
        variations="\n".join(lines),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page instead of printing the tables")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (1)")
    options = parser.parse_args()
    rows = [row(processes, burn, options.seed) for burn in BURNS for processes in PROCESSES]
    text = page(rows, list(variations(options.seed)))
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text, encoding="utf-8")
    else:
        print("\n".join(line for line in text.splitlines() if line.startswith("|")))
    faults = [fault for each in rows for fault in each.faults()]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

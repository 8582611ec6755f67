"""Whether budgets hold, with real processes: what a server served, by its own ledger, beside what was allowed.

    python tests/benchmarks/control.py normal [--processes 8] [--burn 60]
    python tests/benchmarks/control.py strict [--runs 50] [--secs 10] [--journal yes|no|both]
    python tests/benchmarks/control.py concurrent [--calls 1000] [--budget-calls 50] [--no-litellm]

- *normal*: a fleet uses up a quota and moves on; its overshoot beside what the simulator says of such a fleet.
- *strict*: half of the workers are killed at random and replaced; what is spent never exceeds the quota, and what
  nobody can use any more stays within what kills may cost.
- *concurrent*: all calls at once against a budget for few of them, in strict and normal mode, and with LiteLLM's
  budget classes (`litellm_control.py`), in an environment of their own.

Stores are a DynamoDB engine on this machine and SQLite files. Exits with 1 if a promise is broken; LiteLLM's figures
are shown, not judged.
"""

import argparse
import json
import os
import random
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fleet_model import predict
from benchmarks.overshoot import MOST_PCT_IN_A_MINUTE
from enforcement import burn, crowd, fleet, kills, traffic

from bedrock_budget.testing import LocalBedrock

CHECKOUT = Path(__file__).resolve().parents[2]
LATENCY_SECS = 0.3
PREDICTIONS = 20
#: The quotas of the strict runs, in worst cases: from few slices of one worst case each to many calls out of one.
QUOTA_CALLS = (60, 900)
#: Every so many strict runs are on SQLite.
SQLITE_EVERY = 7
LITELLM = "litellm==1.109.1"
#: LiteLLM's dependencies that an index may lack the newest version of: so many floors are left out at most.
MOST_RELAXED = 5


def normal(options: argparse.Namespace, stores: fleet.Stores) -> list[str]:
    """One fleet, and what is predicted of it."""
    scenario: dict[str, Any] = {
        "processes": options.processes,
        "calls": options.calls,
        "burn_secs": options.burn,
        "latency_secs": LATENCY_SECS,
    }
    found = burn.execute(stores.new(), **scenario, seed=options.seed)
    predicted = [predict(**scenario, seed=seed) for seed in range(PREDICTIONS)]
    print(
        f"{options.processes} processes, a quota of {options.calls:,} calls of {LATENCY_SECS:g} s each, normal mode\n"
    )
    _table(
        ("", "crossed after", "in flight %", "overshoot % beyond that"),
        [
            (
                "measured",
                f"{found.crossed_after_secs:.1f} s",
                f"{found.in_flight_pct:.2f}",
                f"{found.overshoot_pct:.2f}",
            ),
            (
                "simulated",
                f"{statistics.mean(each.crossed_at_secs for each in predicted):.1f} s",
                _mean_and_range(each.in_flight_pct for each in predicted),
                _mean_and_range(each.overshoot_pct for each in predicted),
            ),
        ],
    )
    print(f"\nthe last call to the label began {found.last_after_secs - found.crossed_after_secs:+.2f} s from there")
    broken = [f"{found.failed} calls failed"] if found.failed else []
    if found.overshoot_pct > MOST_PCT_IN_A_MINUTE:
        broken.append(f"overshot by {found.overshoot_pct:.2f} %, more than {MOST_PCT_IN_A_MINUTE:g} %")
    return broken


def _mean_and_range(values: Iterable[float]) -> str:
    known = list(values)
    return f"{statistics.mean(known):.2f} ({min(known):.2f} to {max(known):.2f})"


def strict(options: argparse.Namespace, stores: fleet.Stores) -> list[str]:
    """Runs with kills. Amounts are in worst cases of one call."""
    print(f"{options.workers} workers, half of them killed in each run; amounts in worst cases of one call\n")
    head = (
        "run",
        "store",
        "journal",
        "quota",
        "threads",
        "calls",
        "spent %",
        "stopped at",
        "unused",
        "stranded",
        "most",
    )
    widths = [len(name) for name in head]
    print("  ".join(head))
    broken: list[str] = []
    results: list[kills.Figures] = []
    folder = Path(tempfile.mkdtemp(prefix="control-"))
    for number in range(options.runs):
        chance = random.Random(f"{options.seed} {number}")
        on_sqlite = number % SQLITE_EVERY == SQLITE_EVERY - 1
        journal = options.journal == "yes" or (options.journal == "both" and number % 2 == 0)
        files = folder / str(number)
        files.mkdir()
        run = kills.Run(
            files,
            stores.new(sqlite=on_sqlite),
            seed=chance.randrange(2**31),
            quota_calls=chance.randint(*options.quota),
            workers=options.workers,
            threads=chance.choice((1, 2, 4)),
            kills=options.workers // 2,
            secs=options.secs,
            journal=journal,
        )
        found = kills.execute(run)
        results.append(found)
        worst = found.worst_case
        row = (
            str(number),
            "sqlite" if on_sqlite else "dynamodb",
            "yes" if journal else "no",
            str(run.quota_calls),
            str(run.threads),
            str(found.calls),
            f"{100 * found.spend / found.quota:.2f}",
            *(f"{each / worst:.2f}" for each in (found.stopped, found.unused, found.stranded, found.most_stranded)),
        )
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), flush=True)
        broken += [f"run {number}: {fault}" for fault in found.broken()]
        if not found.broken():
            shutil.rmtree(files)
    if not any(folder.iterdir()):
        folder.rmdir()
    else:
        print(f"the files of runs that broke a promise are in {folder}")
    _summary(results)
    return broken


def _summary(results: list[kills.Figures]) -> None:
    print(
        "\nstopped at: unused when the fleet had called no more for a while or its time was over\n"
        "unused: after one more process had called until it was refused\n"
        "stranded: set aside for processes that are dead\n"
        "most: what kills may strand; without a journal a slice each, with one what calls in flight held\n"
    )
    rows: list[tuple[str, ...]] = []
    for journal in (False, True):
        chosen = [each for each in results if each.journal == journal]
        if chosen:
            rows.append(
                (
                    "yes" if journal else "no",
                    str(len(chosen)),
                    str(sum(each.kills for each in chosen)),
                    f"{sum(each.calls for each in chosen):,}",
                    str(sum(each.spend > each.quota for each in chosen)),
                    f"{max(100 * each.spend / each.quota for each in chosen):.3f}",
                    f"{max(each.unused / each.worst_case for each in chosen):.2f}",
                    str(sum(each.failed for each in chosen)),
                )
            )
    head = ("journal", "runs", "kills", "calls", "runs above the quota", "most spent %", "most unused", "failed calls")
    _table(head, rows)


def concurrent(options: argparse.Namespace, stores: fleet.Stores) -> list[str]:
    """One crowd in each mode, and LiteLLM's."""
    per_process = options.calls // options.processes
    cost = traffic.cost_of(crowd.OUTPUT_TOKENS)
    held = traffic.worst_case(crowd.OUTPUT_TOKENS) / cost
    print(
        f"{options.processes * per_process} calls at once against a budget for {options.budget_calls}; each takes "
        f"{options.latency:g} s; a worst case is {held:.3f} times what a call costs\n"
    )
    rows: list[tuple[str, ...]] = []
    broken: list[str] = []
    for enforcement in ("strict", "normal"):
        for on_sqlite in (False, True):
            found = crowd.execute(
                stores.new(sqlite=on_sqlite),
                enforcement,
                processes=options.processes,
                threads=per_process,
                budget_calls=options.budget_calls,
                latency_secs=options.latency,
            )
            store = "SQLite" if on_sqlite else "DynamoDB"
            who = f"{enforcement}, {options.processes} processes, {store}"
            rows.append((who, str(found.served), f"{found.used:.0%}", str(found.failed)))
            broken += [f"{who}: {fault}" for fault in found.broken()] if enforcement == "strict" else []
    if not options.no_litellm:
        try:
            rows += _litellm(options, cost)
        except (OSError, subprocess.SubprocessError, RuntimeError, ValueError) as exc:
            print(f"LiteLLM could not be measured: {exc}\n")
    _table(("", "served", "of the budget", "failed"), rows)
    return broken


def _litellm(options: argparse.Namespace, cost: int) -> Iterator[tuple[str, ...]]:
    """Its budget classes, each in one process, which is all that they know of without a server of their own."""
    python = _litellm_python(options.litellm_env)
    print(
        f"{LITELLM}: its calls come from one process (threads with BudgetManager, tasks with Router), whose budget is "
        "in\nits memory; the budget and the prices are the same; one at a time they hold it to a call\n"
    )
    few = options.budget_calls + 10
    for way in ("BudgetManager", "Router"):
        for calls, at_once, latency in ((few, 1, 0.0), (options.calls, options.calls, options.latency)):
            with LocalBedrock(latency_secs=latency, usage=traffic.usage_of_request) as server:
                task = {
                    "way": way,
                    "url": server.url,
                    "model": traffic.MODEL,
                    "text": traffic.call(crowd.OUTPUT_TOKENS, 1)["messages"][0]["content"][0]["text"],
                    "max_tokens": crowd.OUTPUT_TOKENS,
                    "budget_usd": options.budget_calls * cost / 1e12,
                    "calls": calls,
                    "at_once": at_once,
                }
                program = str(Path(__file__).with_name("litellm_control.py"))
                done = subprocess.run(
                    [str(python), program, json.dumps(task)],
                    capture_output=True,
                    text=True,
                    timeout=600,
                    env={"PATH": os.defpath, "HOME": tempfile.gettempdir(), "NO_PROXY": "*"},
                    check=False,
                )
                entries = server.ledger.entries()
            if done.returncode:
                raise RuntimeError(f"{way} ended with status {done.returncode}: {done.stderr[-1000:]}")
            outcomes: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
            failed = sum(count for outcome, count in outcomes.items() if outcome.startswith("failed"))
            used = traffic.spend(entries) / (options.budget_calls * cost)
            who = f"LiteLLM {way}, {'one at a time' if at_once == 1 else 'at once'} ({calls} calls)"
            yield who, str(len(entries)), f"{used:.0%}", str(failed)


def _litellm_python(folder: Path) -> Path:
    """The interpreter of an environment with LiteLLM; made if need be. Raises RuntimeError, SubprocessError."""
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists() and done.read_text() == LITELLM:
        return python
    print(f"installing {LITELLM} into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    (folder / ".gitignore").write_text("*\n", encoding="ascii")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", LITELLM], check=True, capture_output=True, timeout=600)
    code = "import importlib.metadata as m, json; print(json.dumps(m.requires('litellm')))"
    asked = json.loads(subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout)
    needed = [each for each in asked if "extra ==" not in each]
    for _ in range(MOST_RELAXED):
        tried = subprocess.run([*pip, *needed], capture_output=True, text=True, timeout=900, check=False)
        if tried.returncode == 0:
            done.write_text(LITELLM)
            return python
        missing = re.search(r"No matching distribution found for ([\w.-]+)", tried.stderr)
        if missing is None:
            break
        print(f"the index does not have the version of {missing[1]} that it asks for; another one is taken")
        needed = [missing[1] if re.match(rf"{missing[1]}\b", each) else each for each in needed]
    raise RuntimeError(f"{LITELLM} could not be installed: {tried.stderr[-1000:]}")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        first, *rest = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("normal", help="the overshoot of a fleet beside the simulator's")
    command.add_argument("--processes", type=int, default=8)
    command.add_argument("--calls", type=int, default=6000, help="the quota (6000)")
    command.add_argument("--burn", type=float, default=60.0, metavar="SECS", help="in which it is used up (60)")
    command.set_defaults(run=normal)
    command = commands.add_parser("strict", help="quotas while workers are killed")
    command.add_argument("--runs", type=int, default=50)
    command.add_argument("--secs", type=float, default=10.0, help="of one run at most, without its start and end (10)")
    command.add_argument("--workers", type=int, default=4)
    command.add_argument("--quota", type=int, nargs=2, default=QUOTA_CALLS, metavar="N", help="in worst cases, from to")
    command.add_argument("--journal", choices=("yes", "no", "both"), default="both", help="both: in turn (the default)")
    command.set_defaults(run=strict)
    command = commands.add_parser("concurrent", help="all calls at once, beside LiteLLM")
    command.add_argument("--calls", type=int, default=1000)
    command.add_argument("--processes", type=int, default=8)
    command.add_argument("--budget-calls", type=int, default=50, help="the budget, in calls (50)")
    command.add_argument("--latency", type=float, default=0.5, metavar="SECS", help="of a call (0.5)")
    command.add_argument("--no-litellm", action="store_true")
    command.add_argument("--litellm-env", type=Path, default=CHECKOUT / ".cache" / "litellm", metavar="DIR")
    command.set_defaults(run=concurrent)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = secrets.randbelow(2**31)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="control-") as folder, fleet.stores(Path(folder)) as stores:
        broken = options.run(options, stores)
    for fault in broken:
        print(f"broken: {fault}", file=sys.stderr)
    print("broken promises: see above" if broken else "\nall promises kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

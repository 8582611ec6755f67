"""Our cost of recorded calls beside LiteLLM's, for the same tokens: equal, or different for a reason that is told.

    python tests/benchmarks/prices_compared.py [--litellm PYTHON] [--recorded FILE | --ids] [--all]

Each recorded response is served over loopback HTTP and metered by the library as any call is. ``--litellm``: an
interpreter that has LiteLLM; without it, one is made in a folder for it (``--venv``), from the package index. Costs are
equal where they are the same to the pico-dollar, as far as LiteLLM's floating point goes. Exit 1: a difference that no
rule explains.
"""

import argparse
import collections
import datetime as dt
import gzip
import json
import re
import subprocess
import sys
import tempfile
import venv
from contextlib import ExitStack
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from test_recorded_traffic import CONFIG, RECORDED, call, serve

from bedrock_budget import PriceKeeperClient
from bedrock_budget.call import Call
from bedrock_budget.core.model_ids import parse_model_id
from bedrock_budget.core.money import PICO_PER_USD, usd_text
from bedrock_budget.core.served import DEFAULT, Served
from bedrock_budget.core.usage import Usage
from bedrock_budget.prices import PriceRow, bundled
from bedrock_budget.testing import LocalBedrock, ManualClock

LITELLM = "litellm==1.109.1"
TODAY = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")


BARE = "bare id: LiteLLM has the global price, in-region costs 1.10 x that: ours is right"
NOT_LISTED = "no price is listed; LiteLLM counts input's or nothing, we the dearest that models have: nobody can know"


class Compared(NamedTuple):
    """One record. ``ours``, ``theirs``: pico-USD; None: no price is known."""

    record_id: str
    model_id: str
    ours: int | None
    theirs: int | None
    said: str  # LiteLLM's error
    row: PriceRow | None
    usage: dict[str, int]
    served: Served

    @property
    def equal(self) -> bool:
        """The same, but for the last digits of a floating-point number."""
        return self.ours is not None and self.theirs is not None and abs(self.ours - self.theirs) <= 1


def metered(server: LocalBedrock, records: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any], Served]]:
    """Each record with what the library noted of it, and how it was served."""
    clients: dict[str, PriceKeeperClient] = {}
    served: list[Served] = []
    settle = Call.settle

    def noting(self: Call, *args: Any, **kwargs: Any) -> Any:
        served.append(self.served or DEFAULT)
        return settle(self, *args, **kwargs)

    found: list[tuple[dict[str, Any], dict[str, Any], Served]] = []
    with ExitStack() as stack:
        stack.enter_context(patch.object(Call, "settle", noting))
        for record in records:
            region = region_of(record)
            if region not in clients:
                client = PriceKeeperClient(
                    server.client(region_name=region),
                    org_id="acme",
                    app_id="recorded",
                    config=CONFIG,
                    store="memory://",
                    clock=ManualClock(TODAY),
                )
                clients[region] = stack.enter_context(client)
            serve(server, record)
            found.append((record, call(clients[region], record), served[-1]))
    return found


def region_of(record: dict[str, Any]) -> str:
    return "us-east-1" if record["region"] == "unknown" else str(record["region"])


def compared(records: list[dict[str, Any]], python: str) -> list[Compared]:
    with LocalBedrock() as server:
        ours = metered(server, records)
    asked = [
        {
            "model": record["model_id"],
            "region": region_of(record),
            "tier": None if served.tier == "default" else served.tier,
            **{kind: noted["usage"][f"{kind}_tokens"] for kind in KINDS},
        }
        for record, noted, served in ours
    ]
    theirs = litellm_costs(asked, python)
    found: list[Compared] = []
    for (record, noted, served), question, answer in zip(ours, asked, theirs, strict=True):
        row = bundled().find(record["model_id"], region=question["region"], on=TODAY.date())
        error = answer["error"] if isinstance(answer, dict) else ""
        cost = None if error else _pico(answer)
        found.append(
            Compared(
                record["id"],
                record["model_id"],
                None if row is None else noted["cost_pico_usd"],
                cost,
                error,
                row,
                {kind: question[kind] for kind in KINDS},
                served,
            )
        )
    return found


def litellm_costs(asked: list[dict[str, Any]], python: str) -> list[Any]:
    child = Path(__file__).with_name("litellm_costs.py")
    ran = subprocess.run(
        [python, str(child)],
        input=json.dumps(asked),
        text=True,
        stdout=subprocess.PIPE,
        check=True,
        cwd=tempfile.gettempdir(),
    )
    answers: list[Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return answers


#: What every id is asked for: a short call, one with a cache, a long one with a cache.
USAGES = (Usage(1_000, 200), Usage(1_000, 200, 5_000, 700), Usage(150_000, 900, 130_000, 7_000))


def compared_ids(python: str) -> list[Compared]:
    """Every id of the table that is not of a certain region, for the same few usages."""
    table, cases = bundled(), []
    for model in table.models():
        for profile in sorted({fact.profile or "" for fact in table.facts(model) if fact.region is None}):
            model_id = f"{profile}.{model}" if profile else model
            row = table.find(model_id, region="us-east-1", on=TODAY.date())
            cases += [(model_id, row, usage) for usage in USAGES if row is not None]
    asked = [
        {"model": model_id, "region": "us-east-1", "tier": None, **dict(zip(KINDS, usage, strict=True))}
        for model_id, _, usage in cases
    ]
    return [
        Compared(
            f"{sum(usage)} tokens,",
            model_id,
            row.prices.cost(usage),
            None if isinstance(answer, dict) else _pico(answer),
            answer["error"] if isinstance(answer, dict) else "",
            row,
            dict(zip(KINDS, usage, strict=True)),
            DEFAULT,
        )
        for (model_id, row, usage), answer in zip(cases, litellm_costs(asked, python), strict=True)
    ]


def _pico(parts: list[str]) -> int:
    return round(sum(map(Decimal, parts)) * PICO_PER_USD)


def reason(one: Compared) -> str | None:
    """Why two costs differ, and who is right; None: nobody knows."""
    parsed = parse_model_id(one.model_id)
    if one.ours is None and one.theirs is None:
        return "neither knows a price: the id does not say its model, or it is paid by the hour"
    if one.theirs is None:
        return "LiteLLM knows no price of this id: retired from its map, or an ARN or alias it does not look into"
    if one.row is None or one.ours is None:
        return None
    if one.theirs == 0:
        return "LiteLLM does not know the id and calls it free: ours is right"
    prompt = sum(one.usage.values()) - one.usage["output"]
    rates = dict(zip(KINDS, one.row.prices.served(one.served, prompt).price.rates(), strict=True))
    listed = {fact.kind for fact in bundled().facts(one.row.model) if fact.profile == one.row.profile}
    missing = [kind for kind in KINDS[2:] if one.usage[kind] and kind not in listed]
    # In-region costs 1.10 x the global price, which LiteLLM has under some bare ids.
    for factor, why in ((1, ""), (Fraction(10, 11), BARE if parsed.profile is None else "")):
        for stand_in in (0, rates["input"]):
            seen = {**rates, **dict.fromkeys(missing, stand_in)}
            cost = sum(one.usage[kind] * seen[kind] for kind in KINDS) * factor
            if abs(cost - one.theirs) <= 1 and (why or (missing and factor == 1)):
                parts = [why, f"{' and '.join(missing)}: {NOT_LISTED}" if missing else ""]
                return "; ".join(part for part in parts if part)
    if one.served.latency != DEFAULT.latency:
        return "optimized latency: LiteLLM prices it as standard; no list has it, ours is 1.25 x and marked estimated"
    return None


def python_with_litellm(folder: Path) -> str:
    """An interpreter in a virtual environment with LiteLLM, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if _fails([str(python), "-c", "import litellm"]):
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        if _fails([*pip, LITELLM]):
            # Its bounds may be newer than a mirror of the index: the newest that there is, then.
            subprocess.run([*pip, "--no-deps", LITELLM], check=True)
            code = "import importlib.metadata as m; print('\\n'.join(m.requires('litellm')))"
            needs = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
            names = {re.split(r"[^A-Za-z0-9._\[\]-]", line)[0] for line in needs.splitlines() if "extra ==" not in line}
            subprocess.run([*pip, "httpx[http2]", *sorted(names)], check=True)
    return str(python)


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True, cwd=tempfile.gettempdir()).returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", help="an interpreter that has LiteLLM")
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "bedrock-budget-litellm")
    parser.add_argument("--recorded", type=Path, default=RECORDED)
    parser.add_argument("--ids", action="store_true", help="every id of the price table, instead of recorded calls")
    parser.add_argument("--all", action="store_true", help="print equal ones too")
    options = parser.parse_args()
    python = options.litellm or python_with_litellm(options.venv)
    if options.ids:
        found = compared_ids(python)
    else:
        with gzip.open(options.recorded, "rt", encoding="utf-8") as lines:
            found = compared([record for record in map(json.loads, lines) if record["expected"]], python)
    reasons: collections.Counter[str] = collections.Counter()
    unexplained = 0
    for one in found:
        why = "equal" if one.equal else reason(one)
        unexplained += why is None
        reasons[why or "NO REASON IS KNOWN"] += 1
        if options.all or not one.equal:
            ours, theirs = (
                "no price" if cost is None else f"{cost:,} pico ({usd_text(cost)})" for cost in (one.ours, one.theirs)
            )
            print(f"{one.record_id} {one.model_id}: ours {ours}, LiteLLM {theirs}: {why or 'NO REASON IS KNOWN'}")
    both = [one for one in found if one.ours is not None and one.theirs is not None]
    print(f"\n{len(found)} compared; both know a price of {len(both)}")
    for why, count in reasons.most_common():
        print(f"{count:5}  {why}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())

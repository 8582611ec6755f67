"""Budgets that hold, with real processes, in short; `benchmarks/control.py` does long runs.

Nothing here is judged by the clock: a slow machine makes fewer calls, and the same must be true of them.
"""

from pathlib import Path

import pytest
from enforcement import burn, crowd, kills, traffic
from enforcement.fleet import Stores, environment

from bedrock_budget.testing import LedgerEntry


@pytest.fixture
def stores(dynamodb_endpoint: str, tmp_path: Path) -> Stores:
    return Stores(dynamodb_endpoint, tmp_path)


def killed(stores: Stores, folder: Path, *, journal: bool, sqlite: bool = False) -> kills.Figures:
    with environment():
        run = kills.Run(
            folder,
            stores.new(sqlite=sqlite),
            seed=20261122,
            quota_calls=100,
            workers=3,
            threads=2,
            kills=2,
            secs=6.0,
            journal=journal,
        )
        found = kills.execute(run)
    print(found)
    assert found.broken() == []
    assert found.failed == 0
    assert found.calls > 100  # they cost less than their worst cases
    return found


def test_without_a_journal_a_kill_strands_a_slice_at_most(stores: Stores, tmp_path: Path) -> None:
    found = killed(stores, tmp_path, journal=False)
    assert found.unused < found.worst_case + 2 * found.largest_slice


@pytest.mark.parametrize("sqlite", [False, True], ids=["dynamodb", "sqlite"])
def test_a_replay_makes_all_usable_but_what_was_in_flight(stores: Stores, tmp_path: Path, sqlite: bool) -> None:
    found = killed(stores, tmp_path, journal=True, sqlite=sqlite)
    assert found.stranded <= found.unknown
    assert found.unused < found.worst_case + found.unknown
    assert list((tmp_path / "journal").iterdir()) == []


@pytest.mark.parametrize("sqlite", [False, True], ids=["dynamodb", "sqlite"])
def test_a_hundred_calls_at_once_share_a_budget_for_ten(stores: Stores, sqlite: bool) -> None:
    with environment():
        settings = {"processes": 2, "threads": 50, "budget_calls": 10, "latency_secs": 0.1}
        found = crowd.execute(stores.new(sqlite=sqlite), "strict", **settings)  # type: ignore[arg-type]
    assert found.broken() == []  # never above it, and at least 80 % of it used
    assert (found.calls, found.served, found.failed) == (100, 9, 0)  # the tenth could cost more than is left


def test_what_a_ledger_says_of_an_overshoot() -> None:
    def served(at: float, model: str = traffic.MODEL) -> LedgerEntry:
        usage = traffic.Usage(traffic.INPUT_TOKENS, burn.OUTPUT_TOKENS)
        return LedgerEntry(f"{model} {at}", "Converse", model, usage, at, True, 200)

    # Two of four calls use the quota up, at 2.5; one is in flight then, one begins later.
    entries = [served(at) for at in (1.0, 2.0, 2.4, 2.6)] + [served(2.7, traffic.NEXT_MODEL)]
    found = burn.figures(entries, 2, latency_secs=0.5)
    assert (found.served, found.in_flight, found.crossed_after_secs) == (4, 1, 1.5)
    assert (found.overshoot_pct, found.in_flight_pct) == (50.0, 50.0)
    with pytest.raises(RuntimeError, match="only 4 of 5"):
        burn.figures(entries, 5, latency_secs=0.5)

"""A short run of the fleet under faults and kills; `driver.py` does long ones."""

import random
from pathlib import Path

import pytest
from faults.comparison import Report
from faults.fleet import Run, execute, kills

SECONDS = 6.0
KILLS = 8
WORKERS = 3


def short_run(folder: Path, *, journal: bool) -> Report:
    run = Run(folder, seed=20261122, seconds=SECONDS, kills=KILLS, workers=WORKERS, threads=2, journal=journal)
    report = execute(run)
    print(report.figures)
    assert report.broken == []
    # It did happen.
    assert report.figures["kills"] == KILLS
    assert report.figures["generations"] == WORKERS + KILLS
    assert report.figures["calls returned"] > 200
    assert sum(report.figures["store requests"].values()) > report.figures["store requests"]["passed on"]
    return report


@pytest.mark.usefixtures("dynamodb_endpoint")  # skips where there is no engine
def test_with_journals_the_shards_are_the_calls_that_returned(tmp_path: Path) -> None:
    report = short_run(tmp_path, journal=True)
    assert report.figures["calls in flight at a kill"] > 0
    assert any((tmp_path / "kept").iterdir())


@pytest.mark.usefixtures("dynamodb_endpoint")
def test_without_a_journal_nothing_is_counted_twice_and_little_is_lost(tmp_path: Path) -> None:
    report = short_run(tmp_path, journal=False)
    assert report.figures["lost pico-USD, by key at least"] > 0  # or the kills killed nothing


def test_kills_are_what_the_seed_says() -> None:
    run = Run(Path(), seed=1, seconds=60, kills=40)
    planned = kills(run, random.Random(run.seed))
    assert planned == kills(run, random.Random(run.seed))
    assert len(planned) == run.kills
    assert {place for _, place, _ in planned} == set(range(run.workers))
    assert planned == sorted(planned)
    assert all(0 < at <= run.seconds for at, _, _ in planned)
    assert 0 < sum(in_write for _, _, in_write in planned) < run.kills / 2

"""The simulated fleet: it is what it says it is, keeps what the library promises, and the page says what it prints."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import fleet_model, overshoot
from benchmarks.fleet_model import CALL_COST, CALL_USAGE, WRITE_UNIT_BYTES, Fleet, Scenario, predict, simulate

from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DynamoDBStore

PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "overshoot.md"
SMALL = Scenario(10, 60, calls=2_000)
#: Of the fleets on the page, those that take no long time to simulate.
QUICK = [
    (1, 28_800),
    (10, 28_800),
    (1, 3_600),
    (10, 3_600),
    (100, 3_600),
    (10, 600),
    (100, 600),
    (1_000, 600),
    (10, 60),
]


def kinds() -> Iterator[Scenario]:
    for processes in (1, 7, 100):
        for burn_secs in (10, 300, 4_000):
            yield Scenario(processes, burn_secs, calls=1_000)
    for changes in (
        {"skewed": True},
        {"aggregator": False},
        {"flush_secs": 5.0},
        {"latency_secs": 0.0},
        {"sync": True},
        {"refresh": "fixed"},
        {"shard_count": 1},
    ):
        yield replace(SMALL, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("scenario", list(kinds()), ids=str)
def test_nothing_is_lost_and_every_process_ends_up_on_the_next_label(scenario: Scenario) -> None:
    fleet = Fleet(scenario)
    result = fleet.run()
    assert sum(shard.cost for shard in fleet.store.shards) == fleet.settled == result.started * CALL_COST
    assert fleet.still_here == 0 or all(each.moved or not each.known for each in fleet.processes)
    assert not any(label.account.dirty for each in fleet.processes for label in each.labels)
    assert sum(len(shard.writers) for shard in fleet.store.shards) <= scenario.processes
    for process in fleet.processes:
        assert fleet.store.shards[process.shard].writers.get(process.writer_id, 0) == process.sequence
    assert 0 <= result.in_flight <= result.started
    assert result.writes <= result.started


@pytest.mark.parametrize("scenario", [SMALL, replace(SMALL, refresh="fixed", sync=True)], ids=["adaptive", "fixed"])
def test_the_same_scenario_gives_the_same_result(scenario: Scenario) -> None:
    assert simulate(scenario) == simulate(scenario)
    assert simulate(scenario) != simulate(replace(scenario, seed=2))


def test_one_process_alone_knows_its_own_spend_and_overshoots_by_nothing() -> None:
    result = simulate(Scenario(1, 60))
    assert result.overshoot_pct == 0
    assert result.started == 20_000 + result.in_flight


def test_calls_in_flight_are_those_that_the_latency_and_the_rate_make() -> None:
    assert simulate(Scenario(10, 60, latency_secs=3.0)).in_flight_pct == pytest.approx(100 * 3 / 60, rel=0.1)
    assert simulate(Scenario(10, 60, latency_secs=0.0)).in_flight == 0


def test_with_one_write_a_request_there_are_as_many_writes_as_requests() -> None:
    result = simulate(replace(SMALL, sync=True))
    assert result.writes == result.started


def test_an_item_takes_a_second_write_unit_when_its_writers_do_not_fit_one() -> None:
    store = fleet_model.Store(1)
    units = []
    for writer in range(100):
        before = store.write_units
        store.add(store.shards[0], f"w{writer:010d}", 1, CALL_COST, now=0.0)
        units.append(store.write_units - before)
    assert units[0] == 2  # the item, and its entry in the index
    fit = units.index(2, 1)
    assert store.shards[0].size == fleet_model.item_bytes(0) + 100 * (11 + 2)
    assert fleet_model.item_bytes(0) + fit * 13 <= WRITE_UNIT_BYTES < fleet_model.item_bytes(0) + (fit + 1) * 13
    assert set(units[fit:]) == {2}
    before = store.write_units
    store.add(store.shards[0], "w0000000000", 2, CALL_COST, now=3_600.0)
    assert store.write_units - before == 2 + 2  # in another hour the index entry is put and the old one deleted


def test_an_engine_bills_what_the_model_counts(dynamodb_store: DynamoDBStore) -> None:
    model = fleet_model.Store(1)
    key = UsageKey(fleet_model.SCOPE, "premium", fleet_model.DAY)
    noon = 12 * 3_600.0
    differences = 0
    for number in range(150):
        writer_id = f"w{number:010d}"
        # Counters as large as the model's from the start.
        amounts = Amounts(10**15, Usage(*[10**7] * 5), 10**4) if number == 0 else Amounts(CALL_COST, CALL_USAGE, 1)
        dynamodb_store.consumed.reset()
        dynamodb_store.write_batch(
            Batch(key, writer_id, 1, 0, 8, amounts), now_epoch=fleet_model.STARTS_AT_EPOCH + noon
        )
        billed = float(dynamodb_store.consumed.units().write_units)
        before = model.write_units
        model.add(model.shards[0], writer_id, 1, CALL_COST, noon)
        differences += billed != model.write_units - before
    assert differences <= 2 * 3  # where an item grows by a unit, within three writers of the engine's
    for read, counted in (
        (lambda: dynamodb_store.read_shards({key: 8}), 8),
        (lambda: dynamodb_store.read_totals([key]), fleet_model.TOTAL_READ_UNITS),
        (
            lambda: dynamodb_store.read_controls("acme", "chat", scope=key.scope, day=key.day, now_epoch=0.0),
            fleet_model.CONTROLS_READ_UNITS,
        ),
    ):
        dynamodb_store.consumed.reset()
        read()
        assert float(dynamodb_store.consumed.units().read_units) == counted


def test_a_prediction_is_a_simulation_of_the_defaults() -> None:
    result = predict(processes=8, burn_secs=60, latency_secs=0.3, calls=4_000)
    assert result == simulate(Scenario(8, 60, 0.3, 4_000))
    assert 0 <= result.overshoot_pct <= overshoot.MOST_PCT_IN_A_MINUTE


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("aggregator", [False, True])
@pytest.mark.parametrize(("processes", "burn_secs"), [(2, 600), (10, 60), (30, 600)])
def test_a_quota_is_overshot_by_little(processes: int, burn_secs: float, skewed: bool, aggregator: bool) -> None:
    for seed in (11, 12):
        result = simulate(Scenario(processes, burn_secs, skewed=skewed, aggregator=aggregator, seed=seed))
        most = overshoot.MOST_PCT_IN_A_MINUTE if burn_secs == 60 else overshoot.MOST_PCT
        assert result.overshoot_pct <= most


@pytest.mark.parametrize(("processes", "burn_secs"), QUICK)
def test_the_page_says_what_the_command_prints_and_the_defaults_keep_what_is_promised(
    processes: int, burn_secs: float
) -> None:
    row = overshoot.row(processes, burn_secs)
    assert str(row) in PAGE.read_text().splitlines()
    assert list(row.faults()) == []


def test_the_page_is_written_by_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(overshoot, "PROCESSES", (2,))
    monkeypatch.setattr(overshoot, "BURNS", {60: "1 min"})
    monkeypatch.setattr(overshoot, "variations", lambda seed: iter(["| a line |"]))
    monkeypatch.setattr("sys.argv", ["overshoot.py", "--write", str(tmp_path / "page.md")])
    assert overshoot.main() == 0
    written = (tmp_path / "page.md").read_text().splitlines()

    def prose(lines: list[str]) -> list[str]:
        return [line for line in lines if not line.startswith("|") and " times as much" not in line]

    assert prose(written) == prose(PAGE.read_text().splitlines())
    assert str(overshoot.row(2, 60)) in written


def test_what_is_missed_is_said() -> None:
    row = overshoot.row(2, 600)
    too_much = replace(row.adaptive, started=row.adaptive.started + 1_000)
    too_dear = replace(row.adaptive, units=row.fixed.units._replace(write=10**6))
    assert [fault.split(": ")[1][:8] for fault in row._replace(adaptive=too_much).faults()] == ["overshot"]
    assert [fault.split(": ")[1][:5] for fault in row._replace(adaptive=too_dear).faults()] == ["costs"]

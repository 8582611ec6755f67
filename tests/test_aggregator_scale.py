"""What a pass costs grows with what was written since the one before, not with what there is."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from benchmarks.aggregator_scale import Fleet

from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.usage import Usage
from bedrock_budget.writers import new_writer_id

KEYS, SHARDS = 70, 8
#: A slot of the index, and what clocks and the index may be apart.
INTERVALS_TO_IDLE = 13


@pytest.fixture
def fleet(dynamodb_endpoint: str, table_prefix: str) -> Iterator[Fleet]:
    fleet = Fleet(dynamodb_endpoint, table_prefix, KEYS, SHARDS)
    yield fleet
    fleet.close()


def costs(fleet: Fleet) -> set[int]:
    return {total.amounts.cost_pico_usd for total in fleet.store.read_totals(fleet.keys).values()}


def test_a_pass_costs_a_read_unit_a_shard_and_a_write_unit_a_total(fleet: Fleet) -> None:
    nothing = fleet.run_pass(0)
    fleet.write(fleet.keys, 1)
    cost = fleet.run_pass()
    assert (cost.done.keys, cost.done.totals_written) == (KEYS, KEYS)
    assert cost.write_units == KEYS
    assert KEYS * SHARDS <= cost.read_units <= KEYS * SHARDS + nothing.read_units
    assert costs(fleet) == {SHARDS * 1_400_000}


def test_keys_idle_for_two_slots_cost_nothing_and_active_ones_are_never_late(fleet: Fleet) -> None:
    active = [fleet.keys[0], fleet.keys[-1]]
    fleet.write(fleet.keys, 1)
    first = fleet.run_pass(0)
    assert first.done.keys == KEYS
    for passes in range(2, 23):  # the first pass was at one minute past
        fleet.write(active, passes)
        cost = fleet.run_pass()
        found = fleet.store.read_totals(active)
        assert {total.amounts.requests for total in found.values()} == {passes * SHARDS}
    assert cost.done.keys == len(active)
    assert cost.write_units == len(active)
    assert cost.read_units - len(active) * SHARDS <= 0.05 * KEYS * (SHARDS + 1)


def test_a_pass_over_idle_keys_costs_no_more_than_one_over_no_keys(fleet: Fleet) -> None:
    for _ in range(2):
        fleet.run_pass(0)
    for _ in range(INTERVALS_TO_IDLE):
        nothing = fleet.run_pass()
    fleet.clock.advance(3600 - INTERVALS_TO_IDLE * 60)  # the same minute of the next hour
    fleet.write(fleet.keys, 1)
    assert fleet.run_pass(0).done.keys == KEYS
    for _ in range(INTERVALS_TO_IDLE):
        idle = fleet.run_pass()
    assert idle.read_units == nothing.read_units <= 20
    assert (idle.done.keys, idle.write_units) == (0, 0)


@pytest.mark.parametrize(("at_minute", "slow_minutes"), [(12, 59), (55, 30)])
def test_the_first_pass_of_an_hour_finds_what_a_slow_clock_has_marked_in_the_past(
    fleet: Fleet, at_minute: int, slow_minutes: int
) -> None:
    fleet.clock.advance(3600)
    fleet.run_pass(0)
    fleet.run_pass((at_minute - fleet.clock.now().minute) * 60)
    now = fleet.clock.now()
    fleet.clock.set(now - timedelta(minutes=slow_minutes))
    fleet.write(fleet.keys, 1)
    fleet.clock.set(now)
    assert fleet.run_pass().done.keys == 0
    minutes = 60 - fleet.clock.now().minute
    assert [fleet.run_pass().done.keys for _ in range(minutes)][-1] == KEYS


def test_a_key_that_is_written_once_is_summed_by_the_next_pass_whenever_that_is(fleet: Fleet) -> None:
    fleet.run_pass(0)
    for number, key in enumerate(fleet.keys[:40]):
        fleet.clock.advance(97 * number % 1301)
        fleet.write([key], 1)
        fleet.run_pass(41)
        assert len(costs(fleet)) == 1
        assert len(fleet.store.read_totals(fleet.keys)) == number + 1


def test_a_shard_beyond_those_configured_is_not_forgotten_while_it_is_idle(fleet: Fleet) -> None:
    key = fleet.keys[0]
    batch = Batch(key, new_writer_id(), 1, 12, 16, Amounts(7, Usage(), 1))
    fleet.store.write_batch(batch, now_epoch=fleet.clock.now().timestamp())
    fleet.run_pass(0)
    for _ in range(30):
        fleet.run_pass()
    later = Batch(key, new_writer_id(), 1, 3, 8, Amounts(5, Usage(), 1))
    fleet.store.write_batch(later, now_epoch=fleet.clock.now().timestamp())
    fleet.run_pass()
    assert fleet.store.read_totals([key])[key].amounts.cost_pico_usd == 12

"""How far a burst takes a quota: own spend that nobody expected brings the next look forward."""

import pytest
from doubles import ByHand, UnreliableStore, config

from bedrock_budget import BudgetExhausted
from bedrock_budget.testing import LocalBedrock, ManualClock

QUOTA = 100_000_000
CONFIG = config(model_ordering=["premium"], quotas={"premium": QUOTA})
STEP_SECS = 0.25


def be_quiet(processes: list[ByHand], clock: ManualClock, secs: float) -> None:
    for _ in range(round(secs / 5)):
        clock.advance(5)
        look_where_due(processes, clock)


def look_where_due(processes: list[ByHand], clock: ManualClock) -> None:
    for process in processes:
        if process.day.due_at <= clock.monotonic():
            process.look()


def test_a_burst_after_a_quiet_hour_is_looked_at_at_once(manual_clock: ManualClock) -> None:
    process = ByHand(UnreliableStore(), manual_clock, CONFIG)
    process.admit()
    be_quiet([process], manual_clock, 3600)
    assert process.day.schedule.interval_secs == 300
    process.spend(QUOTA // 100)
    process.write()
    process.keeper.meter.on_written()
    assert process.day.due_at <= manual_clock.monotonic()
    process.look()
    assert process.day.schedule.interval_secs == 1
    process.keeper.meter.on_written()  # what has been looked at is no surprise
    assert process.day.due_at > manual_clock.monotonic()


def test_what_was_expected_brings_no_look_forward(manual_clock: ManualClock) -> None:
    process = ByHand(UnreliableStore(), manual_clock, CONFIG)
    process.admit()
    for _ in range(400):  # a steady 0.1 % every 5 s
        process.spend(QUOTA // 1000)
        process.write()
        process.keeper.meter.on_written()
        manual_clock.advance(5)
        look_where_due([process], manual_clock)
        if process.day.schedule.interval_secs == 300:
            break
    due_at = process.day.due_at
    process.spend(QUOTA // 1000)
    process.write()
    process.keeper.meter.on_written()
    assert process.day.due_at == due_at


def test_fixed_intervals_stay_fixed(manual_clock: ManualClock) -> None:
    process = ByHand(UnreliableStore(), manual_clock, CONFIG, refresh="fixed")
    process.admit()
    due_at = process.day.due_at
    process.spend(QUOTA // 10)
    process.write()
    process.keeper.meter.on_written()
    assert process.day.due_at == due_at


@pytest.mark.parametrize("quiet_secs", [0, 3600])
@pytest.mark.parametrize("count", [1, 10])
def test_a_quota_burnt_in_a_minute_is_overshot_by_little(
    manual_clock: ManualClock, count: int, quiet_secs: float
) -> None:
    store = UnreliableStore()
    processes = [ByHand(store, manual_clock, CONFIG) for _ in range(count)]
    for process in processes:
        process.admit()
    be_quiet(processes, manual_clock, quiet_secs)
    a_step = int(QUOTA / 60 * STEP_SECS / count)
    spent = 0
    step = 0
    working = set(processes)
    while working:
        step += 1
        for number, process in enumerate(processes):
            try:
                process.spend(a_step)
                spent += a_step
            except BudgetExhausted:
                working.discard(process)
            if (step + number) % 4 == 0:  # a write a second, each process at its own time
                process.write()
                process.keeper.meter.on_written()
        manual_clock.advance(STEP_SECS)
        look_where_due(processes, manual_clock)
    assert QUOTA <= spent <= QUOTA * 1.03


def test_the_background_thread_asks_after_each_write(local_bedrock: LocalBedrock) -> None:
    from doubles import wait_until
    from metered import HELLO, metered

    with metered(local_bedrock) as bedrock:
        asked: list[bool] = []
        bedrock._keeper.meter.on_written = lambda: asked.append(True)
        bedrock.converse(messages=HELLO)
        wait_until(lambda: asked)

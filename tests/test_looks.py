"""What one look at the store reads, changes and schedules. Time stands still unless a test moves it."""

import logging
from contextlib import suppress
from typing import Any

import pytest
from doubles import AWAY, CHAIN, ByHand, UnreliableStore, config, stored, usage_key

from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.errors import ConfigError
from bedrock_budget.core.keys import UsageKey, shard_of
from bedrock_budget.core.money import PICO_PER_MICRO
from bedrock_budget.core.usage import Usage
from bedrock_budget.errors import BudgetExhausted
from bedrock_budget.stores import DailyTotal, Override, Sticky
from bedrock_budget.testing import ManualClock

DAY_ENDS = 1768521600  # 2026-01-16T00:00Z; the manual clock starts twelve hours before
OTHER_WRITER = "wother-----"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def process(store: UnreliableStore, clock: ManualClock) -> ByHand:
    return ByHand(store, clock)


class Others:
    """The rest of the fleet: spends straight into the shards."""

    def __init__(self, store: UnreliableStore) -> None:
        self._store = store
        self._sequence = 0

    def spend(self, usd_micros: int, label: str = "premium", day: str = "20260115") -> None:
        self._sequence += 1
        amounts = Amounts(usd_micros * PICO_PER_MICRO, Usage(usd_micros), 1)
        shard = shard_of(OTHER_WRITER, 8)
        batch = Batch(usage_key(label, day), OTHER_WRITER, self._sequence, shard, 8, amounts)
        self._store.inner.write_batch(batch, now_epoch=DAY_ENDS - 43200)


@pytest.fixture
def others(store: UnreliableStore) -> Others:
    return Others(store)


def write_totals(store: UnreliableStore, at_epoch: float) -> None:
    """What an aggregator's pass that began at this time writes."""
    for label in CHAIN:
        amounts = stored(store, usage_key(label))
        store.inner.write_total(usage_key(label), DailyTotal(amounts, int(at_epoch)))


def names(store: UnreliableStore) -> list[str]:
    """The reads since the last time."""
    done = [name for name, _ in store.calls if name.startswith("read_")]
    store.calls.clear()
    return done


def now_epoch(process: ByHand) -> float:
    return process.clock.now().timestamp()


# --- the schedule


def test_intervals_double_from_one_second_to_the_normal_one(process: ByHand) -> None:
    process.admit()
    spend_looks = [process.day.schedule.interval_secs]
    for _ in range(20):
        process.look_when_due()
        if process.day.schedule.interval_secs != spend_looks[-1]:
            spend_looks.append(process.day.schedule.interval_secs)
    assert spend_looks == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_controls_are_read_every_50_s_however_rare_looks_at_spend_are(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.admit()
    while process.day.schedule.interval_secs != 300:
        process.look_when_due()
    names(store)
    gaps = [process.look_when_due() for _ in range(12)]
    assert gaps == [50] * 12
    reads = names(store)
    assert reads.count("read_controls") == 12
    assert reads.count("read_totals") == 2


def test_no_call_goes_by_controls_that_are_older_than_55_s(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.admit()
    while process.day.schedule.interval_secs != 300:
        process.look_when_due()
    while process.day.due_at != process.day.schedule.due_at_secs:
        process.look_when_due()
    process.look_when_due()  # the next 50 s are those of controls
    store.calls.clear()
    clock.advance(54.999)  # the thread that looks is late
    process.admit()
    assert store.count("read_controls") == 0
    clock.advance(0.001)
    process.admit()
    assert store.count("read_controls") == 1


def test_no_call_of_a_busy_fleet_goes_by_a_look_that_is_late(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.admit()
    store.calls.clear()
    clock.advance(5.999)  # the second look is due after 1 s
    process.admit()
    assert store.count("read_shards") == 0
    clock.advance(0.001)
    process.admit()
    assert store.count("read_shards") == 1


@pytest.mark.parametrize("rate", [1, 3, 7])
def test_a_look_is_never_later_than_half_the_time_in_which_the_fleet_burns_what_is_left(
    process: ByHand, others: Others, clock: ManualClock, rate: int
) -> None:
    process.admit()
    for _ in range(8):
        secs = process.day.due_at - clock.monotonic()
        clock.advance(secs)
        others.spend(round(rate * secs))
        process.look()
    settled = process.day.snapshot.chain[0].account.spend
    left_secs = (1000 * PICO_PER_MICRO - settled) / (rate * PICO_PER_MICRO)
    interval = process.day.schedule.interval_secs
    assert interval is not None
    assert 0.5 <= interval <= max(left_secs / 2, 0.5) * 1.1


def test_looks_are_at_least_half_a_second_apart(process: ByHand, others: Others) -> None:
    process.admit()
    others.spend(400)
    process.look_when_due()
    others.spend(590)
    assert process.look_when_due() >= 0.5
    assert process.day.schedule.interval_secs == 0.5
    assert process.look_when_due() == 0.5


def test_a_label_that_callers_name_is_looked_at_in_time_though_it_is_not_in_force(
    process: ByHand, others: Others, clock: ManualClock
) -> None:
    process.admit()
    while process.day.schedule.interval_secs != 300:
        process.look_when_due()
    process.look_when_due()
    for _ in range(5):
        clock.advance(60)
        process.spend(1, "economy")
        others.spend(60, "economy")
        process.look()
    interval = process.day.schedule.interval_secs
    assert interval is not None
    assert interval <= 700  # a rate of about 1 a second, 700 left
    others.spend(600, "economy")
    clock.advance(300)
    process.look()
    assert process.day.schedule.interval_secs is not None
    assert process.day.schedule.interval_secs < 30


def test_a_label_outside_the_ordering_with_a_quota_of_its_own_is_looked_at_in_time(
    store: UnreliableStore, clock: ManualClock, others: Others
) -> None:
    process = ByHand(store, clock, config(quotas={"premium": None, "standard": 1, "economy": 1, "embed": 1000}))
    process.admit()
    while process.day.schedule.interval_secs != 300:
        process.look_when_due()
    clock.advance(300)
    others.spend(900, "embed")
    process.look()
    assert process.day.schedule.interval_secs is not None
    assert process.day.schedule.interval_secs <= 100 / 3 / 2 * 1.1


def test_the_fixed_schedule_is_the_specifications(store: UnreliableStore, clock: ManualClock, others: Others) -> None:
    process = ByHand(store, clock, refresh="fixed")
    process.admit()
    assert process.day.schedule.interval_secs == 300
    assert [process.look_when_due() for _ in range(6)] == [50] * 6  # controls
    others.spend(949)
    process.look_at_spend()
    assert process.day.schedule.interval_secs == 300
    others.spend(1)
    process.look_at_spend()
    assert process.day.schedule.interval_secs == 60
    assert process.admit().record["mode"] == "tight"


def test_when_all_is_used_up_only_controls_matter(process: ByHand, others: Others, store: UnreliableStore) -> None:
    for label in CHAIN:
        others.spend(1000, label)
    with pytest.raises(BudgetExhausted):
        process.admit()
    assert process.day.schedule.interval_secs == 60
    assert [process.look_when_due() for _ in range(4)] == [50, 10, 50, 10]


def test_an_unlimited_label_in_force_needs_no_hurry(store: UnreliableStore, clock: ManualClock, others: Others) -> None:
    process = ByHand(store, clock, config(quotas={"premium": None, "standard": 5, "economy": 5}))
    process.admit()
    for _ in range(20):
        others.spend(10**9)
        process.look_when_due()
    assert process.day.schedule.interval_secs == 300
    assert process.admit().record["mode"] == "normal"


def test_after_the_last_look_of_a_failed_series_the_pauses_double_up_to_50_s(
    process: ByHand, store: UnreliableStore
) -> None:
    process.admit()
    store.go_away()
    process.look_when_due()
    assert [process.look_when_due() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 50, 50]
    store.come_back()
    process.look_when_due()
    assert not process.day.degraded
    assert process.day.failures == 0


# --- where the figures come from


def calm(process: ByHand) -> None:
    """Go on until looks are a minute apart or more."""
    while (process.day.schedule.interval_secs or 0) < 60:
        process.look_when_due()


def test_the_first_look_and_frequent_ones_sum_the_shards(process: ByHand, store: UnreliableStore) -> None:
    process.admit()
    assert names(store) == ["read_controls", "read_prices", "read_shards"]  # prices: once in a quarter of an hour
    process.look_when_due()
    assert names(store) == ["read_controls", "read_shards"]


def test_below_60_percent_the_daily_total_is_enough_above_it_the_shards_are_summed(
    process: ByHand, store: UnreliableStore, others: Others
) -> None:
    process.admit()
    calm(process)
    for spent, expected in ((100, "read_totals"), (499, "read_totals"), (1, "read_shards")):
        others.spend(spent)
        write_totals(store, now_epoch(process) + process.day.schedule.due_at_secs - process.clock.monotonic())
        process.look_at_spend()  # this one learns of the spend
        calm(process)
        write_totals(store, now_epoch(process) + process.day.schedule.due_at_secs - process.clock.monotonic())
        names(store)
        process.look_at_spend()
        assert expected in names(store)
    assert process.day.snapshot.chain[0].account.spend == 600 * PICO_PER_MICRO


def test_a_daily_total_that_is_missing_or_older_than_three_intervals_is_not_trusted(
    process: ByHand, store: UnreliableStore, others: Others, clock: ManualClock
) -> None:
    process.admit()
    calm(process)
    names(store)
    process.look_at_spend()
    assert names(store) == ["read_controls", "read_totals", "read_shards"]
    for age, expected in ((180, []), (181, ["read_shards"])):
        calm(process)
        write_totals(store, now_epoch(process) + process.day.schedule.due_at_secs - clock.monotonic() - age)
        names(store)
        process.look_at_spend()
        assert names(store) == ["read_controls", "read_totals", *expected]


def test_own_usage_that_a_total_may_lack_still_counts(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.admit()
    calm(process)
    process.spend(10)
    process.write()  # acknowledged now
    before = stored(store, usage_key())
    clock.advance(process.day.schedule.due_at_secs - clock.monotonic())
    for label in CHAIN:
        amounts = Amounts(0, Usage(), 0) if label == "premium" else stored(store, usage_key(label))
        # A pass that began four seconds after the write, by a clock that goes five seconds wrong.
        store.inner.write_total(usage_key(label), DailyTotal(amounts, int(now_epoch(process))))
    process.look()
    assert before.cost_pico_usd == 10 * PICO_PER_MICRO
    assert process.day.snapshot.chain[0].account.spend == 10 * PICO_PER_MICRO


def test_labels_without_a_quota_are_never_worth_a_sum_of_shards(
    store: UnreliableStore, clock: ManualClock, others: Others
) -> None:
    process = ByHand(store, clock, config(quotas=dict.fromkeys(CHAIN)))
    process.admit()
    names(store)
    others.spend(7)
    process.look_when_due()
    assert names(store) == ["read_controls", "read_totals"]
    write_totals(store, now_epoch(process))
    process.look_when_due()
    assert process.day.snapshot.chain[0].account.spend == 7 * PICO_PER_MICRO


def test_labels_that_no_call_can_go_to_any_more_are_not_read(
    process: ByHand, store: UnreliableStore, others: Others
) -> None:
    others.spend(1000, "premium")
    process.admit()
    store.calls.clear()
    process.look_when_due()
    calm(process)
    store.calls.clear()
    process.look_at_spend()
    (asked,) = [subject for name, subject in store.calls if name == "read_shards"]
    assert set(asked) == {usage_key("standard"), usage_key("economy")}


def asked_for(store: UnreliableStore) -> set[UsageKey]:
    """The labels read since the last time."""
    done = [subject for name, subject in store.calls if name in {"read_shards", "read_totals"}]
    store.calls.clear()
    return {key for subject in done for key in subject}


def test_frequent_looks_read_only_the_label_in_force_and_those_that_calls_go_to(
    process: ByHand, store: UnreliableStore
) -> None:
    process.admit()
    assert asked_for(store) == {usage_key(label) for label in (*CHAIN, "embed")}
    process.look_when_due()
    assert asked_for(store) == {usage_key("premium")}
    process.spend(1, "economy")
    process.look_when_due()
    assert asked_for(store) == {usage_key("premium"), usage_key("economy")}


@pytest.mark.parametrize("sticky_fallback", [True, False])
def test_the_look_that_shows_a_label_over_reads_the_next_one(
    store: UnreliableStore, clock: ManualClock, others: Others, sticky_fallback: bool
) -> None:
    process = ByHand(store, clock, config(sticky_fallback_enabled=sticky_fallback))
    process.admit()
    process.look_when_due()
    others.spend(1000, "premium")
    others.spend(1000, "standard")
    process.look_when_due()
    assert process.goes_to()[0] == "economy"


# --- the sticky state


def sticky(store: UnreliableStore) -> Sticky | None:
    found = store.inner.read_controls("acme", "chat", scope="ORG#acme#APP#chat", day="20260115", now_epoch=0)
    return found.sticky


def test_the_sticky_state_moves_when_the_shards_show_the_label_over(
    process: ByHand, store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    process.spend(999)
    process.look_when_due()
    assert sticky(store) is None
    process.spend(1)
    assert process.goes_to() == ("standard", "quota")
    process.look_when_due()
    assert sticky(store) is None  # effective spend says so, the shards do not yet
    assert process.day.schedule.interval_secs == 0.5
    process.write()
    process.look_when_due()
    moved = sticky(store)
    assert moved == Sticky("standard", 1, "QUOTA_EXCEEDED", "premium", int(now_epoch(process)), DAY_ENDS + 3600)
    assert process.goes_to() == ("standard", "sticky")
    assert "has used up premium on $0.001" in caplog.text


def test_two_labels_at_once_are_passed_in_one_move(process: ByHand, store: UnreliableStore, others: Others) -> None:
    others.spend(1000, "premium")
    others.spend(1000, "standard")
    assert process.goes_to() == ("economy", "sticky")
    moved = sticky(store)
    assert moved is not None
    assert (moved.label, moved.position) == ("economy", 2)


def test_callers_of_a_later_label_never_move_it(process: ByHand, store: UnreliableStore, others: Others) -> None:
    others.spend(1000, "standard")
    assert process.goes_to("standard") == ("economy", "quota")
    for _ in range(5):
        process.look_when_due()
    assert sticky(store) is None
    assert process.goes_to() == ("premium", "default")


def test_bodies_that_cannot_go_on_never_move_it(store: UnreliableStore, clock: ManualClock, others: Others) -> None:
    labels = {
        "premium": {"id": "anthropic.claude-sonnet-4-5-20250929-v1:0"},
        "standard": {"id": "amazon.nova-pro-v1:0"},
        "economy": {"id": "anthropic.claude-haiku-4-5-20251001-v1:0"},
    }
    process = ByHand(store, clock, {**config(), "model_labels": labels}, on_unknown_price="track")
    others.spend(1000, "premium")
    call = process.keeper.admit(process.scope, "premium", "InvokeModel", {}, fixed_body=True)
    assert call.record["label"] == "economy"
    process.look_when_due()
    moved = sticky(store)
    assert moved is not None
    assert moved.label == "standard"  # by spend alone


def test_when_the_last_label_is_over_it_stays(process: ByHand, store: UnreliableStore, others: Others) -> None:
    for label in CHAIN:
        others.spend(1000, label)
    with pytest.raises(BudgetExhausted):
        process.admit()
    process.look_when_due()
    assert sticky(store) is None
    assert not process.day.schedule.sticky_is_due


def test_a_raised_quota_of_an_earlier_label_keeps_it_where_it_is(
    process: ByHand, store: UnreliableStore, others: Others
) -> None:
    others.spend(1000, "premium")
    assert process.goes_to() == ("standard", "sticky")
    store.put_config("acme", "chat", {"quotas": {"premium": 5000}})
    others.spend(1000, "standard")
    for _ in range(4):
        process.look_when_due()
    assert process.goes_to() == ("economy", "quota")
    moved = sticky(store)
    assert moved is not None
    assert moved.label == "standard"


def test_who_loses_the_race_follows_the_winner(process: ByHand, store: UnreliableStore, others: Others) -> None:
    process.admit()
    others.spend(1000, "premium")
    further = Sticky("economy", 2, "QUOTA_EXCEEDED", "standard", 0, DAY_ENDS)

    def race(name: str, subject: Any) -> None:
        if name == "advance_sticky":
            store.inner.advance_sticky("ORG#acme#APP#chat", "20260115", further)

    store.fails = race
    process.look_when_due()
    assert sticky(store) == further
    assert process.goes_to() == ("economy", "sticky")


def test_the_sticky_state_of_others_is_followed_at_the_next_look(process: ByHand, store: UnreliableStore) -> None:
    assert process.goes_to() == ("premium", "default")
    store.inner.advance_sticky(
        "ORG#acme#APP#chat", "20260115", Sticky("standard", 1, "QUOTA_EXCEEDED", "premium", 0, DAY_ENDS)
    )
    process.look_when_due()
    assert process.goes_to() == ("standard", "sticky")
    assert process.goes_to("economy") == ("economy", "requested")
    assert process.goes_to("premium") == ("standard", "sticky")


def test_the_sticky_label_counts_by_its_name_and_not_by_its_place(process: ByHand, store: UnreliableStore) -> None:
    process.admit()
    scope = "ORG#acme#APP#chat"
    store.inner.advance_sticky(scope, "20260115", Sticky("standard", 1, "QUOTA_EXCEEDED", "premium", 0, DAY_ENDS))
    store.put_config("acme", "chat", {"model_ordering": ["economy", "premium", "standard"]})
    process.look_when_due()
    assert process.goes_to() == ("standard", "sticky")
    store.put_config("acme", "chat", {"model_ordering": ["economy", "premium"]})
    process.look_when_due()
    assert process.goes_to() == ("economy", "default")  # that label is gone from the ordering


def test_without_sticky_fallback_none_is_written_nor_followed(
    store: UnreliableStore, clock: ManualClock, others: Others
) -> None:
    store.inner.advance_sticky(
        "ORG#acme#APP#chat", "20260115", Sticky("economy", 2, "QUOTA_EXCEEDED", "premium", 0, DAY_ENDS)
    )
    process = ByHand(store, clock, config(sticky_fallback_enabled=False))
    assert process.goes_to() == ("premium", "default")
    others.spend(1000, "premium")
    process.look_when_due()
    assert process.goes_to() == ("standard", "quota")
    assert store.count("advance_sticky") == 0


# --- overrides and Config items


def override(label: str, until: float) -> Override:
    return Override(label, "incident 7", "ann", 0, int(until))


def test_an_override_is_followed_within_a_minute_and_ends_at_once(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.admit()
    while process.day.schedule.interval_secs != 300:
        process.look_when_due()
    until = now_epoch(process) + 120
    store.put_override("acme", "chat", override("economy", until))
    assert process.look_when_due() <= 60
    assert process.goes_to() == ("economy", "override")
    assert process.goes_to("premium") == ("economy", "override")
    assert process.goes_to("embed") == ("embed", "requested")  # outside the ordering
    clock.advance(until - now_epoch(process) - 0.001)
    assert process.goes_to() == ("economy", "override")
    clock.advance(0.001)
    assert process.goes_to() == ("premium", "default")  # without a look


def test_an_override_that_is_cleared_is_gone_within_a_minute(process: ByHand, store: UnreliableStore) -> None:
    store.put_override("acme", None, override("standard", DAY_ENDS))
    assert process.goes_to() == ("standard", "override")
    store.clear_override("acme", None)
    process.look_when_due()
    assert process.goes_to() == ("premium", "default")


def test_an_override_goes_before_quotas(process: ByHand, store: UnreliableStore, others: Others) -> None:
    others.spend(5000, "premium")
    store.put_override("acme", "chat", override("premium", DAY_ENDS))
    assert process.goes_to() == ("premium", "override")


def test_an_override_to_an_unknown_label_is_reported_once_and_not_followed(
    process: ByHand, store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put_override("acme", "chat", override("gone", DAY_ENDS))
    assert process.goes_to() == ("premium", "default")
    for _ in range(3):
        process.look_when_due()
    assert caplog.text.count("names an unknown label: 'gone'") == 1


def test_a_raised_quota_and_a_cleared_sticky_state_take_effect_within_a_minute(
    process: ByHand, store: UnreliableStore, others: Others
) -> None:
    others.spend(1000, "premium")
    assert process.goes_to() == ("standard", "sticky")
    store.put_config("acme", "chat", {"quotas": {"premium": 5000}})
    store.clear_sticky("ORG#acme#APP#chat", "20260115")
    assert process.look_when_due() <= 60
    assert process.goes_to() == ("premium", "default")


def test_own_usage_outlives_a_change_of_the_budget(process: ByHand, store: UnreliableStore) -> None:
    process.spend(600)
    store.put_config("acme", None, {"agg_shard_count": 16, "quotas": {"premium": 900}})
    process.look_when_due()
    assert process.day.snapshot.budget.shard_count == 16
    process.spend(300)
    assert process.goes_to() == ("standard", "quota")
    process.write()
    assert stored(store, usage_key()).requests == 2


def test_an_item_that_is_taken_away_gives_the_file_its_say_again(process: ByHand, store: UnreliableStore) -> None:
    store.put_config("acme", "chat", {"model_ordering": ["economy"]})
    assert process.goes_to() == ("economy", "default")
    store.inner._configs.clear()
    process.look_when_due()
    assert process.goes_to() == ("premium", "default")


def test_a_mistake_in_an_item_is_an_error_at_first(process: ByHand, store: UnreliableStore) -> None:
    store.put_config("acme", "chat", {"quotas": {"premium": -1}})
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"quotas\.premium"):
            process.admit()
    store.put_config("acme", "chat", {"quotas": {"premium": 1}})
    process.look()
    assert process.goes_to() == ("premium", "default")


def test_a_mistake_made_later_leaves_the_last_good_budget_even_over_midnight(
    process: ByHand, store: UnreliableStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.put_config("acme", "chat", {"quotas": {"premium": 100}})
    process.spend(100)
    store.put_config("acme", "chat", {"quotas": {"premium": "many"}})
    process.look_when_due()
    process.look_when_due()
    assert process.goes_to() == ("standard", "quota")
    assert caplog.text.count("keeping the last good budget") == 1
    assert not process.admit().record["degraded"]
    clock.advance(86400)
    assert process.goes_to() == ("premium", "default")
    process.spend(100)
    assert process.goes_to() == ("standard", "quota")
    assert process.day.day.name == "20260116"


def test_a_look_that_fails_half_way_changes_nothing(process: ByHand, store: UnreliableStore, others: Others) -> None:
    process.spend(10)
    before = process.day.snapshot
    store.put_config("acme", "chat", {"quotas": {"premium": 5}})
    store.fails = lambda name, subject: AWAY if name == "read_shards" else None
    process.look_when_due()
    assert process.day.degraded
    assert process.day.snapshot is before
    assert process.goes_to() == ("premium", "default")
    store.fails = lambda name, subject: None
    process.look_when_due()
    assert process.goes_to() == ("standard", "quota")


def test_a_sticky_state_that_cannot_be_written_is_tried_again(
    process: ByHand, store: UnreliableStore, others: Others
) -> None:
    process.admit()
    others.spend(1000, "premium")
    store.fails = lambda name, subject: AWAY if name == "advance_sticky" else None
    process.look_when_due()
    assert process.day.degraded
    assert process.goes_to() == ("standard", "quota")
    store.fails = lambda name, subject: None
    process.look_when_due()
    assert process.goes_to() == ("standard", "sticky")


# --- two processes on one store


def test_two_processes_see_each_others_spend_and_never_think_they_spent_less(
    store: UnreliableStore, clock: ManualClock
) -> None:
    first, second = ByHand(store, clock), ByHand(store, clock)
    assert first.goes_to() == second.goes_to()
    for turn in range(30):
        spender, other = (first, second) if turn % 3 else (second, first)
        spender.spend(17)
        if turn % 2:
            spender.write()
        other.look_at_spend()
        spender.look_at_spend()
        truth = stored(store, usage_key()).cost_pico_usd
        for process in (first, second):
            assert process.day.snapshot.chain[0].account.spend >= truth
    first.write()
    second.write()
    first.look_at_spend()
    second.look_at_spend()
    assert (
        first.day.snapshot.chain[0].account.spend
        == second.day.snapshot.chain[0].account.spend
        == 30 * 17 * PICO_PER_MICRO
    )


@pytest.mark.parametrize("cost", [1, 7, 300, 999, 1000, 5000])
def test_a_process_alone_goes_over_a_quota_by_less_than_one_call(
    store: UnreliableStore, clock: ManualClock, cost: int
) -> None:
    process, idle = ByHand(store, clock), ByHand(store, clock)
    idle.admit()
    spent = dict.fromkeys(CHAIN, 0)
    turn = 0
    with suppress(BudgetExhausted):
        while turn < 4000:
            spent[process.spend(cost)["label"]] += cost
            turn += 1
            if turn % 3 == 0:
                process.write()
            if turn % 5 == 0:
                clock.advance(1)
                process.look()
    assert all(1000 <= each < 1000 + cost for each in spent.values())
    process.write()
    assert [stored(store, usage_key(label)).cost_pico_usd for label in CHAIN] == [
        each * PICO_PER_MICRO for each in spent.values()
    ]
    clock.advance(60)
    idle.look()
    with pytest.raises(BudgetExhausted):
        idle.admit()

"""Scopes that stop themselves at a share of their daily total (``stop_at_pct``)."""

import logging
from typing import Any

import pytest
from doubles import AWAY, CHAIN, CONFIG, ByHand, UnreliableStore, config

from bedrock_budget import BudgetStopped
from bedrock_budget.config import load_budgets
from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.errors import ConfigError
from bedrock_budget.core.keys import UsageKey, shard_of
from bedrock_budget.core.money import PICO_PER_MICRO
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import Override, Stop
from bedrock_budget.suspension import AUTOMATIC
from bedrock_budget.testing import ManualClock

NOW_EPOCH = 1768478400  # 2026-01-15T12:00Z, where the manual clock stands
DAY_ENDS = 1768521600
DAY = "20260115"
PIN = Override("premium", "why", "ann", NOW_EPOCH, DAY_ENDS)
#: Three quotas of 1000 micros: 120 % are 3600.
BUDGET = config(stop_at_pct=120)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> UnreliableStore:
    store = UnreliableStore()
    store.put_override("acme", None, PIN)  # calls go to premium, whatever its quota
    return store


@pytest.fixture
def process(store: UnreliableStore, clock: ManualClock) -> ByHand:
    return ByHand(store, clock, BUDGET)


def is_stopped(process: ByHand) -> bool:
    try:
        process.admit()
    except BudgetStopped:
        return True
    return False


def overspend(process: ByHand, usd_micros: int = 3600) -> None:
    process.spend(usd_micros)
    process.write()
    process.look_at_spend()


def spend_elsewhere(store: UnreliableStore, usd_micros: int, label: str, day: str = DAY) -> None:
    """The rest of the fleet."""
    writer = "wother-----"
    amounts = Amounts(usd_micros * PICO_PER_MICRO, Usage(usd_micros), 1)
    key = UsageKey("ORG#acme#APP#chat", label, day)
    store.inner.write_batch(Batch(key, writer, 1, shard_of(writer, 8), 8, amounts), now_epoch=NOW_EPOCH)


def test_a_scope_stops_itself_until_the_day_ends(
    process: ByHand, store: UnreliableStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    overspend(process, 3599)
    assert not is_stopped(process)
    overspend(process, 1)
    with pytest.raises(BudgetStopped) as caught:
        process.admit()
    assert caught.value.stopped_by == AUTOMATIC == "bedrock_budget (automatic)"
    assert caught.value.why == "$0.003600 is spent, and stop_at_pct is 120: $0.003600"
    (stop,) = store.stops("acme", now_epoch=clock.now().timestamp())
    assert (stop.app_id, stop.expires_at_epoch) == ("chat", DAY_ENDS)
    (logged,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "calls of ORG#acme#APP#chat are refused" in logged.getMessage()
    assert "bedrock-budget resume --org acme --app chat" in logged.getMessage()
    clock.advance(DAY_ENDS - clock.now().timestamp())
    assert not is_stopped(process)


def test_the_others_follow_and_it_is_made_once(store: UnreliableStore, clock: ManualClock) -> None:
    fleet = [ByHand(store, clock, BUDGET) for _ in range(3)]
    for each in fleet:
        each.spend(1200)
        each.write()
    for each in fleet:
        each.look_at_spend()
    assert all(is_stopped(each) for each in fleet)
    assert store.count("put_automatic_stop") == 1
    late = ByHand(store, clock, BUDGET)
    assert is_stopped(late)
    assert store.count("put_automatic_stop") == 1


def test_what_was_lifted_stays_lifted_that_day_and_comes_again_the_next(
    store: UnreliableStore, clock: ManualClock
) -> None:
    fleet = [ByHand(store, clock, BUDGET) for _ in range(2)]
    overspend(fleet[0])
    assert is_stopped(fleet[1])
    assert store.lift_stop("acme", "chat", lifted_by="ann", now_epoch=int(clock.now().timestamp()))
    late = ByHand(store, clock, BUDGET)
    assert not is_stopped(late)
    for each in fleet:
        each.look()
        assert not is_stopped(each)
    for _ in range(5):
        for each in (*fleet, late):
            each.spend(1000)
            each.write()
            each.look_at_spend()
            assert not is_stopped(each)
    assert store.count("put_automatic_stop") == 1 + 3  # each asked once whether it was lifted
    store.put_override("acme", None, PIN._replace(expires_at_epoch=DAY_ENDS + 86_400))
    clock.advance(DAY_ENDS + 3600 - clock.now().timestamp())
    assert not is_stopped(late)
    overspend(late)
    assert is_stopped(late)


def test_a_stale_answer_does_not_lift_it(process: ByHand, store: UnreliableStore) -> None:
    overspend(process)
    standing = store.inner._stops
    refused: list[bool] = []

    def stale(name: str, subject: Any) -> None:
        if name == "read_controls":
            store.inner._stops = {}
        else:
            store.inner._stops = standing
            refused.append(is_stopped(process))  # during the look

    store.fails = stale
    process.look()
    store.fails = lambda name, subject: None
    store.inner._stops = standing
    assert refused
    assert all(refused)
    assert is_stopped(process)


def test_an_operators_stop_is_left_alone(process: ByHand, store: UnreliableStore) -> None:
    process.spend(3600)
    process.write()
    stop = Stop("chat", "ann", "a leak", NOW_EPOCH, None)
    store.fails = lambda name, subject: store.put_stop("acme", stop) if name == "put_automatic_stop" else None
    process.look_at_spend()
    assert process.day.snapshot.stop == stop
    assert store.stops("acme", now_epoch=NOW_EPOCH) == [stop]
    process.look_at_spend()
    assert store.count("put_automatic_stop") == 1


def test_under_quota_scope_org_the_org_stops(store: UnreliableStore, clock: ManualClock) -> None:
    budget = config(stop_at_pct=120, quota_scope="ORG")
    chat, billing = ByHand(store, clock, budget), ByHand(store, clock, budget, app="billing")
    billing.admit()
    overspend(chat)
    assert [stop.app_id for stop in store.stops("acme", now_epoch=NOW_EPOCH)] == [None]
    billing.look()
    assert (is_stopped(chat), is_stopped(billing)) == (True, True)


@pytest.mark.parametrize("label", ["premium", "economy", "embed", "unlabelled"])
def test_what_others_spend_on_any_label_counts(store: UnreliableStore, clock: ManualClock, label: str) -> None:
    process = ByHand(store, clock, config(stop_at_pct=120, on_unknown_model="pass"))
    process.admit()
    process.look_when_due()
    spend_elsewhere(store, 3600, label)
    process.look_at_spend()
    assert is_stopped(process)


def test_effective_spend_is_not_enough(process: ByHand, store: UnreliableStore) -> None:
    process.spend(3600)  # not written yet
    process.look_at_spend()
    assert not is_stopped(process)
    assert store.count("put_automatic_stop") == 0
    process.write()
    assert process.look_when_due() <= 0.5
    assert is_stopped(process)


def test_the_sums_are_read_only_when_effective_spend_is_there(process: ByHand, store: UnreliableStore) -> None:
    overspend(process, 3000)
    reads = store.count("read_shards")
    for _ in range(20):
        process.look()  # at the controls alone
    assert store.count("read_shards") == reads


def test_looks_hurry_when_the_stop_is_near(process: ByHand, store: UnreliableStore, clock: ManualClock) -> None:
    process.admit()
    for _ in range(12):
        process.look_at_spend()
    assert process.day.schedule.interval_secs == 300
    overspend(process, 1800)  # as much again would bring it about
    assert process.day.schedule.interval_secs is not None
    assert process.day.schedule.interval_secs <= 150


def test_a_stop_that_cannot_be_written_is_tried_again(process: ByHand, store: UnreliableStore) -> None:
    process.admit()
    store.fails = lambda name, subject: AWAY if name == "put_automatic_stop" else None
    overspend(process)
    assert process.day.degraded  # so on_store_error decides
    store.fails = lambda name, subject: None
    process.look_when_due()
    assert is_stopped(process)


def test_a_quota_that_is_raised_during_the_look_counts(process: ByHand, store: UnreliableStore) -> None:
    process.admit()
    raised = {"quotas": {"premium": 10_000}}
    store.fails = lambda name, subject: store.put_config("acme", "chat", raised) if name == "read_shards" else None
    overspend(process)
    assert not is_stopped(process)
    process.look_when_due()
    assert not is_stopped(process)
    assert store.count("put_automatic_stop") == 0


def test_a_total_of_nothing_stops_at_the_first_spend(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, config(stop_at_pct=100, quotas={"premium": 0, "standard": 0, "economy": 0}))
    process.admit()
    process.look_when_due()
    assert not is_stopped(process)
    overspend(process, 1)
    assert is_stopped(process)


def test_stop_at_pct_costs_no_reads_in_ordinary_operation(clock: ManualClock) -> None:
    counts = []
    for pct in ({}, {"stop_at_pct": 120}):
        store = UnreliableStore()
        ordinary = {**config(**pct), "model_labels": {label: CONFIG["model_labels"][label] for label in CHAIN}}
        process = ByHand(store, clock, ordinary)
        process.spend(700)
        process.write()
        for _ in range(20):
            process.look_when_due()
        counts.append([name for name, _ in store.calls])
    assert counts[0] == counts[1]


# --- its configuration


def stop_at(budget: dict[str, Any], app: str = "chat") -> int | None:
    budgets = load_budgets(budget)
    assert budgets is not None
    return budgets.scope("acme", app).stop_at_pico_usd


def test_the_percentage_is_of_the_sum_of_the_orderings_quotas() -> None:
    assert stop_at(config()) is None
    assert stop_at(BUDGET) == 3600 * PICO_PER_MICRO
    assert stop_at(config(stop_at_pct=1)) == 30 * PICO_PER_MICRO
    assert stop_at(config(stop_at_pct=120, model_ordering=["premium"])) == 1200 * PICO_PER_MICRO
    apps = {"chat": {"stop_at_pct": 200}, "billing": {"stop_at_pct": None}}
    layered = {**BUDGET, "orgs": {"acme": {"stop_at_pct": 150, "apps": apps}}}
    assert [stop_at(layered, app) for app in ("chat", "billing", "other")] == [
        6000 * PICO_PER_MICRO,
        None,
        4500 * PICO_PER_MICRO,
    ]


@pytest.mark.parametrize("value", [0, -1, 1.5, "120", True])
def test_a_percentage_is_a_whole_number(value: object) -> None:
    with pytest.raises(ConfigError, match=r"org_defaults\.stop_at_pct: must be a whole number >= 1, got"):
        load_budgets(config(stop_at_pct=value))


def test_a_percentage_of_something_unlimited_is_refused() -> None:
    unlimited = {"premium": 1000, "standard": None, "economy": 1000}
    with pytest.raises(ConfigError, match=r"org_defaults\.stop_at_pct: 120 % of what\?.*\(standard\); give each label"):
        load_budgets(config(stop_at_pct=120, quotas=unlimited))
    assert stop_at(config(stop_at_pct=120, quotas=unlimited, model_ordering=["premium", "economy"]))


def test_an_app_has_no_percentage_of_its_own_where_apps_share_a_budget() -> None:
    shared = {**config(quota_scope="ORG"), "orgs": {"acme": {"apps": {"chat": {"stop_at_pct": 120}}}}}
    with pytest.raises(ConfigError, match=r"orgs\.acme\.apps\.chat\.stop_at_pct: not possible under quota_scope: ORG"):
        load_budgets(shared)

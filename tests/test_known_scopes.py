"""Scopes over time: budgets, days, midnights, clocks that jump, and stores that are away."""

import gc
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doubles import AWAY, CONFIG, ByHand, UnreliableStore, config, stored, usage_key, wait_until

from bedrock_budget import PriceKeeperClient
from bedrock_budget import refresher as refresher_module
from bedrock_budget.core.errors import BudgetError, ConfigError, StoreError
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.errors import BudgetExhausted
from bedrock_budget.refresher import FORGET_SECS
from bedrock_budget.stores import MemoryStore, Sticky, StoreSetupError
from bedrock_budget.testing import LocalBedrock, ManualClock, RawReply, Request

MESSAGES = [{"role": "user", "content": [{"text": "hello"}]}]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def process(store: UnreliableStore, clock: ManualClock) -> ByHand:
    return ByHand(store, clock)


MakeClient = Callable[..., PriceKeeperClient]


@pytest.fixture
def make_client(local_bedrock: LocalBedrock, store: UnreliableStore, clock: ManualClock) -> Iterator[MakeClient]:
    """Real clients, with all their threads, of a local Bedrock."""
    made: list[PriceKeeperClient] = []

    def make(budget: Any = CONFIG, **kwargs: Any) -> PriceKeeperClient:
        settings = {"org_id": "acme", "app_id": "chat", "store": store, "clock": clock, **kwargs}
        made.append(PriceKeeperClient(local_bedrock.client(), config=budget, **settings))
        return made[-1]

    yield make
    store.come_back()
    store.open.set()
    for client in made:
        client.close()


# --- who may come in, and where budgets come from


def test_ids_and_configuration_are_checked_when_a_scope_is_entered(process: ByHand) -> None:
    with pytest.raises(ConfigError, match="org_id"):
        process.keeper.scopes.enter("ac#me", "chat")
    with pytest.raises(ConfigError, match="app_id"):
        process.keeper.scopes.enter("acme", None)


def test_without_a_file_the_orgs_item_is_the_budget(store: UnreliableStore, clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match=r"org 'acme' has no configuration.*ORG#acme"):
        ByHand(store, clock, None)
    store.put_config("acme", None, {**CONFIG["org_defaults"], "model_labels": CONFIG["model_labels"]})
    process = ByHand(store, clock, None)
    assert process.goes_to() == ("premium", "default")
    store.inner._configs.clear()  # somebody deletes it
    process.look_when_due()
    assert process.goes_to() == ("premium", "default")


def test_without_a_file_a_store_that_is_away_is_an_error_at_first(store: UnreliableStore, clock: ManualClock) -> None:
    store.go_away()
    with pytest.raises(StoreError):
        ByHand(store, clock, None)


def test_views_of_one_app_share_its_day_and_apps_have_their_own(process: ByHand) -> None:
    scopes = process.keeper.scopes
    now = process.clock.now()
    same, other = scopes.enter("acme", "chat"), scopes.enter("acme", "billing")
    assert scopes.ready(same, now) is scopes.ready(process.scope, now)
    assert scopes.ready(other, now) is not scopes.ready(process.scope, now)


def test_apps_of_an_org_wide_quota_spend_from_one_account(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, config(quota_scope="ORG"))
    other = process.keeper.scopes.enter("acme", "billing")
    process.spend(1000)
    assert process.keeper.admit(other, None, "Converse", {}).record["label"] == "standard"


# --- the store is away


def refusals(process: ByHand, usd_micros: int, times: int, asked: str | None = None) -> int:
    """How many of so many calls are refused for the store's sake."""
    refused = 0
    for _ in range(times):
        try:
            record = process.spend(usd_micros, asked)
        except StoreError:
            refused += 1
        else:
            assert record["degraded"]
    return refused


def test_an_amount_may_be_spent_blind_in_each_scope(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, on_store_error=50)
    store.go_away()
    assert refusals(process, 10, 12) == 7
    with pytest.raises(StoreError, match=r"has spent \$0\.000050 without it.*allows \$0\.000050\..*the store is away"):
        process.spend(10)
    other = process.keeper.scopes.enter("acme", "billing")
    assert process.keeper.admit(other, None, "Converse", {}).record["degraded"]


def test_blind_spending_counts_from_the_last_look_that_succeeded(
    store: UnreliableStore, clock: ManualClock, process: ByHand
) -> None:
    process = ByHand(store, clock, on_store_error=50)
    process.spend(100)
    process.look_at_spend()
    process.spend(20)
    process.write()
    store.reads_fail = AWAY  # reads alone
    process.look_at_spend()
    assert refusals(process, 10, 10) == 7
    process.write()  # written, but still blind
    assert refusals(process, 10, 10) == 10
    store.come_back()
    process.look_when_due()
    record = process.spend(10)
    assert not record["degraded"]
    store.go_away()
    process.look_when_due()
    assert refusals(process, 10, 10) == 6  # the one before is not known to the store either


def test_writes_that_fail_alone_count_as_blind_spending_too(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, on_store_error=50)
    store.writes_fail = AWAY
    process.spend(10)
    process.write()
    for _ in range(3):
        process.look_when_due()  # looks succeed, but the spend is not in the store
    assert refusals(process, 10, 10) == 6
    store.come_back()
    process.write()
    assert not process.spend(10)["degraded"]


def test_midnight_gives_no_new_amount_to_spend_blind(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, on_store_error=50)
    process.spend(10)
    store.go_away()
    process.look_when_due()
    assert refusals(process, 10, 10) == 6
    clock.advance(86400)
    assert refusals(process, 10, 10) == 10
    assert process.day.day.name == "20260116"
    clock.advance(86400)
    process.pass_midnight()  # the refresher comes first
    assert refusals(process, 10, 10) == 10
    store.come_back()
    process.look_when_due()
    assert process.goes_to() == ("premium", "default")


def test_midnight_gives_no_new_amount_while_writes_fail(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, on_store_error=50)
    store.writes_fail = AWAY
    process.spend(10)
    process.write()
    assert refusals(process, 10, 10) == 6
    clock.advance(86400)
    process.pass_midnight()
    assert refusals(process, 10, 10) == 10
    store.come_back()
    process.write()  # the batch that was frozen when the first write failed
    process.write()  # and the rest
    assert process.spend(10)["org_day"] == "20260116"
    assert stored(store, usage_key()).requests == 5  # the day before has all its own


def test_idleness_gives_no_new_amount_to_spend_blind(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, on_store_error=50)
    process.spend(10)
    store.reads_fail = AWAY
    process.look_when_due()
    assert refusals(process, 10, 10) == 6
    process.write()
    clock.advance(FORGET_SECS + 1)
    process.look()
    process.keeper.scopes._forget(process.day)  # as the refresher does
    assert refusals(process, 10, 10) == 10


def test_spend_outside_the_labels_counts_as_blind_as_well(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, on_store_error=50, on_unknown_model="pass", on_unknown_price=1_000_000)
    store.go_away()
    assert refusals(process, 10, 10, "some.other-model") == 5


def test_open_lets_everything_go_on_and_says_so(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, on_store_error="open")
    store.go_away()
    assert refusals(process, 100, 30) == 0
    with pytest.raises(BudgetExhausted):  # what it spent itself, it knows
        process.admit()
    store.come_back()
    process.look_when_due()
    process.write()
    with pytest.raises(BudgetExhausted) as refused:
        process.admit()
    assert not refused.value.response["ResponseMetadata"]["PriceKeeper"]["degraded"]  # type: ignore[typeddict-item]


@pytest.mark.parametrize("which", ["reads_fail", "writes_fail"])
def test_closed_refuses_as_long_as_the_store_is_away(store: UnreliableStore, clock: ManualClock, which: str) -> None:
    process = ByHand(store, clock, on_store_error="closed")
    process.spend(1)
    setattr(store, which, AWAY)
    process.look_when_due()
    process.write()
    with pytest.raises(StoreError, match="'closed': the store is away"):
        process.admit()
    store.come_back()
    process.look_when_due()
    process.write()
    assert not process.admit().record["degraded"]


def test_a_store_that_has_come_back_in_this_moment_refuses_nobody(process: ByHand) -> None:
    process.admit()
    process.keeper.scopes.check_store_error(process.day)  # neither reads nor writes fail any more


def test_a_store_that_was_never_set_up_is_an_error_whatever_the_policy(
    store: UnreliableStore, clock: ManualClock
) -> None:
    process = ByHand(store, clock, on_store_error="open")
    store.reads_fail = StoreSetupError("create the tables")
    for _ in range(2):
        with pytest.raises(StoreSetupError, match="create the tables"):
            process.admit()
    store.come_back()
    process.look_when_due()
    process.admit()
    store.reads_fail = StoreSetupError("no permission any more")
    process.look_when_due()
    assert process.admit().record["degraded"]
    other = process.keeper.scopes.enter("acme", "billing")  # its first look, but not the process's
    assert process.keeper.admit(other, None, "Converse", {}).record["degraded"]


def test_an_outage_and_its_end_are_logged_once(
    process: ByHand, store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    process.admit()
    for _ in range(2):  # each outage anew, however soon
        caplog.clear()
        store.go_away()
        for _ in range(3):
            process.look_when_due()
        store.come_back()
        for _ in range(3):
            process.look_when_due()
        assert caplog.text.count("cannot read the budget of ORG#acme#APP#chat: the store is away") == 1
        assert caplog.text.count("can be read again") == 1


def test_calls_of_scopes_whose_look_is_late_do_not_wait_for_a_store_in_trouble(
    process: ByHand, store: UnreliableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.admit()
    other = process.keeper.scopes.enter("acme", "billing")
    process.keeper.admit(other, None, "Converse", {})
    process.clock.advance(400)  # both are overdue: as after a freeze, calls wait for a look
    assert not process.admit().record["degraded"]
    store.go_away()
    process.clock.advance(400)
    assert process.admit().record["degraded"]  # the first call to find out
    looks = store.count("read_controls")
    assert process.keeper.admit(other, None, "Converse", {}).record["degraded"]
    assert store.count("read_controls") == looks  # without a look of its own
    store.come_back()
    process.look_when_due()
    assert not process.admit().record["degraded"]


def test_a_store_that_hangs_is_waited_for_once_by_all_first_callers_together(
    make_client: MakeClient, store: UnreliableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresher_module, "FIRST_LOOK_SECS", 0.05)
    bedrock = make_client()
    store.open.clear()
    decisions: list[bool] = []
    callers = [threading.Thread(target=lambda: decisions.append(bedrock.decide().degraded)) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)
    assert decisions == [True] * 8
    assert store.count("read_controls") == 1
    monkeypatch.setattr(refresher_module, "FIRST_LOOK_SECS", 1000.0)
    assert bedrock.decide().degraded  # and not waited for again
    store.open.set()
    wait_until(lambda: not bedrock.decide().degraded)


def test_many_first_callers_share_one_look(make_client: MakeClient, store: UnreliableStore) -> None:
    bedrock = make_client()
    store.open.clear()
    callers = [threading.Thread(target=bedrock.decide) for _ in range(16)]
    for caller in callers:
        caller.start()
    wait_until(lambda: store.waiting == 1)
    store.open.set()
    for caller in callers:
        caller.join(10)
    assert store.count("read_controls") == 1
    assert store.count("read_shards") == 1


def test_calls_do_not_wait_for_a_background_look_that_hangs(
    process: ByHand, store: UnreliableStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedrock_budget.looks.SLOW_SECS", 0.0)  # in real time; the manual clock does not count here
    process.admit()
    clock.advance(1)
    store.open.clear()
    background = threading.Thread(target=process.look)
    background.start()
    wait_until(lambda: store.waiting == 1)
    clock.advance(30)
    call = threading.Thread(target=process.admit, daemon=True)
    call.start()
    call.join(5)
    assert not call.is_alive()
    assert process.day.degraded
    store.open.set()
    background.join(10)
    assert not process.day.degraded


# --- clocks


def test_a_process_that_was_frozen_waits_for_a_fresh_look(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.spend(1)
    theirs = ByHand(store, clock)
    theirs.spend(1000)
    theirs.write()
    clock.advance(3 * 3600)
    assert process.goes_to() == ("standard", "sticky")
    store.calls.clear()
    process.admit()
    assert store.calls == []


def test_a_process_that_was_suspended_with_its_monotonic_clock_waits_as_well(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.admit()
    while process.day.schedule.interval_secs != 300:
        process.look_when_due()
    theirs = ByHand(store, clock)
    theirs.spend(1000)
    theirs.write()
    clock.set(clock.now() + timedelta(hours=3))  # the monotonic clock stood still
    assert process.goes_to() == ("standard", "sticky")


def test_between_looks_calls_ask_the_store_nothing(process: ByHand, store: UnreliableStore, clock: ManualClock) -> None:
    process.spend(1)
    store.calls.clear()
    for _ in range(100):
        process.spend(1)
    clock.advance(5.9)  # due after one second, and five more are let pass
    process.spend(1)
    assert store.calls == []


def test_a_clock_set_back_within_the_day_changes_nothing(process: ByHand, clock: ManualClock) -> None:
    process.spend(400)
    clock.set(clock.now() - timedelta(hours=5))
    process.spend(400)
    assert process.day.snapshot.chain[0].account.spend == 800 * 10**6
    process.look_when_due()
    assert process.goes_to() == ("premium", "default")


def test_a_clock_set_back_over_midnight_goes_back_to_that_day_and_comes_again(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    clock.set(datetime(2026, 1, 15, 23, 59, tzinfo=UTC))
    process.spend(400)
    process.write()
    clock.set(datetime(2026, 1, 16, 0, 0, 30, tzinfo=UTC))
    process.spend(700)
    clock.set(datetime(2026, 1, 15, 23, 59, 30, tzinfo=UTC))
    assert process.spend(600)["org_day"] == "20260115"
    assert process.goes_to() == ("standard", "quota")
    clock.set(datetime(2026, 1, 16, 0, 1, tzinfo=UTC))
    assert process.spend(300)["org_day"] == "20260116"
    assert process.goes_to() == ("standard", "quota")
    process.write()
    assert stored(store, usage_key(day="20260115")).cost_pico_usd == 1000 * 10**6
    assert stored(store, usage_key(day="20260116")).cost_pico_usd == 1000 * 10**6


# --- days


def test_at_midnight_the_head_of_the_ordering_is_back(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.spend(1000)
    process.write()
    process.look_when_due()
    assert process.goes_to() == ("standard", "sticky")
    clock.set(datetime(2026, 1, 15, 23, 59, 59, 999999, tzinfo=UTC))
    assert process.goes_to() == ("standard", "sticky")
    clock.set(datetime(2026, 1, 16, tzinfo=UTC))
    assert process.goes_to() == ("premium", "default")
    process.pass_midnight()
    assert process.goes_to() == ("premium", "default")


def test_retry_at_is_the_next_midnight_of_the_org(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(
        store, clock, config(timezone="Asia/Kolkata", quotas=dict.fromkeys(CONFIG["org_defaults"]["quotas"], 0))
    )
    with pytest.raises(BudgetExhausted) as refused:
        process.admit()
    assert refused.value.retry_at.isoformat() == "2026-01-16T00:00:00+05:30"


#: A day that clocks change in, its first instant and the first of the next one.
DAYS = [
    ("America/New_York", "20260308", "2026-03-08T05:00", "2026-03-09T04:00"),
    ("America/New_York", "20261101", "2026-11-01T04:00", "2026-11-02T05:00"),
    ("Europe/Berlin", "20260329", "2026-03-28T23:00", "2026-03-29T22:00"),
    ("Europe/Berlin", "20261025", "2026-10-24T22:00", "2026-10-25T23:00"),
    ("Australia/Lord_Howe", "20260405", "2026-04-04T13:00", "2026-04-05T13:30"),
    ("Australia/Lord_Howe", "20261004", "2026-10-03T13:30", "2026-10-04T13:00"),
    ("Asia/Kolkata", "20260329", "2026-03-28T18:30", "2026-03-29T18:30"),
]


@pytest.mark.parametrize(("zone", "day", "starts", "ends"), DAYS)
def test_days_in_which_clocks_change_have_their_names_and_their_ends(
    store: UnreliableStore, zone: str, day: str, starts: str, ends: str
) -> None:
    first, after = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (starts, ends))
    tick = timedelta(microseconds=1)
    clock = ManualClock(first - tick)
    process = ByHand(store, clock, config(timezone=zone))
    days: list[str] = []
    for moment in (first - tick, first, first + (after - first) / 2, after - tick, after):
        clock.set(moment)
        days.append(process.spend(1)["org_day"])
    assert days[1:4] == [day] * 3
    assert days[0] < day < days[4]
    process.write()
    assert stored(store, usage_key(day=day)).requests == 3
    clock.set(after - tick)
    scope = process.keeper.scopes.enter("acme", "another")
    assert process.keeper.scopes.ready(scope, clock.now()).ends_at == after


def test_a_call_belongs_to_the_day_in_which_it_started(
    make_client: MakeClient, local_bedrock: LocalBedrock, clock: ManualClock, store: UnreliableStore
) -> None:
    clock.set(datetime(2026, 1, 15, 23, 59, 59, tzinfo=UTC))
    bedrock = make_client()

    def midnight_passes(request: Request) -> RawReply | None:
        clock.advance(2)
        return None

    local_bedrock.on_request = midnight_passes
    record = bedrock.converse(messages=MESSAGES)["ResponseMetadata"]["PriceKeeper"]
    assert record["org_day"] == "20260115"
    local_bedrock.on_request = None
    assert bedrock.converse(messages=MESSAGES)["ResponseMetadata"]["PriceKeeper"]["org_day"] == "20260116"
    assert bedrock.flush(10)
    assert stored(store, usage_key(day="20260115")).requests == 1
    assert stored(store, usage_key(day="20260116")).requests == 1


@pytest.mark.parametrize("operation", ["converse_stream", "invoke_model_with_response_stream"])
def test_a_stream_belongs_to_the_day_in_which_it_was_opened(
    make_client: MakeClient, clock: ManualClock, store: UnreliableStore, operation: str
) -> None:
    clock.set(datetime(2026, 1, 15, 23, 59, 59, tzinfo=UTC))
    budget = {**CONFIG, "model_labels": {**CONFIG["model_labels"]}}
    budget["model_labels"]["premium"] = {**budget["model_labels"]["premium"], "id": "amazon.nova-lite-v1:0"}
    bedrock = make_client(budget)
    if operation == "converse_stream":
        response = bedrock.converse_stream(messages=MESSAGES)
        stream = response["stream"]
    else:
        response = bedrock.invoke_model_with_response_stream(modelId="premium", body=b'{"messages": []}')
        stream = response["body"]
    events = iter(stream)
    next(events)
    clock.advance(3600)
    assert bedrock.decide().org_day == "20260116"
    assert list(events)
    record = response["ResponseMetadata"]["PriceKeeper"]
    assert record["org_day"] == "20260115"
    assert not record["estimated"]
    assert bedrock.flush(10)
    spent = stored(store, usage_key(day="20260115"))
    assert (spent.requests, spent.cost_pico_usd) == (1, record["cost_pico_usd"])
    assert stored(store, usage_key(day="20260116")).requests == 0


def test_another_time_zone_by_an_item_in_the_middle_of_a_day(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    clock.set(datetime(2026, 1, 15, 16, 0, tzinfo=UTC))
    process.spend(1000)
    process.write()
    store.put_config("acme", None, {"timezone": "Asia/Tokyo"})  # there it is the 16th already
    process.look_when_due()
    assert process.spend(10)["org_day"] == "20260116"
    assert process.goes_to() == ("premium", "default")
    assert process.day.ends_at == datetime(2026, 1, 16, 15, tzinfo=UTC)
    process.write()
    assert stored(store, usage_key(day="20260116")).requests == 1
    store.put_config("acme", None, {"timezone": "UTC"})
    process.look_when_due()
    assert process.goes_to() == ("standard", "sticky")


def test_another_time_zone_found_by_the_first_look_counts_for_the_first_call(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    clock.set(datetime(2026, 1, 15, 16, 0, tzinfo=UTC))
    store.put_config("acme", None, {"timezone": "Asia/Tokyo"})
    assert process.spend(1)["org_day"] == "20260116"
    assert process.spend(1)["org_day"] == "20260116"


def test_another_quota_scope_by_an_item_leaves_nothing_in_the_wrong_place(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    org = UsageKey("ORG#acme", "premium", "20260115")
    other = ByHand(store, clock, config(quota_scope="ORG"))
    other.spend(2000)
    other.write()
    process.spend(10)
    store.put_config("acme", None, {"quota_scope": "ORG"})
    store.calls.clear()
    process.look_when_due()
    assert store.count("advance_sticky") == 0  # not by a look that began as another scope's
    assert process.goes_to() == ("standard", "sticky")
    process.spend(5)
    process.write()
    assert stored(store, org).requests == 1
    assert stored(store, usage_key()).requests == 1
    assert stored(store, org._replace(label="standard")).requests == 1


def test_a_sticky_state_does_not_outlive_its_day_in_the_store(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    scope = "ORG#acme#APP#chat"
    ends = datetime(2026, 1, 16, tzinfo=UTC).timestamp()
    store.inner.advance_sticky(scope, "20260115", Sticky("economy", 2, "", "", 0, int(ends) + 3600))
    assert process.goes_to() == ("economy", "sticky")
    clock.set(datetime(2026, 1, 16, 0, 30, tzinfo=UTC))
    assert process.goes_to() == ("premium", "default")


# --- many scopes


def test_a_scope_that_was_forgotten_is_looked_at_afresh(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    process.spend(600)
    process.write()
    process.look()
    process.keeper.scopes._forget(process.day)
    assert process.keeper.scopes._days == {}
    theirs = ByHand(store, clock)
    theirs.spend(400)
    theirs.write()
    assert process.goes_to() == ("standard", "sticky")


def test_usage_that_is_not_written_yet_survives_being_forgotten(process: ByHand, store: UnreliableStore) -> None:
    process.spend(600)
    process.keeper.scopes._forget(process.day)
    process.spend(400)
    assert process.goes_to() == ("standard", "quota")
    process.write()
    assert stored(store, usage_key()).requests == 2


def test_thousands_of_scopes_in_one_process(make_client: MakeClient, store: UnreliableStore) -> None:
    bedrock = make_client()
    views = [bedrock.for_app(f"app{number}") for number in range(1500)]
    for view in views:
        assert view.decide().label == "premium"
    assert store.count("read_controls") == 1500
    assert len({view._scope.day for view in views}) == 1500
    bedrock.close()


def test_a_forked_child_knows_none_of_its_parents_days(process: ByHand, store: UnreliableStore) -> None:
    process.spend(600)
    before = process.day
    process.keeper.after_fork_in_child()
    process.keeper.scopes._refresher._get_help = lambda: False  # type: ignore[method-assign]
    assert process.goes_to() == ("premium", "default")
    assert process.day is not before
    assert process.day.snapshot.chain[0].account.spend == 0  # its parent writes those


def test_a_client_that_was_dropped_is_looked_after_no_more(
    local_bedrock: LocalBedrock, store: UnreliableStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresher_module, "FOREIGN_CLOCK_SECS", 0.001)
    client = local_bedrock.client()
    bedrock = PriceKeeperClient(client, org_id="acme", app_id="chat", config=CONFIG, store=store, clock=clock)
    bedrock.decide()
    refresher = bedrock._keeper.scopes._refresher
    assert refresher._threads == 1
    del bedrock
    gc.collect()
    wait_until(lambda: refresher._threads == 0)


def test_after_close_calls_go_on_by_looking_themselves(make_client: MakeClient, store: UnreliableStore) -> None:
    bedrock = make_client()
    bedrock.close()
    record = bedrock.converse(messages=MESSAGES)["ResponseMetadata"]["PriceKeeper"]
    assert not record["degraded"]
    assert stored(store, usage_key()).requests == 1


def test_errors_of_the_store_are_errors_of_the_library() -> None:
    assert issubclass(StoreSetupError, StoreError)
    assert issubclass(StoreError, BudgetError)
    assert MemoryStore().app_ids("acme") == []

"""`enforcement="strict"` through the client: no call starts unless its worst case is left."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from doubles import AWAY, UnreliableStore
from metered import HELLO, NOVA_BODY, PREMIUM, PRICES, STANDARD, budget, metered, record_of, served, stored

from bedrock_budget import BudgetExhausted, CostLimitExceeded, PriceKeeperClient, StoreError
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import MemoryStore, Override
from bedrock_budget.testing import LocalBedrock, ManualClock

LABELS = ("premium", "standard", "economy")
SCOPE = "ORG#acme#APP#chat"
DAY = "20260115"
LIMIT = {"maxTokens": 1000}
#: Of a call with `HELLO` and `LIMIT` to `PREMIUM`: at most 1008 x $15/M for the answer, and some for the input.
DOLLAR = 1_000_000
OTHER = "amazon.nova-lite-v1:0"  # outside the configuration


def strict(server: LocalBedrock, config: dict[str, Any] | None = None, **keywords: Any) -> PriceKeeperClient:
    return metered(server, config=config or budget(), **{"enforcement": "strict", **keywords})


def call(bedrock: PriceKeeperClient, **arguments: Any) -> dict[str, Any]:
    return record_of(bedrock.converse(**{"messages": HELLO, "inferenceConfig": LIMIT, **arguments}))


def granted(bedrock: PriceKeeperClient, label: str = "premium", scope: str = SCOPE) -> int:
    """What the store counts as granted, in pico-USD."""
    key = UsageKey(scope, label, DAY)
    return bedrock._keeper.store.read_granted([key]).get(key, 0)


def worst_case(bedrock: PriceKeeperClient, label: str = "premium", **arguments: Any) -> int:
    day = bedrock._scope.day
    assert day is not None
    bound = day.snapshot.routes[label].worst_case
    assert bound is not None
    return bound.pico_usd({"messages": HELLO, "inferenceConfig": LIMIT, **arguments})


def calls_until_refused(*clients: PriceKeeperClient, **arguments: Any) -> BudgetExhausted | StoreError:
    """Call in turn until one is refused."""
    for bedrock in itertools.cycle(clients):
        try:
            call(bedrock, **arguments)
        except (BudgetExhausted, StoreError) as exc:
            return exc
    raise AssertionError


def billed(server: LocalBedrock) -> int:
    """What all calls to `PREMIUM` cost, by the server's own ledger, in pico-USD."""
    price = PRICES[PREMIUM]
    usages = [entry.usage for entry in server.ledger.entries()]
    return sum(each.input_tokens * price.input + each.output_tokens * price.output for each in usages)


def look(bedrock: PriceKeeperClient) -> None:
    """The background look."""
    day = bedrock._scope.day
    assert day is not None
    bedrock._keeper.scopes._look(day)


def test_a_call_with_room_goes_through_and_is_settled_to_its_cost(local_bedrock: LocalBedrock) -> None:
    with strict(local_bedrock) as bedrock:
        record = call(bedrock)
        assert (record["label"], record["reason"]) == ("premium", "default")
        assert granted(bedrock) > record["cost_pico_usd"] > 0
    assert granted(bedrock) == record["cost_pico_usd"]  # the rest is returned on close


def test_a_slice_lasts_for_many_calls(local_bedrock: LocalBedrock) -> None:
    store = UnreliableStore()
    with strict(local_bedrock, budget({"premium": 400 * DOLLAR}), store=store) as bedrock:
        costs = [call(bedrock)["cost_pico_usd"] for _ in range(10)]
        assert store.count("write_grant") == 1
        assert granted(bedrock) == DOLLAR * 1_000_000  # 0.25 % of the quota
    assert store.count("write_grant") == 2
    assert granted(bedrock) == sum(costs)


def test_no_hold_is_the_next_label_for_this_call_and_the_sticky_state_stays(local_bedrock: LocalBedrock) -> None:
    with strict(local_bedrock, budget({"premium": 16_000})) as bedrock:
        assert call(bedrock, inferenceConfig={"maxTokens": 900})["label"] == "premium"
        found = call(bedrock, inferenceConfig={"maxTokens": 1200})
        assert (found["label"], found["reason"]) == ("standard", "quota")
        assert call(bedrock, inferenceConfig={"maxTokens": 900})["label"] == "premium"
        assert bedrock.decide().label == "premium"


def test_the_last_dollars_stay_usable(local_bedrock: LocalBedrock) -> None:
    local_bedrock.usage = Usage(3, 1000)
    quotas = {"premium": 100_000, "standard": 0, "economy": 0}
    with strict(local_bedrock, budget(quotas)) as bedrock:
        bedrock.decide()
        worst = worst_case(bedrock)
        cost = 3 * 3_000_000 + 1000 * 15_000_000
        while granted(bedrock) == 0 or (100_000 * 1_000_000 - stored(bedrock, "premium").cost_pico_usd) >= worst:
            call(bedrock)
        with pytest.raises(BudgetExhausted, match="premium"):
            call(bedrock)
        calls = (100_000 * 1_000_000 - worst) // cost + 1
        assert len(served(local_bedrock)) == calls


def test_no_room_anywhere_is_exhausted(local_bedrock: LocalBedrock) -> None:
    quotas = dict.fromkeys(LABELS, 20)
    with strict(local_bedrock, budget(quotas)) as bedrock:
        with pytest.raises(
            BudgetExhausted, match=r"too small for this call \(premium: the call could cost .*of \$0\.000020"
        ):
            call(bedrock)
        with pytest.raises(BudgetExhausted):
            call(bedrock, modelId="economy")
    assert served(local_bedrock) == []


def test_last_does_not_serve_without_a_hold(local_bedrock: LocalBedrock) -> None:
    quotas = dict.fromkeys(LABELS, 20)
    with strict(local_bedrock, budget(quotas), on_exhausted="last") as bedrock, pytest.raises(BudgetExhausted):
        call(bedrock)


def test_an_unlimited_label_needs_no_hold(local_bedrock: LocalBedrock) -> None:
    store = UnreliableStore()
    with strict(local_bedrock, budget({"premium": None}), store=store) as bedrock:
        assert call(bedrock)["label"] == "premium"
    assert store.count("write_grant") == 0


def test_calls_go_on_without_the_store_while_the_slice_lasts(local_bedrock: LocalBedrock) -> None:
    store = UnreliableStore()
    with strict(local_bedrock, budget({"premium": 40 * DOLLAR}), store=store, on_store_error="open") as bedrock:
        call(bedrock)
        store.go_away()
        assert isinstance(calls_until_refused(bedrock), StoreError)
        assert len(served(local_bedrock)) > 2
        store.come_back()
        assert billed(local_bedrock) <= granted(bedrock)
        assert call(bedrock)["label"] == "premium"


def test_a_grant_whose_answer_is_lost_is_not_taken_twice(local_bedrock: LocalBedrock) -> None:
    store = UnreliableStore()
    with strict(local_bedrock, store=store) as bedrock:
        store.lose_grant_replies = 1
        with pytest.raises(StoreError):
            call(bedrock)
        first = granted(bedrock)
        record = call(bedrock)
        assert granted(bedrock) == first
    assert granted(bedrock) == record["cost_pico_usd"]


def test_a_call_that_fails_for_nothing_gives_its_hold_back(local_bedrock: LocalBedrock) -> None:
    with strict(local_bedrock) as bedrock, pytest.raises(Exception, match="Invalid"):
        bedrock.converse(messages=5, inferenceConfig=LIMIT)
    assert granted(bedrock) == 0


def test_a_failure_that_nobody_can_read_keeps_its_hold(
    local_bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**arguments: Any) -> None:
        error = ClientError({"Error": {"Code": "Odd"}}, "Converse")
        error.response = None  # type: ignore[assignment]
        raise error

    with strict(local_bedrock) as bedrock:
        monkeypatch.setattr(bedrock._client, "converse", broken)
        with pytest.raises(ClientError):
            call(bedrock)
        worst = worst_case(bedrock)
    assert granted(bedrock) == worst


def test_an_override_needs_a_hold(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    clock = ManualClock()
    until = int(clock.now().timestamp()) + 3600
    store.put_override("acme", "chat", Override("premium", "test", "ann", 0, until))
    config = budget({"premium": 20})
    with strict(local_bedrock, config, store=store, clock=clock) as bedrock, pytest.raises(BudgetExhausted):
        call(bedrock)
    assert served(local_bedrock) == []


# -- one call


def test_a_call_that_could_cost_too_much_is_refused(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as bedrock:
        with pytest.raises(
            CostLimitExceeded, match=r"could cost \$0\.0\d+, which is above max_cost_usd_micros \(\$0\.000500\)"
        ):
            call(bedrock, max_cost_usd_micros=500)
        assert call(bedrock, max_cost_usd_micros=50_000)["label"] == "premium"
        with pytest.raises(CostLimitExceeded):
            bedrock.invoke_model(modelId="economy", body=NOVA_BODY, max_cost_usd_micros=1)
        with pytest.raises(CostLimitExceeded):
            bedrock.converse_stream(messages=HELLO, max_cost_usd_micros=1)
        with pytest.raises(CostLimitExceeded):
            bedrock.invoke_model_with_response_stream(modelId="economy", body=NOVA_BODY, max_cost_usd_micros=1)
    assert served(local_bedrock) == [PREMIUM]


def test_a_calls_own_limit_wins_over_the_clients(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock, max_cost_usd_micros=500) as bedrock:
        with pytest.raises(CostLimitExceeded):
            call(bedrock)
        assert call(bedrock, max_cost_usd_micros=50_000)["label"] == "premium"


@pytest.mark.parametrize("wrong", [-1, 1.5, "5", True])
def test_a_limit_that_is_none_is_refused(local_bedrock: LocalBedrock, wrong: object) -> None:
    with metered(local_bedrock) as bedrock, pytest.raises(Exception, match=r"max_cost_usd_micros: .*whole number >= 0"):
        call(bedrock, max_cost_usd_micros=wrong)


# -- caps


@pytest.mark.parametrize("enforcement", ["normal", "strict"])
def test_a_daily_total_is_over_all_labels(local_bedrock: LocalBedrock, enforcement: str) -> None:
    local_bedrock.usage = Usage(0, 1000)  # $0.015 and $0.0032
    config = budget(daily_total_usd_micros=60_000)
    with metered(local_bedrock, config=config, enforcement=enforcement) as bedrock:
        said = str(calls_until_refused(bedrock))
        assert ("no room for this call" if enforcement == "strict" else "used up") in said
        assert "daily_total_usd_micros" in said
        total = sum(stored(bedrock, label).cost_pico_usd for label in LABELS)
    if enforcement == "strict":
        assert 60_000 * 1_000_000 - 16_000 * 1_000_000 < total <= 60_000 * 1_000_000
    else:
        assert 60_000 * 1_000_000 <= total <= 75_000 * 1_000_000


@pytest.mark.parametrize("enforcement", ["normal", "strict"])
def test_an_orgs_total_is_over_its_apps(local_bedrock: LocalBedrock, enforcement: str) -> None:
    local_bedrock.usage = Usage(0, 1000)
    config = budget()
    config["org_defaults"]["org_daily_total_usd_micros"] = 60_000
    with metered(local_bedrock, config=config, enforcement=enforcement) as bedrock:
        other = bedrock.for_app("billing")
        refused = str(calls_until_refused(bedrock, other))
        assert (
            "org_daily_total_usd_micros" if enforcement == "normal" else "is neither spent nor set aside"
        ) in refused
        scopes = (SCOPE, "ORG#acme#APP#billing")
        spent = sum(stored(bedrock, label, scope=scope).cost_pico_usd for label in LABELS for scope in scopes)
        assert stored(bedrock, "*", scope="ORG#acme").cost_pico_usd == spent
    assert spent <= 75_000 * 1_000_000 if enforcement == "normal" else spent <= 60_000 * 1_000_000


def test_holds_are_taken_in_all_pools_or_in_none(local_bedrock: LocalBedrock) -> None:
    config = budget(daily_total_usd_micros=20)
    with strict(local_bedrock, config) as bedrock:
        with pytest.raises(BudgetExhausted):
            call(bedrock)
        day = bedrock._scope.day
        assert day is not None
        assert [pool.slice.held for pool in day.snapshot.pools] == [0] * 4
    assert [granted(bedrock, label) for label in ("premium", "standard", "economy", "*")] == [0] * 4
    assert served(local_bedrock) == []
    assert STANDARD not in served(local_bedrock)


# -- what changes while calls are made


def test_a_model_outside_the_configuration_is_held_in_a_cap_that_comes_later(local_bedrock: LocalBedrock) -> None:
    local_bedrock.usage = Usage(0, 1000)
    store = MemoryStore()
    with metered(local_bedrock, config=budget(on_unknown_model="pass"), store=store) as bedrock:
        assert call(bedrock, modelId=OTHER)["label"] == "unlabelled"
        store.put_config("acme", None, {"enforcement": "strict", "daily_total_usd_micros": 3_000})
        look(bedrock)
        assert isinstance(calls_until_refused(bedrock, modelId=OTHER), BudgetExhausted)
        total = stored(bedrock, "unlabelled").cost_pico_usd
    assert 0 < total <= 3_000 * 1_000_000
    assert granted(bedrock, "*") == total


def test_a_view_that_cannot_read_its_limits_starts_no_call_and_leaves_those_of_others(
    local_bedrock: LocalBedrock,
) -> None:
    local_bedrock.usage = Usage(0, 1000)
    store = UnreliableStore()
    store.inner.put_config("acme", None, {"org_daily_total_usd_micros": 50_000})
    config = budget(org_daily_total_usd_micros=1_000_000)  # the file's is looser
    with strict(local_bedrock, config, store=store) as bedrock:
        call(bedrock)
        store.fails = lambda name, _: AWAY if name == "read_controls" else None
        others = [bedrock.for_app(f"app{number}") for number in range(3)]
        for other in others:
            with pytest.raises(StoreError, match="strict enforcement needs the Config items of ORG#acme#APP#app"):
                call(other)
        store.fails = lambda name, _: None
        assert isinstance(calls_until_refused(bedrock), BudgetExhausted)
        assert stored(bedrock, "*", scope="ORG#acme").cost_pico_usd <= 50_000 * 1_000_000


@pytest.mark.parametrize("config", [budget({"premium": None}), budget(on_unknown_model="pass")], ids=["label", "model"])
def test_what_is_not_held_obeys_on_store_error(local_bedrock: LocalBedrock, config: dict[str, Any]) -> None:
    store = UnreliableStore()
    asked = {} if config["org_defaults"]["quotas"]["premium"] is None else {"modelId": OTHER}
    with strict(local_bedrock, config, store=store, on_store_error="closed") as bedrock:
        call(bedrock, **asked)
        store.go_away()
        look(bedrock)
        with pytest.raises(StoreError, match="on_store_error is 'closed'"):
            call(bedrock, **asked)
        store.come_back()


def test_a_quota_that_an_item_lowers_holds_from_the_next_look_on(local_bedrock: LocalBedrock) -> None:
    local_bedrock.usage = Usage(0, 1000)
    store = MemoryStore()
    with strict(local_bedrock, budget(dict.fromkeys(LABELS, 1_000_000)), store=store) as bedrock:
        call(bedrock)
        store.put_config("acme", "chat", {"quotas": dict.fromkeys(LABELS, 20_000)})
        look(bedrock)
        assert "have no room for this call" in str(calls_until_refused(bedrock))
        assert stored(bedrock, "premium").cost_pico_usd <= 20_000 * 1_000_000


def test_a_refusal_names_what_has_no_room_and_what_to_do(local_bedrock: LocalBedrock) -> None:
    quotas = {"premium": None, "standard": 10**9, "economy": 0}
    config = budget(quotas, daily_total_usd_micros=100)
    with strict(local_bedrock, config) as bedrock, pytest.raises(BudgetExhausted) as caught:
        call(bedrock)
    said = str(caught.value)
    assert "are too small for this call" in said
    assert "premium: the call could cost $0.0" in said
    assert "of daily_total_usd_micros $0.000100 is neither spent nor set aside" in said
    assert "economy $0.000000 of $0.000000" in said
    assert "give it a lower limit of output tokens" in said


def test_a_call_that_botocore_repeated_keeps_its_hold_and_says_so_once(
    local_bedrock: LocalBedrock, caplog: pytest.LogCaptureFixture
) -> None:
    client = local_bedrock.client()
    with strict(local_bedrock, client=client) as bedrock:
        bedrock.decide()
        worst = worst_case(bedrock)
        for _ in range(2):
            local_bedrock.fail_next(status=429, code="ThrottlingException")
            call(bedrock)
    assert granted(bedrock) == 2 * worst
    assert sum("counts as its worst case" in each.message for each in caplog.records) == 1


def test_a_burst_against_a_cap_brings_the_next_look_forward(local_bedrock: LocalBedrock) -> None:
    config = budget(dict.fromkeys(LABELS), daily_total_usd_micros=1_000_000)
    with metered(local_bedrock, config=config) as bedrock:
        call(bedrock)
        day = bedrock._scope.day
        assert day is not None
        assert bedrock.flush(timeout=30)
        day.schedule = day.schedule.brought_forward()
        look(bedrock)
        day.schedule = replace(day.schedule, interval_secs=300.0)
        assert not day.is_surprised()
        local_bedrock.usage = Usage(0, 10_000)
        call(bedrock, inferenceConfig={"maxTokens": 10_000})
        assert day.is_surprised()

"""The keeper: what a call is told, what it costs, and what is asked of it besides calls."""

import logging
from typing import Any

import pytest
from doubles import CHAIN, CONFIG, LABEL_PRICE, ByHand, UnreliableStore, config, stored, usage_key

from bedrock_budget.core.errors import BodyNotPortable, StoreError, UnknownModel, UnknownPrice
from bedrock_budget.core.money import PICO_PER_MICRO
from bedrock_budget.core.outcomes import Outcome
from bedrock_budget.core.usage import Usage
from bedrock_budget.errors import BudgetExhausted
from bedrock_budget.explanation import percent
from bedrock_budget.stores import Override
from bedrock_budget.testing import ManualClock

DAY_ENDS = 1768521600


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def process(store: UnreliableStore, clock: ManualClock) -> ByHand:
    return ByHand(store, clock)


def pin(store: UnreliableStore, label: str) -> None:
    store.put_override("acme", "chat", Override(label, "incident 7", "ann", 0, DAY_ENDS))


# --- records


def test_a_record_is_empty_until_its_call_settles_and_complete_afterwards(process: ByHand) -> None:
    call = process.admit()
    assert call.record["model_id"] == "model.premium"
    assert call.record == {
        "label": "premium",
        "model_id": "model.premium",
        "label_asked": "premium",
        "reason": "default",
        "mode": "normal",
        "org_day": "20260115",
        "usage": None,
        "cost_pico_usd": None,
        "cost_usd_micros": None,
        "estimated": False,
        "degraded": False,
    }
    record = call.settle(Usage(3, 4, 0, 0, 0))
    assert record is call.record
    assert record["cost_usd_micros"] == 7
    assert record["cost_pico_usd"] == 7 * PICO_PER_MICRO
    assert record["usage"]["output_tokens"] == 4
    assert not record["estimated"]


def test_a_refused_call_costs_nothing_and_is_not_counted(process: ByHand, store: UnreliableStore) -> None:
    record = process.admit().free()
    assert set(record["usage"].values()) == {0}
    assert record["cost_pico_usd"] == 0
    process.write()
    assert store.batches == []


def test_a_call_of_unknown_outcome_is_an_estimate_that_counts(process: ByHand, store: UnreliableStore) -> None:
    record = process.admit().settle_unknown("unanswered")
    assert record["estimated"]
    assert record["cost_pico_usd"] > 0
    process.write()
    assert stored(store, usage_key()).cost_pico_usd == record["cost_pico_usd"]


@pytest.mark.parametrize(
    ("asked", "label", "reason"),
    [
        (None, "premium", "default"),
        ("auto", "premium", "default"),
        ("premium", "premium", "requested"),
        ("standard", "standard", "requested"),
        ("model.economy", "economy", "requested"),
        ("embed", "embed", "requested"),
        ("model.embed", "embed", "requested"),
    ],
)
def test_what_is_asked_for_is_where_the_chain_begins(
    process: ByHand, asked: str | None, label: str, reason: str
) -> None:
    assert process.goes_to(asked) == (label, reason)


def test_from_the_threshold_on_the_mode_is_tight_and_usage_is_hurried(process: ByHand) -> None:
    hurried: list[bool] = []
    process.keeper.meter.hurry = lambda: hurried.append(True)  # type: ignore[method-assign]
    assert process.spend(9)["mode"] == "normal"
    assert hurried == []
    assert process.spend(1)["mode"] == "normal"  # 1 % of the quota is unsent
    assert hurried == [True]
    process.write()
    process.spend(939)
    assert process.admit().record["mode"] == "normal"
    process.write()
    hurried.clear()
    process.spend(1)
    assert hurried == [True]
    assert process.admit().record["mode"] == "tight"


# --- models and prices that are not configured


def test_a_model_outside_the_configuration_is_rejected_with_what_there_is(process: ByHand) -> None:
    with pytest.raises(UnknownModel, match=r"'other' is neither.*premium \(model\.premium\).*on_unknown_model"):
        process.admit("other")


def test_or_passes_at_its_list_price_under_a_label_of_its_own(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, on_unknown_model="pass", on_exhausted="raise")
    for _ in range(2):
        record = process.admit("amazon.nova-micro-v1:0").settle(Usage(1_000_000))
        assert (record["label"], record["reason"], record["label_asked"]) == ("unlabelled", "unlabelled", "unlabelled")
        assert record["cost_usd_micros"] > 0
    process.write()
    assert stored(store, usage_key("unlabelled")).requests == 2
    assert stored(store, *(usage_key(label) for label in CHAIN)).requests == 0
    with pytest.raises(UnknownPrice, match=r"'other'.*label unlabelled, region us-east-1"):
        process.admit("other")


def unpriced(**org_defaults: Any) -> dict[str, Any]:
    labels = {**CONFIG["model_labels"], "premium": {"id": "model.premium"}}
    return {**config(**org_defaults), "model_labels": labels}


def test_a_label_without_a_price_is_rejected_before_the_call(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, unpriced())
    with pytest.raises(UnknownPrice, match=r"model_labels\.premium"):
        process.admit()
    assert process.goes_to("standard") == ("standard", "requested")


def test_or_tracked_at_no_cost_and_marked(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, unpriced(), on_unknown_price="track")
    record = process.spend(10)
    assert (record["cost_pico_usd"], record["estimated"]) == (0, True)
    process.write()
    assert stored(store, usage_key()).usage.input_tokens == 10


def test_or_priced_as_configured(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, unpriced(), on_unknown_price=2_000_000)
    assert process.spend(10)["cost_usd_micros"] == 20


# --- nothing left


def test_when_all_is_used_up_the_refusal_says_what_and_until_when(process: ByHand) -> None:
    for label in CHAIN:
        process.spend(1000, label)
    with pytest.raises(BudgetExhausted) as refused:
        process.admit("standard")
    error = refused.value
    message = str(error)
    assert "standard $0.001000 of $0.001000" in message
    assert "premium" not in message
    assert error.retry_at.timestamp() == DAY_ENDS
    assert error.record is not None
    assert error.record["cost_pico_usd"] == 0
    assert (error.record["label"], error.record["label_asked"]) == (None, "standard")


def test_or_the_last_label_that_has_a_quota_serves_on(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, config(quotas={"premium": 5, "standard": 5, "economy": 0}), on_exhausted="last")
    process.spend(5)
    process.spend(5)
    assert process.spend(5)["label"] == "standard"
    assert process.goes_to() == ("standard", "exhausted")
    assert process.spend(5)["mode"] == "tight"


def test_a_label_outside_the_ordering_is_a_chain_of_itself(store: UnreliableStore, clock: ManualClock) -> None:
    quotas = {**CONFIG["org_defaults"]["quotas"], "embed": 5}
    process = ByHand(store, clock, config(quotas=quotas))
    process.spend(5, "embed")
    with pytest.raises(BudgetExhausted, match=r"embed \$0\.000005 of \$0\.000005"):
        process.admit("embed")
    assert process.goes_to() == ("premium", "default")


FAMILIES = {
    "premium": {"id": "anthropic.claude-sonnet-4-5-20250929-v1:0", **LABEL_PRICE},
    "standard": {"id": "amazon.nova-pro-v1:0", **LABEL_PRICE},
    "economy": {"id": "amazon.nova-micro-v1:0", **LABEL_PRICE},
}


def test_a_body_that_fits_one_family_goes_to_no_other(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, {**config(), "model_labels": FAMILIES})

    def invoke(asked: str | None) -> str:
        call = process.keeper.admit(process.scope, asked, "InvokeModel", {}, fixed_body=True)
        return str(call.settle(Usage(1000))["label"])

    assert invoke("standard") == "standard"
    assert invoke("premium") == "premium"
    with pytest.raises(BodyNotPortable, match=r"premium \(anthropic.*economy \(takes"):
        invoke("premium")
    assert invoke("standard") == "economy"
    pin(store, "economy")
    process.look_when_due()
    assert invoke("standard") == "economy"
    with pytest.raises(BodyNotPortable, match=r"economy \(takes"):
        invoke("premium")


# --- overrides


def test_an_override_may_come_from_outside_the_ordering(process: ByHand, store: UnreliableStore) -> None:
    pin(store, "embed")
    call = process.admit()
    assert (call.record["label"], call.record["reason"], call.record["model_id"]) == (
        "embed",
        "override",
        "model.embed",
    )
    decision = process.keeper.decide(process.scope, None)
    assert decision.label == "embed"
    assert decision.quota_usd_micros is None
    assert "Override by ann: incident 7." in decision.explanation
    assert process.keeper.model_id_for_counting(process.scope, None) == "model.embed"
    assert not any(row.in_force for row in process.keeper.status(process.scope))


# --- asking


def test_a_decision_explains_itself_and_spends_nothing(process: ByHand, store: UnreliableStore) -> None:
    process.spend(400)
    process.spend(1000, "economy")
    decision = process.keeper.decide(process.scope, None)
    assert (decision.label, decision.model_id, decision.label_asked) == ("premium", "model.premium", "premium")
    assert (decision.reason, decision.mode, decision.org_day) == ("default", "normal", "20260115")
    assert (decision.spend_usd_micros, decision.quota_usd_micros, decision.degraded) == (400, 1000, False)
    assert "premium: $0.000400 of $0.001000 (40.00 %)" in decision.explanation
    assert "org day 20260115 (UTC), normal mode" in decision.explanation
    process.spend(600)
    process.write()
    process.look_when_due()
    explanation = process.keeper.decide(process.scope, None).explanation
    assert "the scope has already fallen back to it, or to a label before it, today" in explanation
    assert "Sticky on standard until the day ends." in explanation
    store.go_away()
    process.look_when_due()
    assert "Degraded" in process.keeper.decide(process.scope, None).explanation
    process.write()
    assert stored(store, usage_key()).requests == 2


def test_a_decision_on_a_model_without_a_label_or_a_quota(store: UnreliableStore, clock: ManualClock) -> None:
    process = ByHand(store, clock, config(quotas=dict.fromkeys(CHAIN)), on_unknown_model="pass")
    decision = process.keeper.decide(process.scope, "amazon.nova-micro-v1:0")
    assert (decision.label, decision.quota_usd_micros) == ("unlabelled", None)
    assert "premium: $0.000000 unlimited" in decision.explanation


def test_status_is_read_fresh_and_adds_what_is_not_written(process: ByHand, store: UnreliableStore) -> None:
    other = ByHand(store, process.clock)
    process.admit()
    other.spend(100)
    other.write()
    process.spend(50)
    process.write()
    process.spend(5)
    store.lose_replies = 1
    process.write()  # in the store, but this process does not know it
    process.spend(1)
    process.spend(2, "standard")
    rows = process.keeper.status(process.scope)
    assert [row.label for row in rows] == list(CHAIN)
    premium, standard, economy = rows
    assert (premium.spend_usd_micros, premium.input_tokens, premium.requests) == (156, 156, 4)
    assert (premium.quota_usd_micros, premium.quota_pct, premium.mode) == (1000, 15.6, "normal")
    assert (standard.spend_usd_micros, economy.spend_usd_micros) == (2, 0)
    assert [row.in_force for row in rows] == [True, False, False]
    process.write()
    assert process.keeper.status(process.scope)[0].spend_usd_micros == 156


def test_status_when_nothing_is_left_and_when_the_store_is_away(process: ByHand, store: UnreliableStore) -> None:
    for label in CHAIN:
        process.spend(1000, label)
    rows = process.keeper.status(process.scope)
    assert not any(row.in_force for row in rows)
    assert {row.mode for row in rows} == {"tight"}
    assert process.keeper.model_id_for_counting(process.scope, None) == "model.premium"
    store.go_away()
    with pytest.raises(StoreError):
        process.keeper.status(process.scope)


@pytest.mark.parametrize(
    ("asked", "model_id"),
    [(None, "model.premium"), ("auto", "model.premium"), ("economy", "model.economy"), ("any.model", "any.model")],
)
def test_the_model_that_tokens_are_counted_for(process: ByHand, asked: str | None, model_id: str) -> None:
    assert process.keeper.model_id_for_counting(process.scope, asked) == model_id


@pytest.mark.parametrize(
    ("spend", "quota", "expected"),
    [(0, None, None), (5, 0, 100.0), (0, 3, 0.0), (1, 4, 25.0), (5, 4, 125.0), (1, 3, 100 / 3)],
)
def test_percent_of_a_quota(spend: int, quota: int | None, expected: float | None) -> None:
    assert percent(spend, quota) == expected


# --- the way of a call, and its end


def test_a_call_with_warm_caches_asks_nobody(process: ByHand, store: UnreliableStore) -> None:
    process.spend(1)
    store.calls.clear()
    for asked in (None, "premium", "embed", "model.standard"):
        process.spend(1, asked)
    assert store.calls == []


def test_deferred_settlements_are_known_to_the_next_decision(process: ByHand) -> None:
    call = process.admit()
    process.keeper.meter.defer(lambda: call.settle(Usage(1000)))
    assert process.goes_to() == ("standard", "quota")


class Stream:
    def __init__(self, process: ByHand) -> None:
        self._call = process.admit()

    def abandon(self, ending: Outcome | None = None) -> None:
        self._call.settle(Usage(7))


def test_the_end_of_the_process_settles_open_streams_and_writes(
    process: ByHand, store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    process.spend(1)
    streams = [Stream(process) for _ in range(3)]
    for stream in streams:
        process.keeper.meter.opened(stream)
    process.keeper.at_exit(5)
    assert stored(store, usage_key()).cost_pico_usd == 22 * PICO_PER_MICRO
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_flush_says_whether_all_is_written(process: ByHand, store: UnreliableStore) -> None:
    process.spend(1)
    store.go_away()
    assert process.keeper.flush(0) is False
    store.come_back()
    assert process.keeper.flush(5) is True
    process.keeper.close()

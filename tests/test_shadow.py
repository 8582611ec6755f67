"""`enforcement="shadow"`: everything is decided and counted, and nothing is changed."""

from typing import Any

import pytest
from metered import (
    ECONOMY,
    HELLO,
    NOVA_BODY,
    PREMIUM,
    RECORD_KEYS,
    STANDARD,
    budget,
    metered,
    record_of,
    served,
    stored,
)

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.usage import Usage
from bedrock_budget.status import read_shadow
from bedrock_budget.stores import MemoryStore, Override, Stop
from bedrock_budget.testing import LocalBedrock, ManualClock

SHADOW = "ORG#acme#APP#chat#SHADOW"
TIGHT = {"premium": 20_000, "standard": 5_000, "economy": 300}
PREMIUM_CALL, STANDARD_CALL, ECONOMY_CALL = 15_000_000_000, 3_200_000_000, 140_000_000  # 1,000 output tokens


@pytest.fixture(autouse=True)
def _calls_of_1000_tokens(local_bedrock: LocalBedrock) -> None:
    local_bedrock.usage = Usage(0, 1000)


def shadowed(server: LocalBedrock, config: dict[str, Any] | None = None, **keywords: Any) -> PriceKeeperClient:
    return metered(server, config=config or budget(TIGHT), enforcement="shadow", **keywords)


def call(bedrock: PriceKeeperClient, **arguments: Any) -> dict[str, Any]:
    return record_of(bedrock.converse(messages=HELLO, **arguments))


def test_every_call_goes_where_it_would_go_without_the_library(local_bedrock: LocalBedrock) -> None:
    with shadowed(local_bedrock) as bedrock:
        for _ in range(8):
            call(bedrock)
        call(bedrock, modelId="standard")
        call(bedrock, modelId=ECONOMY)
        call(bedrock, modelId="meta.llama3-1-8b-instruct-v1:0")
        bedrock.invoke_model(modelId="economy", body=NOVA_BODY)
    others = [STANDARD, ECONOMY, "meta.llama3-1-8b-instruct-v1:0", ECONOMY]
    assert served(local_bedrock) == [PREMIUM] * 8 + others


def test_what_the_budget_would_have_done_is_in_the_record(local_bedrock: LocalBedrock) -> None:
    with shadowed(local_bedrock) as bedrock:
        records = [call(bedrock) for _ in range(8)]
    assert list(records[0]) == [*RECORD_KEYS, "shadow"]
    assert {(record["label"], record["reason"]) for record in records} == {("premium", "default")}
    labels = ["premium", "premium", "standard", "standard", "economy", "economy", "economy", None]
    assert [record["shadow"]["label"] for record in records] == labels
    reasons = ["default", "default", *["quota"] * 5, "exhausted"]
    assert [record["shadow"]["reason"] for record in records] == reasons
    assert records[-1]["cost_pico_usd"] == PREMIUM_CALL


def test_status_says_what_would_have_been_saved(local_bedrock: LocalBedrock) -> None:
    with shadowed(local_bedrock) as bedrock:
        for _ in range(8):
            call(bedrock)
        premium, standard, economy = bedrock.status()
        assert (premium.requests, premium.spend_usd_micros) == (8, 8 * 15_000)
        assert (standard.requests, economy.requests) == (0, 0)
        assert (premium.shadow_requests, premium.shadow_spend_usd_micros) == (2, 30_000)
        assert (standard.shadow_requests, standard.shadow_spend_usd_micros) == (2, 6_400)
        assert (economy.shadow_requests, economy.shadow_spend_usd_micros) == (3, 420)
        assert stored(bedrock, "premium").cost_pico_usd == 8 * PREMIUM_CALL
        assert stored(bedrock, "premium", scope=SHADOW).cost_pico_usd == 2 * PREMIUM_CALL
        assert stored(bedrock, "standard", scope=SHADOW).cost_pico_usd == 2 * STANDARD_CALL
        assert stored(bedrock, "economy", scope=SHADOW).cost_pico_usd == 3 * ECONOMY_CALL


def test_moves_and_refusals_are_counted_over_all_processes_and_models(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    for _ in range(2):
        with shadowed(local_bedrock, store=store) as bedrock:
            for _ in range(4):
                call(bedrock)
            call(bedrock, modelId="standard")
            call(bedrock, modelId="nobody.knows-v1:0")
            day = bedrock._scope.day
            assert day is not None
            assert bedrock.flush(timeout=30)
            sums = read_shadow(day.snapshot, store, bedrock._keeper.meter)
    assert sums is not None
    real = 8 * PREMIUM_CALL + 2 * STANDARD_CALL
    would = sum(stored(bedrock, label, scope=SHADOW).cost_pico_usd for label in ("premium", "standard", "economy"))
    assert sums == (12, 5, 5, real - would)


def test_a_decision_shows_what_would_have_been_spent(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    with shadowed(local_bedrock, store=store) as bedrock:
        call(bedrock)
    with shadowed(local_bedrock, store=store) as bedrock:
        assert bedrock.decide().spend_usd_micros == 15_000


def test_other_modes_have_no_shadow_figures(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as bedrock:
        assert "shadow" not in call(bedrock)
        assert {row.shadow_requests for row in bedrock.status()} == {None}


def test_a_second_process_goes_on_from_what_the_first_would_have_spent(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    with shadowed(local_bedrock, store=store) as one:
        for _ in range(2):
            call(one)
    with shadowed(local_bedrock, store=store) as other:
        assert call(other)["shadow"]["label"] == "standard"


def test_nothing_refuses_a_call(local_bedrock: LocalBedrock) -> None:
    store, clock = MemoryStore(), ManualClock()
    now = int(clock.now().timestamp())
    store.put_stop("acme", Stop(None, "ann", "a leak", now, None))
    config = budget(TIGHT, daily_total_usd_micros=0, max_cost_usd_micros=0, stop_at_pct=1)
    with shadowed(local_bedrock, config, store=store, clock=clock, on_store_error="closed") as bedrock:
        assert call(bedrock)["shadow"] == {"label": None, "reason": "stopped"}
        assert bedrock.decide().label == "premium"
        assert "would have refused it (stopped)" in bedrock.decide().explanation
    assert served(local_bedrock) == [PREMIUM]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"daily_total_usd_micros": 0}, "exhausted"), ({"max_cost_usd_micros": 5}, "cost_limit")],
)
def test_what_would_have_refused_is_named(local_bedrock: LocalBedrock, limits: dict[str, int], reason: str) -> None:
    with shadowed(local_bedrock, budget(TIGHT, **limits)) as bedrock:
        assert call(bedrock)["shadow"] == {"label": None, "reason": reason}


def test_an_override_is_counted_and_not_followed(local_bedrock: LocalBedrock) -> None:
    store, clock = MemoryStore(), ManualClock()
    until = int(clock.now().timestamp()) + 3600
    store.put_override("acme", "chat", Override("economy", "test", "ann", 0, until))
    with shadowed(local_bedrock, store=store, clock=clock) as bedrock:
        record = call(bedrock)
    assert (record["label"], record["shadow"]) == ("premium", {"label": "economy", "reason": "override"})


def test_an_unknown_price_or_model_does_not_stop_a_call(local_bedrock: LocalBedrock) -> None:
    config = budget(TIGHT)
    config["model_labels"]["premium"] = {"id": "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc123def456"}
    with shadowed(local_bedrock, config) as bedrock:
        record = call(bedrock)
        assert (record["cost_pico_usd"], record["estimated"]) == (0, True)
        assert record["shadow"] == {"label": None, "reason": "unknown_price"}
        assert call(bedrock, modelId="nobody.knows-v1:0")["shadow"] == {"label": None, "reason": "unknown_model"}


def test_an_orgs_cap_counts_what_is_spent_and_what_would_have_been(local_bedrock: LocalBedrock) -> None:
    config = budget(TIGHT, org_daily_total_usd_micros=40_000)
    with shadowed(local_bedrock, config) as bedrock:
        labels = [call(bedrock)["shadow"]["label"] for _ in range(9)]
        assert labels == ["premium", "premium", "standard", "standard", "economy", "economy", "economy", None, None]
        assert stored(bedrock, "*", scope="ORG#acme").cost_pico_usd == 9 * PREMIUM_CALL
        would = 2 * PREMIUM_CALL + 2 * STANDARD_CALL + 3 * ECONOMY_CALL
        assert stored(bedrock, "*", scope="ORG#acme#SHADOW").cost_pico_usd == would


def test_a_callable_body_is_made_for_the_label_that_serves(local_bedrock: LocalBedrock) -> None:
    seen: list[str] = []

    def body(decision: Any) -> bytes:
        seen.append(decision.label)
        return NOVA_BODY

    with shadowed(local_bedrock, budget({**TIGHT, "economy": 0})) as bedrock:
        bedrock.invoke_model(modelId="economy", body=body)
    assert seen == ["economy"]

"""The record that each response carries: its keys, every reason, modes, and exact and rounded costs."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from metered import (
    CLAUDE_BODY,
    HELLO,
    NEXT_TO_NOTHING,
    PREMIUM,
    PRICES,
    RECORD_KEYS,
    USAGE_KEYS,
    budget,
    metered,
    record_of,
    stored,
)

from bedrock_budget import BudgetExhausted, PriceKeeperClient, StoreError
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import MemoryStore, Override
from bedrock_budget.testing import LocalBedrock, ManualClock


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    with metered(local_bedrock) as client:
        yield client


def call(bedrock: PriceKeeperClient, model_id: str | None = None) -> dict[str, Any]:
    return record_of(bedrock.converse(modelId=model_id, messages=HELLO))


def test_usage_and_costs_are_none_until_it_is_settled(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    local_bedrock.usage = Usage(1, 2, 3, 4, 5)
    response = bedrock.converse_stream(messages=HELLO)
    record = record_of(response)
    assert list(record) == RECORD_KEYS
    assert [key for key in record if record[key] is None] == ["usage", "cost_pico_usd", "cost_usd_micros"]
    list(response["stream"])
    assert list(record["usage"].items()) == list(zip(USAGE_KEYS, range(1, 6), strict=True))


def test_it_is_complete_when_the_call_returns(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    local_bedrock.usage = Usage(1, 2, 3, 4, 5)
    invoked = bedrock.invoke_model(body=CLAUDE_BODY)
    invoked["body"].read()
    for record in (call(bedrock), record_of(invoked)):
        assert record == {
            "label": "premium",
            "model_id": PREMIUM,
            "label_asked": "premium",
            "reason": "default",
            "mode": "normal",
            "org_day": "20260115",
            "usage": {
                "input_tokens": 1,
                "output_tokens": 2,
                "cache_read_tokens": 3,
                "cache_write_5m_tokens": 4,
                "cache_write_1h_tokens": 5,
            },
            "cost_pico_usd": 3_000_000 + 2 * 15_000_000 + 3 * 300_000 + 4 * 3_750_000 + 5 * 6_000_000,
            "cost_usd_micros": 79,  # 78.9
            "estimated": False,
            "degraded": False,
        }
        assert list(record) == RECORD_KEYS
        assert list(record["usage"]) == USAGE_KEYS
        assert all(type(count) is int for count in record["usage"].values())
        assert type(record["cost_pico_usd"]) is type(record["cost_usd_micros"]) is int
    assert stored(bedrock, "premium").cost_pico_usd == local_bedrock.ledger.cost_pico_usd(PRICES)


def test_its_keys_are_the_same_in_responses_streams_and_errors(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    response = bedrock.converse_stream(messages=HELLO)
    assert list(record_of(response)) == RECORD_KEYS
    list(response["stream"])
    assert list(record_of(response)) == RECORD_KEYS
    local_bedrock.fail_next(status=400, code="ValidationException")
    with pytest.raises(ClientError) as refused:
        call(bedrock)
    assert list(record_of(refused.value)) == RECORD_KEYS
    with metered(local_bedrock, config=budget(dict.fromkeys(("premium", "standard", "economy"), 0))) as exhausted:
        with pytest.raises(BudgetExhausted) as caught:
            call(exhausted)
        assert list(record_of(caught.value)) == RECORD_KEYS
        assert list(record_of(caught.value)["usage"]) == USAGE_KEYS


def test_every_reason(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    config = budget({"premium": NEXT_TO_NOTHING}, on_exhausted="last", on_unknown_model="pass")
    seen = []
    with metered(local_bedrock, config=config, store=store) as bedrock:
        seen += [call(bedrock, model_id)["reason"] for model_id in (None, "standard", None)]
        seen.append(call(bedrock, "amazon.nova-lite-v1:0")["reason"])
    with metered(local_bedrock, config=config, store=store) as later:
        seen.append(call(later)["reason"])
    tight = budget(dict.fromkeys(("premium", "standard", "economy"), NEXT_TO_NOTHING), on_exhausted="last")
    with metered(local_bedrock, config=tight) as used_up:
        seen.append([call(used_up)["reason"] for _ in range(4)][-1])
    store.put_override("acme", None, Override("economy", "why", "ops", 0, 4_000_000_000))
    with metered(local_bedrock, config=config, store=store) as pinned:
        seen.append(call(pinned)["reason"])
    assert seen == ["default", "requested", "quota", "unlabelled", "sticky", "exhausted", "override"]


def test_the_mode_is_tight_from_the_threshold_on(local_bedrock: LocalBedrock) -> None:
    local_bedrock.usage = Usage(100, 0)  # $0.0003: 300 micros of 1,000
    config = budget({"premium": 1_000}, tight_mode_threshold_pct=60)
    with metered(local_bedrock, config=config) as bedrock:
        assert [call(bedrock)["mode"] for _ in range(4)] == ["normal", "normal", "tight", "tight"]
        assert bedrock.status()[0].mode == "tight"
        assert bedrock.status()[1].mode == "normal"


@pytest.mark.parametrize(
    ("tokens", "price", "pico", "micros"),
    [
        (1, 499_999, 499_999, 0),
        (1, 500_000, 500_000, 1),  # half a micro
        (3, 500_000, 1_500_000, 2),
        (5, 500_000, 2_500_000, 3),  # up, not to the even one
        (1, 1_499_999, 1_499_999, 1),
        (0, 999, 0, 0),
    ],
)
def test_costs_are_exact_and_rounded_half_up_where_they_are_shown(
    local_bedrock: LocalBedrock, tokens: int, price: int, pico: int, micros: int
) -> None:
    local_bedrock.usage = Usage(tokens, 0)
    config = budget()
    config["model_labels"]["premium"] |= {"input_price_usd_micros_per_1m": price}
    with metered(local_bedrock, config=config) as bedrock:
        record = call(bedrock)
        assert (record["cost_pico_usd"], record["cost_usd_micros"]) == (pico, micros)
        assert bedrock.decide().spend_usd_micros == bedrock.status()[0].spend_usd_micros == micros
        call(bedrock)
        assert stored(bedrock, "premium").cost_pico_usd == 2 * pico  # nothing was rounded on the way
        assert bedrock.status()[0].spend_usd_micros == (2 * pico + 500_000) // 1_000_000


def test_20_and_5_tokens_of_nova_micro_are_not_free(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    local_bedrock.usage = Usage(20, 5)
    record = call(bedrock, "economy")
    assert (record["cost_pico_usd"], record["cost_usd_micros"]) == (1_400_000, 1)


def test_the_day_is_the_one_in_which_the_call_started(local_bedrock: LocalBedrock, manual_clock: ManualClock) -> None:
    with metered(local_bedrock, clock=manual_clock) as bedrock:
        response = bedrock.converse_stream(messages=HELLO)
        manual_clock.advance(12 * 3600)
        assert call(bedrock)["org_day"] == "20260116"
        list(response["stream"])
        assert record_of(response)["org_day"] == "20260115"
        assert stored(bedrock, "premium").requests == 1
        assert stored(bedrock, "premium", day="20260116").requests == 1


class AwayStore(MemoryStore):
    """A store that cannot be reached."""

    def read_controls(self, *_: Any, **__: Any) -> Any:
        raise StoreError("the store is away")


@pytest.mark.parametrize("policy", ["open", 1_000])
def test_a_call_without_the_store_says_degraded(local_bedrock: LocalBedrock, policy: Any) -> None:
    with metered(local_bedrock, store=AwayStore(), on_store_error=policy) as bedrock:
        for _ in range(3):
            assert call(bedrock)["degraded"] is True
        assert bedrock.decide().degraded is True
        assert "Degraded" in bedrock.decide().explanation
        if policy != "open":
            call(bedrock)  # 309 micros each
            with pytest.raises(StoreError, match=r"has spent \$0\.001"):
                call(bedrock)


def test_a_store_that_is_away_refuses_where_it_must(local_bedrock: LocalBedrock) -> None:
    with (
        metered(local_bedrock, store=AwayStore(), on_store_error="closed") as bedrock,
        pytest.raises(StoreError, match="on_store_error is 'closed': the store is away"),
    ):
        call(bedrock)
    assert not local_bedrock.ledger.entries()

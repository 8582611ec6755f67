"""Calls cost what they were served as: tier, latency, long prompts; what is not listed is estimated, and said."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from metered import HELLO, NOVA_BODY, budget, metered, record_of
from streaming import serve

from bedrock_budget import PriceKeeperClient, call
from bedrock_budget.hold import Hold
from bedrock_budget.testing import LocalBedrock
from bedrock_budget.testing.event_stream import event_frame

NOVA = "amazon.nova-pro-v1:0"
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
#: List prices of Nova Pro, in pico-USD a token.
LISTED = {"default": (800_000, 3_200_000), "flex": (400_000, 1_600_000), "priority": (1_400_000, 5_600_000)}


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch) -> Iterator[PriceKeeperClient]:
    monkeypatch.setattr(call, "_warned", set())
    config = budget()
    config["model_labels"].update(standard={"id": NOVA}, premium={"id": SONNET})
    with metered(local_bedrock, config=config) as client:
        yield client


def converse(client: PriceKeeperClient, **arguments: Any) -> dict[str, Any]:
    return record_of(client.converse(modelId="standard", messages=HELLO, **arguments))


def converse_stream(client: PriceKeeperClient, **arguments: Any) -> dict[str, Any]:
    response = client.converse_stream(modelId="standard", messages=HELLO, **arguments)
    list(response["stream"])
    return record_of(response)


def in_words(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the other operations call tier and latency."""
    words: dict[str, Any] = {}
    if "serviceTier" in arguments:
        words["serviceTier"] = arguments["serviceTier"]["type"]
    if "performanceConfig" in arguments:
        words["performanceConfigLatency"] = arguments["performanceConfig"]["latency"]
    return words


def invoke(client: PriceKeeperClient, **arguments: Any) -> dict[str, Any]:
    return record_of(client.invoke_model(modelId="standard", body=NOVA_BODY, **in_words(arguments)))


def invoke_stream(client: PriceKeeperClient, **arguments: Any) -> dict[str, Any]:
    response = client.invoke_model_with_response_stream(modelId="standard", body=NOVA_BODY, **in_words(arguments))
    list(response["body"])
    return record_of(response)


WAYS = (converse, converse_stream, invoke, invoke_stream)


def cost(record: dict[str, Any], rates: tuple[int, int]) -> int:
    return int(record["usage"]["input_tokens"] * rates[0] + record["usage"]["output_tokens"] * rates[1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tier", ["default", "flex", "priority"])
def test_a_tier_has_its_price(bedrock: PriceKeeperClient, way: Any, tier: str) -> None:
    record = way(bedrock, serviceTier={"type": tier})
    assert record["cost_pico_usd"] == cost(record, LISTED[tier]) > 0
    assert not record["estimated"]


@pytest.mark.parametrize("way", WAYS)
def test_a_latency_without_a_listed_price_is_estimated_and_said_once(
    bedrock: PriceKeeperClient, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "bedrock_budget"):
        record = way(bedrock, performanceConfig={"latency": "optimized"})
        assert way(bedrock, performanceConfig={"latency": "optimized"})["estimated"]
    assert record["cost_pico_usd"] == cost(record, (1_000_000, 4_000_000))
    assert record["estimated"]
    [said] = [one.getMessage() for one in caplog.records if "not listed" in one.getMessage()]
    assert said == (
        f"{NOVA} was served in the tier 'default' at the latency 'optimized', whose price is not listed: its cost is "
        "estimated"
    )


def test_what_was_served_counts_not_what_was_asked(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
    body: dict[str, Any] = {"output": {"message": {"role": "assistant", "content": []}}, "stopReason": "end_turn"}
    for asked, given, rates, estimated in (
        ("priority", {"type": "default"}, LISTED["default"], False),
        ("priority", None, LISTED["default"], False),
        ("default", {"type": "priority"}, LISTED["priority"], False),
        ("flex", {"type": "ultra"}, LISTED["priority"], True),  # the dearest known
        ("default", {"type": "reserved"}, LISTED["default"], True),  # paid by the hour
    ):
        said = {} if given is None else {"serviceTier": given}
        reply = json.dumps({**body, "usage": usage, "metrics": {"latencyMs": 1}, **said}).encode()
        local_bedrock.raw_next(200, {"content-type": "application/json"}, reply)
        record = converse(bedrock, serviceTier={"type": asked})
        assert (record["cost_pico_usd"], record["estimated"]) == (10 * rates[0] + 5 * rates[1], estimated)


def test_the_headers_of_a_botocore_that_does_not_know_them_count(
    bedrock: PriceKeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bedrock._client.invoke_model

    def older(**arguments: Any) -> dict[str, Any]:
        response: dict[str, Any] = plain(**arguments)
        del response["serviceTier"]
        return response

    monkeypatch.setattr(bedrock._client, "invoke_model", older)
    record = invoke(bedrock, serviceTier={"type": "flex"})
    assert record["cost_pico_usd"] == cost(record, LISTED["flex"])


def test_long_prompts_cost_what_they_do(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    for read, rates in ((100_000, (3_300_000, 16_500_000, 330_000)), (100_001, (6_600_000, 24_750_000, 660_000))):
        usage = {"inputTokens": 100_000, "outputTokens": 5, "totalTokens": 0, "cacheReadInputTokens": read}
        frame = event_frame("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})
        serve(local_bedrock, [frame])
        response = bedrock.converse_stream(modelId="premium", messages=HELLO)
        list(response["stream"])
        assert record_of(response)["cost_pico_usd"] == 100_000 * rates[0] + 5 * rates[1] + read * rates[2]


def test_a_stream_that_broke_costs_what_was_asked_for_unless_that_is_cheaper(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient
) -> None:
    for tier, rates in (("priority", LISTED["priority"]), ("flex", LISTED["default"])):
        serve(local_bedrock, [event_frame("messageStart", {"role": "assistant"})])
        record = converse_stream(bedrock, serviceTier={"type": tier})
        assert record["estimated"]
        assert record["cost_pico_usd"] == cost(record, rates) > 0


def test_prices_by_hand_are_flat(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as client:
        record = converse(client, serviceTier={"type": "priority"}, performanceConfig={"latency": "optimized"})
    assert record["cost_pico_usd"] == cost(record, (800_000, 3_200_000))
    assert not record["estimated"]


def test_shadow_accounts_follow_what_was_served_too(local_bedrock: LocalBedrock) -> None:
    config = budget(daily_total_usd_micros=None)
    config["model_labels"]["standard"] = {"id": NOVA}
    with metered(local_bedrock, config=config, enforcement="shadow") as client:
        record = converse(client, serviceTier={"type": "flex"})
        assert record["cost_pico_usd"] == cost(record, LISTED["flex"])
        status = {row.label: row for row in client.status()}
    assert (
        status["standard"].shadow_spend_usd_micros == status["standard"].spend_usd_micros == record["cost_usd_micros"]
    )


def test_a_hold_is_kept_where_the_price_may_be_too_low(
    local_bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    settle = Hold.settle

    def noting(self: Hold, cost_pico_usd: int) -> None:
        kept.append(self.keep)
        settle(self, cost_pico_usd)

    monkeypatch.setattr(Hold, "settle", noting)
    config = budget()
    config["model_labels"]["standard"] = {"id": NOVA}
    arguments: list[dict[str, Any]] = [
        *({"serviceTier": {"type": tier}} for tier in ("default", "priority", "reserved")),
        {"performanceConfig": {"latency": "optimized"}},
    ]
    with metered(local_bedrock, config=config, enforcement="strict") as client:
        records = [converse(client, **more) for more in arguments]
    assert [record["estimated"] for record in records] == [False, False, True, True]
    assert kept == [False, False, False, True]

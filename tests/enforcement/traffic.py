"""The calls that workers make: what the server bills for each is told by its text, which the library does not read."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from faults.traffic import timezone_far_from_midnight
from metered import ECONOMY, PRICES, STANDARD, priced

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.keys import UsageKey, scope_key
from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import LedgerEntry, LocalBedrock, Request

ORG, APP = "acme", "fleet"
LABEL, MODEL = "premium", STANDARD
NEXT_LABEL, NEXT_MODEL = "economy", ECONOMY
SHARDS = 8
INPUT_TOKENS = 20


def config(quota_pico_usd: int, *, next_label: bool = False) -> dict[str, Any]:
    """One label with a quota; behind it nothing, or one without."""
    ordering = [LABEL, NEXT_LABEL] if next_label else [LABEL]
    return {
        "model_labels": {LABEL: priced(MODEL), NEXT_LABEL: priced(NEXT_MODEL)},
        "metering": {"usage_agg_shard_count": SHARDS},
        "org_defaults": {
            "timezone": timezone_far_from_midnight(datetime.now(UTC)),
            "model_ordering": ordering,
            "quotas": {LABEL: quota_pico_usd // 10**6, NEXT_LABEL: None},
        },
    }


def key_of(config: Mapping[str, Any]) -> UsageKey:
    """The key of the quota, today."""
    zone = ZoneInfo(config["org_defaults"]["timezone"])
    return UsageKey(scope_key(ORG, APP), LABEL, datetime.now(zone).strftime("%Y%m%d"))


def call(output_tokens: int, max_tokens: int) -> dict[str, Any]:
    """The arguments of a call that will be answered with so many tokens."""
    text = f"{output_tokens:06}"
    return {"messages": [{"role": "user", "content": [{"text": text}]}], "inferenceConfig": {"maxTokens": max_tokens}}


def usage_of_request(request: Request) -> Usage:
    """What the server bills."""
    return Usage(INPUT_TOKENS, int(request.body["messages"][0]["content"][0]["text"]))


def cost_of(output_tokens: int) -> int:
    """What a call costs, in pico-USD."""
    return INPUT_TOKENS * PRICES[MODEL].input + output_tokens * PRICES[MODEL].output


def spend(entries: Iterable[LedgerEntry]) -> int:
    """What the label's calls among a server's entries cost, in pico-USD."""
    usages = [entry.usage for entry in entries if entry.billed and entry.model_id == MODEL]
    return sum(cost_of(usage.output_tokens) for usage in usages)


def worst_case(max_tokens: int) -> int:
    """What strict enforcement holds for such a call, in pico-USD: the library's own figure."""
    settings: dict[str, Any] = {"org_id": ORG, "app_id": APP, "config": config(10**12), "store": "memory://"}
    with LocalBedrock() as server, PriceKeeperClient(server.client(), **settings) as bedrock:
        bedrock.decide()
        day = bedrock._scope.day
        assert day is not None
        bound = day.snapshot.routes[LABEL].worst_case
        assert bound is not None
        return bound.pico_usd(call(0, max_tokens))

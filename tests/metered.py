"""What the tests of the client share: a configuration with prices by hand, a client under it, and its figures."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from botocore.config import Config

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.account import Amounts
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.pricing import Price
from bedrock_budget.testing import LocalBedrock, ManualClock

PREMIUM = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
STANDARD = "amazon.nova-pro-v1:0"
ECONOMY = "amazon.nova-micro-v1:0"
EMBED = "amazon.titan-embed-text-v2:0"

#: USD micros per 1M tokens, that is, pico-USD per token.
PRICES = {
    PREMIUM: Price(3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000),
    STANDARD: Price(800_000, 3_200_000, 200_000, 800_000, 800_000),
    ECONOMY: Price(35_000, 140_000, 8_750, 35_000, 35_000),
    EMBED: Price(20_000, 0, 20_000, 20_000, 20_000),
}
RECORD_KEYS = [
    *("label", "model_id", "label_asked", "reason", "mode", "org_day"),
    *("usage", "cost_pico_usd", "cost_usd_micros", "estimated", "degraded"),
]
USAGE_KEYS = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"]

HELLO: list[dict[str, Any]] = [{"role": "user", "content": [{"text": "Hello, world"}]}]  # 3 tokens for LocalBedrock
CLAUDE_BODY = b'{"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": []}'
NOVA_BODY = b'{"messages": [{"role": "user", "content": [{"text": "Hello, world"}]}]}'

#: A client that botocore does not repeat calls for, so that one failure is one failure.
ONE_ATTEMPT = Config(retries={"total_max_attempts": 1})

#: Enough for any number of calls, and for none after the first.
PLENTY, NEXT_TO_NOTHING = 1_000_000_000, 1


def priced(model_id: str) -> dict[str, Any]:
    """A label's entry with the price of `PRICES`."""
    keys = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    prices = {f"{key}_price_usd_micros_per_1m": getattr(PRICES[model_id], key) for key in keys}
    return {"id": model_id, **prices}


LABELS = {
    "embed": priced(EMBED),
    "twin": priced(STANDARD),  # comes first here and last in the ordering
    "premium": priced(PREMIUM),
    "standard": priced(STANDARD),
    "economy": priced(ECONOMY),
}


def budget(quotas: Mapping[str, int | None] | None = None, **org_defaults: Any) -> dict[str, Any]:
    """A configuration: three labels in order and one outside it. Keywords go into ``org_defaults``."""
    return {
        "model_labels": deepcopy(LABELS),
        "org_defaults": {
            "timezone": "UTC",
            "model_ordering": ["premium", "standard", "economy"],
            "quotas": {"premium": PLENTY, "standard": PLENTY, "economy": PLENTY, **(quotas or {})},
            **org_defaults,
        },
    }


def metered(server: LocalBedrock, **keywords: Any) -> PriceKeeperClient:
    """A client of ``server`` under a budget: the one above, unless a keyword says otherwise."""
    defaults: dict[str, Any] = {
        "org_id": "acme",
        "app_id": "chat",
        "config": budget(),
        "store": "memory://",
        "clock": ManualClock(),
        "drain_abandoned": False,  # test_draining.py has it on
    }
    client = keywords.pop("client", None) or server.client(config=ONE_ATTEMPT)
    return PriceKeeperClient(client, **{**defaults, **keywords})


def record_of(answer: Mapping[str, Any] | BaseException) -> dict[str, Any]:
    """The library's record in a response or a service error."""
    response: Any = answer.response if isinstance(answer, BaseException) else answer  # type: ignore[attr-defined]
    record: dict[str, Any] = response["ResponseMetadata"]["PriceKeeper"]
    return record


def stored(bedrock: PriceKeeperClient, label: str, scope: str = "ORG#acme#APP#chat", day: str = "20260115") -> Amounts:
    """What the store has for a label, exactly, once all is written."""
    assert bedrock.flush(timeout=30)
    key = UsageKey(scope, label, day)
    return bedrock._keeper.store.read_shards({key: 8})[key].amounts


def spent(bedrock: PriceKeeperClient) -> list[tuple[int, int]]:
    """(settled calls, pico-USD) of each label of the default ordering."""
    amounts = [stored(bedrock, label) for label in ("premium", "standard", "economy")]
    return [(each.requests, each.cost_pico_usd) for each in amounts]


def served(server: LocalBedrock) -> list[str]:
    """The model ids of all requests that reached the server, as it saw them."""
    return [entry.model_id for entry in server.ledger.entries()]

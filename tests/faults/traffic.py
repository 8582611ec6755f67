"""The calls that workers make, and what each costs: both can be told from the server's ledger alone."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from bedrock_budget.core.keys import UsageKey, scope_key
from bedrock_budget.core.pricing import Price, cost_pico_usd
from bedrock_budget.core.usage import Usage
from bedrock_budget.prices import bundled
from bedrock_budget.testing import LedgerEntry, Request

ORG = "acme"
APPS = ("chat", "search", "batch")
MODELS = {"premium": "amazon.nova-pro-v1:0", "economy": "amazon.nova-micro-v1:0"}
SHARDS = 8

_LABELS = {model: label for label, model in MODELS.items()}


def config(timezone: str) -> dict[str, Any]:
    """The budget of all workers: no quota is ever used up."""
    return {
        "model_labels": {label: {"id": model} for label, model in MODELS.items()},
        "metering": {"usage_agg_shard_count": SHARDS},
        "org_defaults": {
            "timezone": timezone,
            "model_ordering": list(MODELS),
            "quotas": dict.fromkeys(MODELS),
        },
    }


def timezone_far_from_midnight(now: datetime) -> str:
    """A time zone in which it is about six in the morning: a run stays within one org day."""
    ahead = (6 - now.astimezone(UTC).hour) % 24
    ahead = ahead - 24 if ahead > 12 else ahead
    return f"Etc/GMT{-ahead:+d}"  # the sign in these names is the other way round


def day_in(timezone: str, now: datetime) -> str:
    """The org day."""
    return now.astimezone(ZoneInfo(timezone)).strftime("%Y%m%d")


def text_of_call(app: int, generation: int, number: int) -> str:
    """The text of a call's message: whose it is."""
    return f"{app} {generation} {number}"


def usage_of_request(request: Request) -> Usage:
    """The tokens that the server bills: they carry the app and the worker's generation into the ledger."""
    app, generation, number = map(int, request.body["messages"][0]["content"][0]["text"].split())
    return Usage(1000 * app + number % 1000, 1 + number % 7, generation)


def app_of(entry: LedgerEntry) -> str:
    """The app that made the call."""
    return APPS[entry.usage.input_tokens // 1000]


def generation_of(entry: LedgerEntry) -> int:
    """The worker generation that made the call."""
    return entry.usage.cache_read_tokens


def key_of(entry: LedgerEntry, day: str) -> UsageKey:
    """What the call is to be counted under."""
    return UsageKey(scope_key(ORG, app_of(entry)), _LABELS[entry.model_id], day)


def all_keys(day: str) -> list[UsageKey]:
    """Everything that workers can be counted under."""
    return [UsageKey(scope_key(ORG, app), label, day) for app in APPS for label in MODELS]


class Prices:
    """What ledger entries cost."""

    def __init__(self) -> None:
        self._prices: dict[str, Price] = {}
        for model in MODELS.values():
            row = bundled().find(model, region="us-east-1", on=datetime.now(UTC).date())
            assert row is not None
            self._prices[model] = row.price

    def cost(self, entry: LedgerEntry) -> int:
        """Pico-USD."""
        return cost_pico_usd(entry.usage, self._prices[entry.model_id])

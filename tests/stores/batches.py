"""Batches, amounts and keys for the stores' tests."""

import itertools
import os
import secrets

from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.keys import UsageKey, scope_key, shard_of
from bedrock_budget.core.usage import Usage

#: 2026-01-23 15:00:00 UTC
NOW = 1769180400.0
HOUR = "2026012315"
DAY = "20260123"
SHARDS = 8

_numbers = itertools.count(1)


def new_key(label: str = "premium") -> UsageKey:
    """A usage key that nothing was written to."""
    return UsageKey(scope_key(f"org{os.getpid()}-{next(_numbers)}", "chat"), label, DAY)


def new_writer() -> str:
    """A writer id."""
    return "w" + secrets.token_urlsafe(8)[:10]


def amounts(cost_pico_usd: int = 1_400_000, requests: int = 1) -> Amounts:
    """A small amount."""
    return Amounts(cost_pico_usd, Usage(20, 5, 3, 2, 1), requests)


def times(one: Amounts, count: int) -> Amounts:
    """``count`` times an amount."""
    return Amounts(one.cost_pico_usd * count, Usage(*(tokens * count for tokens in one.usage)), one.requests * count)


def batch(
    key: UsageKey,
    writer_id: str,
    sequence: int,
    of: Amounts | None = None,
    *,
    shard: int | None = None,
    shard_count: int = SHARDS,
) -> Batch:
    """A batch as a writer makes it."""
    if shard is None:
        shard = shard_of(writer_id, shard_count)
    return Batch(key, writer_id, sequence, shard, shard_count, of or amounts())

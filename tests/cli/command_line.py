"""Running commands in the test's own process, and the usage that they find."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

from bedrock_budget.cli import main
from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.keys import UsageKey, scope_key
from bedrock_budget.core.money import PICO_PER_MICRO
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import Store
from bedrock_budget.testing import ManualClock

#: Thursday, 2026-01-15, 13:00 in Berlin and 07:00 in New York.
DAY = "20260115"
NOW_EPOCH = int(ManualClock().now().timestamp())

_sequences = itertools.count(1)


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def spend(
    store: Store,
    org_id: str,
    app_id: str | None,
    label: str,
    usd_micros: int,
    *,
    usage: Usage = Usage(),  # noqa: B008 - immutable
    requests: int = 1,
    shard_count: int = 8,
) -> None:
    """Write usage, as a program does."""
    key = UsageKey(scope_key(org_id, app_id), label, DAY)
    amounts = Amounts(usd_micros * PICO_PER_MICRO, usage, requests)
    store.write_batch(Batch(key, "wAAAAAAAAAA", next(_sequences), 3, shard_count, amounts), now_epoch=NOW_EPOCH)


def run_main(*words: str, clock: ManualClock | None = None) -> int:
    """One command line, at the manual clock's time."""
    return main(list(words), clock=clock or ManualClock())

"""What was metered: the shards of each scope and label, day by day."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from ..core.account import ZERO
from ..core.budget import ALL_LABELS, UNLABELLED, ScopeBudget
from ..core.errors import ConfigError
from ..core.keys import SHADOW_SUFFIX, UsageKey, scope_key
from ..stores import Store
from .records import Metered, Range, model_name

KEYS_AT_ONCE = 50
#: Usage may be written so long after its day: by a client that was cut off, by a journal's replay.
LATE = timedelta(days=2)
#: Time zones are up to so far from UTC.
_FARTHEST = timedelta(hours=14)

BudgetOf = Callable[[str, str | None], ScopeBudget]


class Place(NamedTuple):
    """An org and app, as a scope key has them; ``app_id`` None: all of the org's."""

    org_id: str
    app_id: str | None


def place_of(scope: str) -> Place | None:
    """What a scope key stands for; None for one that counts what others count as well (shadow enforcement)."""
    if scope.endswith(SHADOW_SUFFIX) or not scope.startswith("ORG#"):
        return None
    org_id, mark, app_id = scope.removeprefix("ORG#").partition("#APP#")
    return Place(org_id, app_id if mark else None)


def written_keys(store: Store, days: Range) -> dict[UsageKey, int]:
    """What usage was written by on these days or up to `LATE` after them, listed or not, with shard counts."""
    utc_days = days.utc_days()
    keys = store.active_keys(_hours(utc_days[0].starts_at - _FARTHEST, utc_days[-1].ends_at + _FARTHEST + LATE))
    return {
        key: shards
        for key, shards in keys.items()
        if key.day in days.days and key.label != ALL_LABELS and place_of(key.scope) is not None
    }


def read_metered(
    store: Store, places: Iterable[Place], written: Mapping[UsageKey, int], days: Range, budget_of: BudgetOf
) -> tuple[list[Metered], list[str]]:
    """What the store has of some orgs and apps on these days, and what to know about it.

    ``written``: as `written_keys`; it adds labels that the configuration no longer has. Raises StoreError.
    """
    metered: list[Metered] = []
    notes: list[str] = []
    shards: dict[UsageKey, int] = {}
    models: dict[tuple[str, str], str] = {}
    for place in sorted(set(places), key=lambda each: (each.org_id, each.app_id or "")):
        try:
            budget = budget_of(*place)
        except ConfigError as exc:
            notes.append(f"{scope_key(*place)} is left out, as it has no valid configuration: {exc}")
            continue
        models[budget.scope, UNLABELLED] = UNLABELLED
        for label, mapped in budget.labels.items():
            models[budget.scope, label] = model_name(mapped.model_id)
        for scope, label in list(models):
            if scope == budget.scope:
                shards.update((UsageKey(scope, label, day), budget.shard_count) for day in days.days)
        for key, shard_count in written.items():
            if key.scope == budget.scope:
                shards[key] = max(shard_count, budget.shard_count)
    for some in _chunks(sorted(shards)):
        sums = store.read_shards({key: shards[key] for key in some})
        totals = store.read_totals(some)
        for key in some:
            amounts = sums[key].amounts
            if amounts == ZERO and key in totals:  # the shards of an old day may have been deleted
                amounts = totals[key].amounts
            if amounts != ZERO:
                model = models.get((key.scope, key.label), f"{key.label} (not in the configuration)")
                metered.append(Metered(key.day, key.scope, key.label, model, amounts))
    return metered, notes


def _chunks(keys: Sequence[UsageKey]) -> Iterator[Sequence[UsageKey]]:
    return (keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE))


def _hours(begin: datetime, end: datetime) -> list[str]:
    count = int((end - begin).total_seconds() // 3600) + 1
    return [f"{begin + timedelta(hours=more):%Y%m%d%H}" for more in range(count)]

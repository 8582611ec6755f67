"""What `status()` shows: every label of the ordering today, read fresh from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from .core.account import Account, Amounts
from .core.errors import ConfigError
from .core.keys import UsageKey
from .core.money import micros_half_up
from .core.selection import Choice, mode_of, select
from .explanation import percent
from .meter import Meter
from .record import LabelStatus
from .scopes import ScopeDay
from .snapshots import Route, Snapshot
from .stores.contract import Store


def read_status(day: ScopeDay, now: datetime, store: Store, meter: Meter) -> list[LabelStatus]:
    """Every label of the ordering, by the consistent sum of its shards and what this process has not written yet.

    Raises StoreError if the store cannot be read, ConfigError for a mistake in a Config item.
    """
    if isinstance(day.error, ConfigError):
        raise day.error  # these would be the figures of another budget
    snapshot = day.snapshot
    spent = [snapshot.real[route.label] if snapshot.real else route.account for route in snapshot.chain]
    would = [route.account for route in snapshot.chain] if snapshot.real else []
    amounts = _read(store, meter, [*spent, *would])
    pools = {route.label: route.pool.slice.key for route in snapshot.chain if route.pool is not None}
    granted: Mapping[UsageKey, int] = store.read_granted(pools.values()) if pools else {}
    in_force = None if snapshot.stop_at(now) else route_in_force(snapshot, now)
    rows: list[LabelStatus] = []
    for route, account in zip(snapshot.chain, spent, strict=True):
        quota = route.quota_pico_usd
        found = amounts[account]
        row = LabelStatus(
            label=route.label,
            model_id=route.model_id,
            spend_usd_micros=micros_half_up(found.cost_pico_usd),
            quota_usd_micros=None if quota is None else micros_half_up(quota),
            quota_pct=percent(found.cost_pico_usd, quota),
            **found.usage._asdict(),
            requests=found.requests,
            in_force=route is in_force,
            outcomes=account.outcome_counts(),
            mode=mode_of(found.cost_pico_usd, quota, snapshot.budget.tight_mode_threshold_pct),
        )
        if route.pool is not None:
            row = replace(row, granted_usd_micros=micros_half_up(granted.get(pools[route.label], 0)))
        if snapshot.real:
            shadow = amounts[route.account]
            row = replace(
                row,
                shadow_spend_usd_micros=micros_half_up(shadow.cost_pico_usd),
                shadow_requests=shadow.requests,
            )
        rows.append(row)
    return rows


def _read(store: Store, meter: Meter, accounts: Sequence[Account]) -> dict[Account, Amounts]:
    """All that was spent, written or not."""
    begun = meter.begin_look()
    keys = {account.key: account.shard_count for account in accounts}
    sums = store.read_shards(keys, writer_id=meter.writer_id)
    amounts: dict[Account, Amounts] = {}
    with meter.lock:
        for account in accounts:
            found = sums[account.key]
            unseen = account.saw_shards(found.amounts.cost_pico_usd, found.writer_sequence, begun)
            amounts[account] = found.amounts.plus(unseen)
    return amounts


def route_in_force(snapshot: Snapshot, now: datetime) -> Route | None:
    """Where a call that names no label goes now, or would go if nothing were stopped; None if nowhere."""
    override = snapshot.override_at(now)
    if override is None and any(cap.spend >= cap.quota_pico_usd for cap in snapshot.caps):
        return None
    outcome = select(snapshot.chain, 0, False, snapshot.sticky, override, None, snapshot.serve_last)
    if isinstance(outcome, Choice):
        return snapshot.chain[outcome.place] if outcome.place >= 0 else override
    return None

"""What `status()` shows: every label of the ordering today, read fresh from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from .core.account import Account, Amounts, sum_of
from .core.errors import ConfigError
from .core.keys import SHADOW_MOVED, SHADOW_REFUSED, UsageKey
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
    granted = read_granted(snapshot, store)
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
        if snapshot.strict and quota is not None:
            row = replace(row, granted_usd_micros=micros_half_up(granted[route.label]))
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


class ShadowSums(NamedTuple):
    """What shadow enforcement has seen today, over all processes and labels: calls, those that it would have sent to
    another label, those that it would have refused, and what would have been saved, in pico-USD."""

    calls: int
    moved: int
    refused: int
    saved_pico_usd: int


def read_shadow(snapshot: Snapshot, store: Store, meter: Meter) -> ShadowSums | None:
    """None under another enforcement. Raises StoreError."""
    if snapshot.real is None:
        return None
    real = list(snapshot.real.values())
    amounts = _read(store, meter, [*real, *snapshot.accounts, *snapshot.judged.values()])
    spent = sum_of(amounts[account] for account in real)
    would = sum_of(amounts[account] for account in snapshot.accounts)
    moved, refused = (amounts[snapshot.judged[name]].requests for name in (SHADOW_MOVED, SHADOW_REFUSED))
    return ShadowSums(spent.requests, moved, refused, spent.cost_pico_usd - would.cost_pico_usd)


def read_granted(snapshot: Snapshot, store: Store) -> dict[str, int]:
    """Strict enforcement: what is granted of each quota, by label, and of each cap, by its name, in pico-USD."""
    claims = {claim.name: claim for route in snapshot.routes.values() for claim in route.claims}
    found: Mapping[UsageKey, int] = {}
    if claims:
        found = store.read_granted([claim.pool.slice.key for claim in claims.values()])
    return {name: found.get(claim.pool.slice.key, 0) for name, claim in claims.items()}


def route_in_force(snapshot: Snapshot, now: datetime) -> Route | None:
    """Where a call that names no label goes now, or would go if nothing were stopped; None if nowhere."""
    override = snapshot.override_at(now)
    if override is None and any(cap.spend >= cap.quota_pico_usd for cap in snapshot.caps):
        return None
    outcome = select(snapshot.chain, 0, False, snapshot.sticky, override, None, snapshot.serve_last)
    if isinstance(outcome, Choice):
        return snapshot.chain[outcome.place] if outcome.place >= 0 else override
    return None

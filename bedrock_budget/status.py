"""What `status()` shows: every label of the ordering today, read fresh from the store."""

from datetime import datetime

from .core.account import Amounts
from .core.errors import ConfigError
from .core.money import micros_half_up
from .core.outcomes import Outcome
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
    begun = meter.begin_look()
    accounts = [route.account for route in snapshot.chain]
    keys = {account.key: account.shard_count for account in accounts}
    sums = store.read_shards(keys, writer_id=meter.writer_id)
    amounts: list[tuple[Amounts, dict[Outcome, int]]] = []
    with meter.lock:
        for account in accounts:
            found = sums[account.key]
            unseen = account.saw_shards(found.amounts.cost_pico_usd, found.writer_sequence, begun)
            amounts.append((found.amounts.plus(unseen), account.outcome_counts()))
    in_force = None if snapshot.stop_at(now) else route_in_force(snapshot, now)
    rows: list[LabelStatus] = []
    for route, (spent, counts) in zip(snapshot.chain, amounts, strict=True):
        quota = route.quota_pico_usd
        rows.append(
            LabelStatus(
                label=route.label,
                model_id=route.model_id,
                spend_usd_micros=micros_half_up(spent.cost_pico_usd),
                quota_usd_micros=None if quota is None else micros_half_up(quota),
                quota_pct=percent(spent.cost_pico_usd, quota),
                **spent.usage._asdict(),
                requests=spent.requests,
                in_force=route is in_force,
                outcomes=counts,
                mode=mode_of(spent.cost_pico_usd, quota, snapshot.budget.tight_mode_threshold_pct),
            )
        )
    return rows


def route_in_force(snapshot: Snapshot, now: datetime) -> Route | None:
    """Where a call that names no label goes now, or would go if nothing were stopped; None if nowhere."""
    override = snapshot.override_at(now)
    outcome = select(snapshot.chain, 0, False, snapshot.sticky, override, None, snapshot.serve_last)
    if isinstance(outcome, Choice):
        return snapshot.chain[outcome.place] if outcome.place >= 0 else override
    return None

"""The automatic stop: a scope whose settled spend reaches ``stop_at_pct`` of its daily total stops itself.

Once per scope and org day over the whole fleet, by a conditional write, until the day ends; what an operator has lifted
stays lifted. The consistent sums that it rests on are read only when effective spend says that they may be there.
"""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from .core.account import Account
from .core.keys import UsageKey, scope_key
from .core.money import usd_text
from .scopes import ScopeDay
from .snapshots import Snapshot
from .stores.contract import ShardSum, Stop, Store

log = logging.getLogger("bedrock_budget")

#: Who stops a scope that stops itself.
AUTOMATIC = "bedrock_budget (automatic)"

ReadShards = Callable[[Sequence[Account]], Mapping[UsageKey, ShardSum]]


def with_automatic_stop(
    scope: ScopeDay,
    snapshot: Snapshot,
    *,
    store: Store,
    now: datetime,
    read_shards: ReadShards,
    still_configured: Callable[[], bool],
) -> Snapshot:
    """The snapshot, stopped if the scope has spent too much. Raises StoreError.

    ``still_configured``: whether the budget is still what the snapshot says, read from the store now.
    """
    limit = snapshot.budget.stop_at_pico_usd
    if limit is None or not scope.may_stop_itself or snapshot.stop_at(now):
        return snapshot
    if sum(account.spend for account in snapshot.accounts) < limit:
        return snapshot
    settled = sum(found.amounts.cost_pico_usd for found in read_shards(snapshot.accounts).values())
    if settled < limit or not still_configured():
        return snapshot
    stop = Stop(
        app_id=None if snapshot.budget.scope == scope_key(scope.org_id, None) else scope.app_id,
        stopped_by=AUTOMATIC,
        reason=f"{usd_text(settled)} is spent, and stop_at_pct is {snapshot.budget.stop_at_pct}: {usd_text(limit)}",
        stopped_at_epoch=int(now.timestamp()),
        expires_at_epoch=int(scope.day.ends_at.timestamp()),
    )
    standing = store.put_automatic_stop(scope.org_id, stop, day=scope.day.name)
    if standing is None:
        scope.may_stop_itself = False  # lifted for the rest of the day
    return snapshot.with_stop(standing)


def note_stop(before: Stop | None, snapshot: Snapshot) -> None:
    """Log that a stop was made, replaced or lifted since the look before."""
    stop = snapshot.stop
    if stop == before:
        return
    if stop is None:
        log.warning("%s is no longer stopped", snapshot.budget.scope)
    else:
        level = logging.ERROR if stop.stopped_by == AUTOMATIC else logging.WARNING
        what = "are" if snapshot.real is None else "would be, but for enforcement: shadow,"
        log.log(level, "calls of %s %s refused: %s", snapshot.budget.scope, what, stop_text(stop, snapshot))


def stop_text(stop: Stop, snapshot: Snapshot) -> str:
    """Who has stopped an org or app, when, why and until when, and how to resume."""
    org_id, zone = snapshot.budget.org_id, snapshot.budget.timezone
    whose, app = f"org {org_id} (all apps)", ""
    if stop.app_id is not None:
        whose, app = f"app {stop.app_id} of org {org_id}", f" --app {shlex.quote(stop.app_id)}"
    until = stop.expires_at_epoch
    lasts = "until it is resumed" if until is None else f"until {datetime.fromtimestamp(until, zone).isoformat()}"
    stopped_at = datetime.fromtimestamp(stop.stopped_at_epoch, zone).isoformat()
    return (
        f"{whose} was stopped by {stop.stopped_by} at {stopped_at}, {lasts}: {stop.reason}. "
        f"To resume: bedrock-budget resume --org {shlex.quote(org_id)}{app}"
    )

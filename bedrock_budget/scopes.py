"""What this process knows of one org and app in one org day: who is where, and how fresh that is."""

import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .core.account import Account
from .core.days import OrgDay
from .core.refresh import Schedule
from .snapshots import Snapshot


class ScopeDay:
    """One org and app in one org day. Calls read it without a lock; looks replace its fields one by one."""

    snapshot: Snapshot  # set by who makes it

    def __init__(self, org_id: str, app_id: str | None, day: OrgDay) -> None:
        self.org_id = org_id
        self.app_id = app_id
        self.day = day
        self.starts_at = day.starts_at
        self.ends_at = day.ends_at
        self.items: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] | None = None
        self.prices_version = 0  # of the prices that the snapshot is bound to
        self.fresh_until = day.starts_at  # calls before this need nothing more; see `KnownScopes.ready`
        self.used_at: datetime = day.starts_at  # the start of the last call
        # How fresh it is. Times are the clock's monotonic seconds.
        self.tried = threading.Event()  # a look has been tried
        self.asked = False  # a call waits for it
        self.looking = False  # it is under way in the background
        self.looked = False  # a look has succeeded
        self.error: Exception | None = None  # why the last look failed
        self.trusted = False  # its budget was good when it was last looked at, perhaps the day before
        self.ticket = -1  # its newest place in the refresher's heap
        self.due_at = 0.0  # of the next look
        self.schedule = Schedule()  # of looks at the spend
        self.failures = 0
        self.may_stop_itself = True  # no automatic stop of the day has been lifted, as far as is known
        self._blind_before = 0
        self._own_at_look = 0
        self._earlier: tuple[Account, ...] = ()  # of days before, not yet written

    def is_surprised(self) -> bool:
        """Whether this process spends so fast that the next look should not wait until it is due."""
        return self.schedule.is_surprised(self.snapshot.intervals, self.snapshot.watched)

    @property
    def degraded(self) -> bool:
        """Whether the last look failed."""
        return self.error is not None

    def awaits_look(self, now: datetime) -> bool:
        """Whether a call has to wait: no look has been tried, or the last was too long ago (the process was frozen)."""
        return not self.tried.is_set() or (self.error is None and now >= self.fresh_until)

    def succeeded(self) -> None:
        """A look has succeeded: blind spending starts from here."""
        self.error = None
        self.looked = True
        self.failures = 0
        self._blind_before = 0
        self._own_at_look = self._own()

    def follow(self, before: "ScopeDay") -> None:
        """Take over what was spent and the store does not know yet: only its coming back ends that, not midnight. So
        with a stop: it stands until a look says otherwise."""
        self.snapshot = self.snapshot.with_stop(before.snapshot.stop)
        if before.degraded:
            self._blind_before = before.blind_pico_usd()
            shared = set(before.snapshot.accounts).intersection(self.snapshot.accounts)  # it may be the same day
            self._own_at_look = sum(account.own for account in shared)
        self._earlier = before.unwritten()

    def failed(self, error: Exception) -> None:
        self.error = error
        self.failures += 1
        self.fresh_until = self.starts_at

    def blind_pico_usd(self) -> int:
        """What this process has spent in the scope since its last successful look."""
        return self._blind_before + max(self._own() - self._own_at_look, 0)

    def unwritten(self) -> tuple[Account, ...]:
        """The accounts of the scope, this day's and earlier ones, of which something is not written."""
        return tuple(each for each in dict.fromkeys((*self._earlier, *self.snapshot.accounts)) if each.dirty)

    def unwritten_pico_usd(self) -> int:
        """What this process has spent in the scope and the store is not known to have."""
        return sum(account.unwritten_cost for account in self.unwritten())

    def _own(self) -> int:
        return sum(account.own for account in self.snapshot.accounts)

    def leave(self) -> None:
        """End the day for this process now: the next call enters it afresh."""
        self.ends_at = self.fresh_until = self.starts_at

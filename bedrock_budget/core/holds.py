"""Strict enforcement: what a process has been granted of a quota, and what it has set aside for calls under way.

For each quota (a *pool*) and day the store keeps one figure: what is *granted*. Every process takes a *slice* by one
conditional write that never brings it above the quota, holds the worst case of a call out of its slice before the
call starts, and settles it to the real cost after it. What was spent stays granted for the day; what is neither spent
nor held can be returned. So

    spent + held <= granted to the processes <= quota

whatever happens to a process: one that crashes leaves its slice granted, because nothing can tell what it had in
flight; only its journal can.

A write is numbered as batches of usage are (`account.Batch`): frozen, repeated unchanged until its outcome is known,
one at a time for a slice, and applied once. All amounts are pico-USD. Not thread-safe: the meter's lock guards it.
"""

from typing import NamedTuple

from .keys import UsageKey

#: A slice is at most this part of the quota (0.25 %), or one worst case if that is more.
SLICES_A_QUOTA = 400


class Grant(NamedTuple):
    """One write to a pool: change what is granted, once.

    ``change_pico_usd``: > 0 takes, < 0 returns. ``quota_pico_usd``: a write is refused that would bring what is
    granted above it; None: never refused. ``spent_pico_usd``: what counts as granted where nothing was granted yet
    that day: spent before strict enforcement began.
    """

    key: UsageKey
    holder_id: str
    sequence: int
    change_pico_usd: int
    quota_pico_usd: int | None
    spent_pico_usd: int
    expires_at_epoch: int

    def fits(self, granted_pico_usd: int) -> bool:
        """Whether it may be applied on top of what is granted."""
        return self.quota_pico_usd is None or granted_pico_usd + self.change_pico_usd <= self.quota_pico_usd


class Granted(NamedTuple):
    """What became of a `Grant`, now or when it was first sent, and what is granted of the pool in all."""

    applied: bool
    granted_pico_usd: int


class Slice:
    """A process's part of one pool.

    ``granted``: what it has been granted and neither spent nor returned, nor is about to be returned by the write in
    flight: the store may have that back already. ``held``: of this, what is set aside for calls under way.
    """

    __slots__ = (
        "expires_at_epoch",
        "granted",
        "held",
        "holder_id",
        "in_flight",
        "key",
        "quota",
        "room",
        "sequence",
        "spent_before",
    )

    def __init__(self, key: UsageKey, holder_id: str, quota_pico_usd: int, expires_at_epoch: int) -> None:
        self.key = key
        self.holder_id = holder_id
        self.quota = quota_pico_usd
        self.expires_at_epoch = expires_at_epoch
        self.granted = 0
        self.held = 0
        self.sequence = 0
        self.in_flight: Grant | None = None
        self.spent_before: int | None = None  # by the shards, at this process's first write
        self.room: int | None = None  # what was not granted to anybody, when the store last said so

    @property
    def unheld(self) -> int:
        """What calls may be held out of. Negative: a call has cost more than its hold."""
        return self.granted - self.held

    @property
    def unused(self) -> int:
        """What is not held, and is not known to be returned."""
        return self.unheld - (0 if self.in_flight is None else min(self.in_flight.change_pico_usd, 0))

    def set_quota(self, quota_pico_usd: int) -> None:
        """Take from a quota that may have changed; who asks knows what it is."""
        if quota_pico_usd != self.quota:
            self.quota = quota_pico_usd
            self.room = None

    def hold(self, worst_case: int) -> bool:
        """Set aside the worst case of a call, if the slice has it."""
        if self.granted - self.held < worst_case:
            return False
        self.held += worst_case
        return True

    def settle(self, worst_case: int, charge: int) -> None:
        """A call that was held has cost ``charge``; the rest of its hold can be held again."""
        self.held -= worst_case
        self.granted -= charge

    def take(self, worst_case: int, *, most: int | None = None, slices: int = SLICES_A_QUOTA) -> Grant:
        """A write that takes what one more call needs; a whole slice, if there is room for it.

        ``most``: take no more than this, though at least what the call needs. ``slices``: how many the quota has.
        """
        need = worst_case - self.unheld
        change = max(need, self.quota // slices - self.granted)
        if most is not None:
            change = max(min(change, most), need)
        return self._send(change, self.quota)

    def give_back(self) -> Grant | None:
        """A write that returns what is not held (or, where calls have cost more than their holds, counts that as
        granted); None if there is nothing to say."""
        return self._send(-self.unheld, None) if self.unheld else None

    def renew(self) -> Grant:
        """A write that changes nothing but the sequence number: what an older record of this slice says of it no
        longer holds."""
        return self._send(0, None)

    def _send(self, change: int, quota: int | None) -> Grant:
        numbered = (self.key, self.holder_id, self.sequence + 1)
        grant = Grant(*numbered, change, quota, self.spent_before or 0, self.expires_at_epoch)
        self.send(grant)
        return grant

    def send(self, grant: Grant) -> None:
        """A write is in flight from here on: what it returns can be held no longer."""
        assert self.in_flight is None
        self.in_flight = grant
        self.sequence = grant.sequence
        self.granted += min(grant.change_pico_usd, 0)

    def answered(self, outcome: Granted) -> None:
        """The store has said what became of the write in flight."""
        grant = self._landed()
        if outcome.applied:
            self.granted += max(grant.change_pico_usd, 0)
        elif grant.quota_pico_usd is None:  # there is no such pool any more, so nothing of it is this slice's
            self.granted = min(self.granted, self.held)
            self.spent_before = None
        self.room = self.quota - outcome.granted_pico_usd

    def abandon(self) -> None:
        """Nobody will learn what became of the write in flight. What it took is not used, what it returned is gone: so
        less may be used than is granted, never more."""
        self._landed()

    def _landed(self) -> Grant:
        grant, self.in_flight = self.in_flight, None
        assert grant is not None
        return grant

"""One quota of one day under strict enforcement, as a process sees it: its slice, and what the store last said."""

from collections.abc import Sequence
from typing import NamedTuple

from .core.account import Account
from .core.holds import Slice
from .meter import Meter
from .outbox import CLOCK_STEP_SECS, IN_DOUBT_SECS
from .stores.contract import Store

#: A refusal speaks for a while: the store is asked again after this many times as long as asking took, or after a
#: tenth of the time since the first refusal, if that is longer, but no later than after a minute.
PAUSE_FACTOR = 20.0
PAUSE_SHARE = 0.1
LONGEST_PAUSE_SECS = 60.0


class Claim(NamedTuple):
    """A pool as one budget sees it: what sets its quota, for messages, and the quota."""

    name: str
    pool: "Pool"
    quota_pico_usd: int


class Pool:
    """See the module's text. The meter's lock guards it. ``accounts``: what is spent of the quota."""

    __slots__ = (
        "__weakref__",
        "accounts",
        "busy",
        "failures",
        "first_refused_at",
        "give_back_next",
        "retry_at",
        "sent_at",
        "slice",
        "used_at",
    )

    def __init__(self, slice_: Slice, accounts: Sequence[Account]) -> None:
        self.slice = slice_
        self.accounts = accounts
        self.busy = False  # a thread is waiting for the store's answer to the write in flight
        self.give_back_next = False  # somebody wanted to give back what is left, but it was busy
        self.sent_at: float | None = None  # epoch of the first attempt at the write in flight, where that matters
        self.failures = 0  # of the journal, when this was last written
        self.used_at = 0.0
        self.first_refused_at: float | None = None
        self.retry_at = 0.0

    def spent(self, store: Store, meter: Meter) -> int:
        """What has been spent of the quota, without holds perhaps: it counts where nothing is granted yet. Raises
        StoreError."""
        begun = meter.begin_look()
        accounts = self.accounts
        keys = {account.key: account.shard_count for account in accounts}
        sums = store.read_shards(keys, writer_id=meter.writer_id)
        spent = 0
        with meter.lock:
            for account in accounts:
                found = sums[account.key]
                unseen = account.saw_shards(found.amounts.cost_pico_usd, found.writer_sequence, begun)
                spent += found.amounts.cost_pico_usd + unseen.cost_pico_usd
        return spent

    def surely_refuses(self, worst_case: int, now: float) -> bool:
        """Whether the store need not be asked: it has just said that there is no room for as much.

        Without this, every call of a fleet that has used up a quota would be a write to one item.
        """
        share = self.slice
        if share.in_flight is not None or share.room is None or now >= self.retry_at:
            return False
        return worst_case - share.unheld > share.room

    def refused(self, began: float, now: float) -> None:
        """The store, asked at ``began``, has no room."""
        if self.first_refused_at is None:
            self.first_refused_at = now
        pause = max((now - began) * PAUSE_FACTOR, (now - self.first_refused_at) * PAUSE_SHARE)
        self.retry_at = now + min(pause, LONGEST_PAUSE_SECS)

    def is_in_doubt(self, now_epoch: float) -> bool:
        """Whether the store, if it keeps no number of this holder, would take the write in flight for another one."""
        if self.sent_at is None:
            self.sent_at = now_epoch
        return not -CLOCK_STEP_SECS < now_epoch - self.sent_at < IN_DOUBT_SECS

"""Strict enforcement in a process: its slices of quotas, and the holds of its calls. The rules: `core.holds`.

A call holds its worst case in every pool that it counts towards (its label's quota, the caps over all labels), in all
of them or none. While the slices last that is an addition under the meter's lock; when one does not, the call itself
takes another by one conditional write. What nobody uses goes back: after a while of idleness, when the store has no
more to grant (so that another process can use the rest), at the end of the day, and on `close`.
"""

import logging
import threading
import weakref
from collections.abc import Iterable, Sequence
from time import monotonic  # waiting is in real time, whatever the clock of the org days says
from typing import TYPE_CHECKING

from .clock import Clock
from .core.account import Account
from .core.errors import StoreError
from .core.holds import SLICES_A_QUOTA, Grant, Slice
from .core.keys import UsageKey
from .core.money import usd_text
from .meter import Meter
from .pool import Pool
from .stores.contract import SequenceConflict, Store
from .writers import new_writer_id

if TYPE_CHECKING:
    from .journal.journal import Journal
    from .journal.records import Record

log = logging.getLogger("bedrock_budget")

#: A slice that no call has used for this long goes back.
IDLE_SECS = 30.0
#: A call waits no longer than this for another one that is taking a slice.
WAIT_SECS = 10.0
#: A quota in so many slices that each call takes what it needs and no more.
NO_SLICES = 1 << 62
#: Others may take what a refusal has just said is left.
ATTEMPTS = 16


class Hold:
    """The worst case of one call, set aside in all of its pools until it is settled."""

    __slots__ = ("_owner", "keep", "pools", "worst_case")

    def __init__(self, owner: "Pools", pools: Sequence[Pool], worst_case: int) -> None:
        self._owner = owner
        self.pools = pools
        self.worst_case = worst_case
        self.keep = False  # all of it counts as spent, whatever the call says it cost

    def settle(self, cost_pico_usd: int) -> None:
        """The call has cost this much. Never raises for the store's sake."""
        charge = max(cost_pico_usd, self.worst_case) if self.keep else cost_pico_usd
        self._owner.settle(self.pools, self.worst_case, charge)


class Pools:
    """See the module's text. ``keep_nothing``: give back what a call has left at once, and leave no entry in the
    items: for processes that are many and short-lived (AWS Lambda)."""

    def __init__(
        self, store: Store, meter: Meter, clock: Clock, *, journal: "Journal | None", keep_nothing: bool = False
    ) -> None:
        self._store = store
        self._meter = meter
        self._clock = clock
        self._journal = journal
        self._keep_nothing = keep_nothing
        self._start_afresh()
        if journal is not None:
            journal.carry = self.records

    def _start_afresh(self) -> None:
        self._changed = threading.Condition(self._meter.lock)
        # One pool a key for as long as a scope or a call holds it, or anything has to be given back.
        self._pools: weakref.WeakValueDictionary[UsageKey, Pool] = weakref.WeakValueDictionary()
        self._granted: dict[Pool, None] = {}  # those that have been written
        self._closed = False

    def after_fork_in_child(self) -> None:
        """The slices are the parent's. Call it after the meter's."""
        self._start_afresh()

    def pool(self, key: UsageKey, quota_pico_usd: int, expires_at_epoch: int, accounts: Sequence[Account]) -> Pool:
        """The pool of a quota; the same one for all who ask."""
        with self._changed:
            pool = self._pools.get(key)
            if pool is None:
                pool = Pool(Slice(key, new_writer_id(), quota_pico_usd, expires_at_epoch), accounts)
                self._pools[key] = pool
            elif pool.slice.quota != quota_pico_usd:
                pool.slice.quota = quota_pico_usd
                pool.slice.room = None
            pool.accounts = accounts
            return pool

    # -- holds

    def hold(self, pools: Sequence[Pool], worst_case: int) -> Hold | Pool:
        """Set aside the worst case of a call in all of the pools; or in none, and the pool that has no room for it.

        Raises StoreError if the store has to be asked and does not answer.
        """
        journal = self._journal
        if journal is None:
            return self._hold_quickly(pools, worst_case) or self._hold_slowly(pools, worst_case)
        while True:
            failures = journal.failures
            hold = self._hold_quickly(pools, worst_case) or self._hold_slowly(pools, worst_case)
            journal.sync(self._changed)
            if isinstance(hold, Pool) or failures == journal.failures:
                return hold
            self.settle(pools, worst_case, 0)  # it is not on the journal, so a replay would give it back

    def _hold_quickly(self, pools: Sequence[Pool], worst_case: int) -> Hold | None:
        with self._changed:
            for pool in pools:
                share = pool.slice
                if share.granted - share.held < worst_case or not self._is_covered(pool):
                    return None
            for pool in pools:
                pool.slice.held += worst_case
            return self._held(pools, worst_case)

    def _hold_slowly(self, pools: Sequence[Pool], worst_case: int) -> Hold | Pool:
        done: list[Pool] = []
        try:
            for pool in pools:
                if not self._hold_one(pool, worst_case):
                    return pool
                done.append(pool)
            with self._changed:
                done = []
                return self._held(pools, worst_case)
        finally:
            with self._changed:
                for pool in done:
                    pool.slice.settle(worst_case, 0)

    def _held(self, pools: Sequence[Pool], worst_case: int) -> Hold:
        now = self._clock.monotonic()
        for pool in pools:
            pool.used_at = now
        if self._journal is not None:
            self._journal.held(worst_case, [pool.slice.holder_id for pool in pools])
        return Hold(self, pools, worst_case)

    def settle(self, pools: Sequence[Pool], worst_case: int, charge: int) -> None:
        """A call that was held has cost ``charge``."""
        with self._changed:
            for pool in pools:
                pool.slice.settle(worst_case, charge)
            if self._journal is not None:
                self._journal.settled(worst_case, charge, [pool.slice.holder_id for pool in pools])
        if self._keep_nothing or self._closed:
            self.give_back(pools)

    # -- slices

    def _hold_one(self, pool: Pool, worst_case: int) -> bool:
        deadline = monotonic() + WAIT_SECS
        share = pool.slice
        while True:
            with self._changed:
                if self._is_covered(pool) and share.hold(worst_case):
                    return True
                if pool.busy:
                    if not self._changed.wait(deadline - monotonic()):
                        raise StoreError(f"no slice of the quota of {share.key}: another call is waiting for the store")
                    continue
                if pool.surely_refuses(worst_case, self._clock.monotonic()):
                    return False
                pool.busy = True
            try:
                taken = self._take(pool, worst_case)
            finally:
                self._free(pool)
            if not taken:
                return False

    def _take(self, pool: Pool, worst_case: int) -> bool:
        """Take a slice that has room for a call. False if there is no room for it."""
        share = pool.slice
        began = self._clock.monotonic()
        if share.spent_before is None:
            share.spent_before = self._spent(pool)
        most: int | None = None
        for _ in range(ATTEMPTS):
            with self._changed:
                self._granted[pool] = None
                grant = share.in_flight or self._next_grant(share, worst_case, most)
            self._write(pool, grant)
            with self._changed:
                need = worst_case - share.unheld
                if need <= 0 and self._is_covered(pool):
                    pool.first_refused_at = None
                    return True
                if grant.change_pico_usd > 0:  # else it was an older write, whose outcome was not known
                    room = share.room or 0
                    if room < need:
                        break
                    most = room if most is None else need  # others are fast: ask for no more than that
        pool.refused(began, self._clock.monotonic())
        with self._changed:
            rest = share.give_back()  # it may be of use to others
        if rest is not None:
            self._write(pool, rest)
        return False

    def _next_grant(self, share: Slice, worst_case: int, most: int | None) -> Grant:
        if share.unheld >= worst_case:
            return share.renew()
        return share.take(worst_case, most=most, slices=NO_SLICES if self._keep_nothing else SLICES_A_QUOTA)

    def _write(self, pool: Pool, grant: Grant) -> None:
        """Send a grant that is in flight, for who has made the pool busy. Raises StoreError: it stays in flight."""
        journal = self._journal
        share = pool.slice
        failures = 0
        if journal is not None:
            with self._changed:
                failures = journal.failures
                journal.grant(grant)
            journal.sync(self._changed)
        try:
            outcome = self._store.write_grant(grant, once=self._keep_nothing)
        except SequenceConflict as exc:
            # Another program uses this holder's id. What calls hold goes on under a new one.
            with self._changed:
                pool.slice = Slice(share.key, new_writer_id(), share.quota, share.expires_at_epoch)
                pool.slice.held, pool.slice.granted = share.held, share.granted
            log.error("going on under a new holder id, because another program uses this one: %s", exc)
            raise
        with self._changed:
            share.answered(outcome)
            if journal is not None:
                pool.failures = failures
                journal.granted(grant, outcome.applied)

    def _free(self, pool: Pool) -> None:
        with self._changed:
            pool.busy = False
            self._changed.notify_all()

    def _spent(self, pool: Pool) -> int:
        """What has been spent of a quota, without holds perhaps: it counts where nothing is granted yet."""
        begun = self._meter.begin_look()
        accounts = pool.accounts
        keys = {account.key: account.shard_count for account in accounts}
        sums = self._store.read_shards(keys, writer_id=self._meter.writer_id)
        spent = 0
        with self._changed:
            for account in accounts:
                found = sums[account.key]
                unseen = account.saw_shards(found.amounts.cost_pico_usd, found.writer_sequence, begun)
                spent += found.amounts.cost_pico_usd + unseen.cost_pico_usd
        return spent

    def _is_covered(self, pool: Pool) -> bool:
        # A journal that has failed knows less than was held since. A write in between makes what it says void.
        return self._journal is None or pool.failures == self._journal.failures

    # -- back

    def tend(self, pools: Iterable[Pool]) -> None:
        """Give back what nobody has used for a while, and find out about writes whose outcome is unknown.

        Raises StoreError.
        """
        before = self._clock.monotonic() - IDLE_SECS
        self.give_back([pool for pool in pools if pool.used_at <= before], loud=False)

    def give_back(self, pools: Iterable[Pool], *, loud: bool = True) -> bool:
        """Give back what no call holds. False if the store has not taken all of it; it is tried again later."""
        now_epoch = self._clock.now().timestamp()
        for pool in pools:
            with self._changed:
                share = pool.slice
                if pool.busy or (share.in_flight is None and not share.unheld) or share.expires_at_epoch <= now_epoch:
                    continue
                pool.busy = True
            try:
                while True:
                    with self._changed:
                        grant = share.in_flight or share.give_back()
                    if grant is None:
                        break
                    self._write(pool, grant)
            except Exception as exc:  # whatever the store raised, the grant stays in flight and is repeated
                level = logging.WARNING if loud else logging.DEBUG
                log.log(level, "%s of %s stays set aside for now: %s", usd_text(share.unheld), share.key, exc)
                return False
            finally:
                self._free(pool)
        return True

    def forget(self, pools: Iterable[Pool]) -> None:
        """Give back what the pools of a scope have, which no call has asked for in a while or whose day is over."""
        given_up = list(pools)
        self.give_back(given_up, loud=False)
        now_epoch = self._clock.now().timestamp()
        with self._changed:
            for pool in given_up:
                share = pool.slice
                over = share.expires_at_epoch <= now_epoch
                if not (pool.busy or share.held) and (over or not (share.in_flight or share.unheld)):
                    self._granted.pop(pool, None)

    def close(self) -> None:
        """Give back all that is not held; what calls under way still hold, when they are settled."""
        self._closed = True
        with self._changed:
            pools = list(self._granted)
        self.give_back(pools)

    @property
    def outstanding(self) -> bool:
        """Whether the store counts more as granted than was spent. Call it with the meter's lock."""
        return any(pool.slice.granted or pool.slice.in_flight for pool in self._granted)

    def records(self) -> "list[Record]":
        """The slices, for a new segment of the journal. Call it with the meter's lock."""
        from .journal.records import GrantRecord, SliceRecord  # noqa: PLC0415 - most programs have no journal

        records: list[Record] = []
        for pool in self._granted:
            share = pool.slice
            records.append(SliceRecord.of(share))
            if share.in_flight is not None:
                records.append(GrantRecord(share.in_flight))
        return records

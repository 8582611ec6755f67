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
from math import inf
from time import monotonic  # waiting is in real time, whatever the clock of the org days says
from typing import TYPE_CHECKING

from .clock import Clock
from .core.account import Account
from .core.errors import StoreError
from .core.holds import SLICES_A_QUOTA, Grant, Slice
from .core.keys import UsageKey
from .core.money import usd_text
from .hold import Hold
from .meter import Meter
from .pool import Claim, Pool
from .stores.contract import SequenceConflict, Store
from .writers import new_writer_id

if TYPE_CHECKING:
    from .journal.journal import Journal
    from .journal.records import Record

log = logging.getLogger("bedrock_budget")

#: A slice that no call has used for this long goes back.
IDLE_SECS = 30.0
#: Between two searches for such slices.
TEND_SECS = 5.0
#: A call waits no longer than this for another one that is taking a slice.
WAIT_SECS = 10.0
#: A quota in so many slices that each call takes what it needs and no more.
NO_SLICES = 1 << 62
#: Others may take what a refusal has just said is left.
ATTEMPTS = 16
#: Giving back stops after so many failures in a row: the store is away, not one of its items.
FAILURES_A_PASS = 3


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
        meter.begun_afresh = self._start_afresh
        if journal is not None:
            journal.carry = self.records

    def _start_afresh(self) -> None:
        # Also in a forked child: the slices are the parent's.
        self.life = object()
        self._changed = threading.Condition(self._meter.lock)
        # One pool a key for as long as a scope or a call holds it, or anything has to be given back.
        self._pools: weakref.WeakValueDictionary[UsageKey, Pool] = weakref.WeakValueDictionary()
        # Every holder is an entry in the pool's item for the day, so a pool that comes again goes on as the same one.
        self._holders: dict[UsageKey, tuple[str, int, int]] = {}  # id, last sequence number, when it expires
        self._granted: dict[Pool, None] = {}  # those that have been written, and may have something to give back
        self._tended_at = -inf
        self._closed = False

    def pool(self, key: UsageKey, expires_at_epoch: int, accounts: Sequence[Account]) -> Pool:
        """The pool of a quota; the same one for all who ask."""
        with self._changed:
            pool = self._pools.get(key)
            if pool is None:
                holder_id, sequence, _ = self._holders.get(key) or (new_writer_id(), 0, 0)
                share = Slice(key, holder_id, 0, expires_at_epoch)
                share.sequence = sequence
                pool = self._pools[key] = Pool(share, accounts)
            pool.accounts = accounts
            return pool

    # -- holds

    def hold(self, claims: Sequence[Claim], worst_case: int) -> Hold | Claim:
        """Set aside the worst case of a call in all of the pools; or in none, and the one that has no room for it.

        Raises StoreError if the store has to be asked and does not answer.
        """
        journal = self._journal
        if journal is None:
            return self._hold_quickly(claims, worst_case) or self._hold_slowly(claims, worst_case)
        while True:
            failures = journal.failures
            hold = self._hold_quickly(claims, worst_case) or self._hold_slowly(claims, worst_case)
            journal.sync(self._changed)
            if isinstance(hold, Claim) or failures == journal.failures:
                return hold
            self.settle(hold.pools, worst_case, 0)  # it is not on the journal, so a replay would give it back

    def _hold_quickly(self, claims: Sequence[Claim], worst_case: int) -> Hold | None:
        with self._changed:
            for _, pool, _ in claims:
                share = pool.slice
                if share.granted - share.held < worst_case or not self._is_covered(pool):
                    return None
            pools = [pool for _, pool, _ in claims]
            for pool in pools:
                pool.slice.held += worst_case
            return self._held(pools, worst_case)

    def _hold_slowly(self, claims: Sequence[Claim], worst_case: int) -> Hold | Claim:
        done: list[Pool] = []
        try:
            for claim in claims:
                if not self._hold_one(claim, worst_case):
                    return claim
                done.append(claim.pool)
            with self._changed:
                pools, done = done, []
                return self._held(pools, worst_case)
        finally:
            with self._changed:
                for pool in done:
                    pool.slice.settle(worst_case, 0)
            if done and (self._keep_nothing or self._closed):
                self.give_back(done)

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
                if pool.slice.granted < 0:  # there may have been nothing to hold, and so nothing written yet
                    self._granted[pool] = None
            if self._journal is not None:
                self._journal.settled(worst_case, charge, [pool.slice.holder_id for pool in pools])
        if self._keep_nothing or self._closed:
            self.give_back(pools)
            self._meter.end_journal()

    # -- slices

    def _hold_one(self, claim: Claim, worst_case: int) -> bool:
        pool = claim.pool
        deadline = monotonic() + WAIT_SECS
        with self._changed:
            while True:
                # Read each time: it is another one after a `SequenceConflict`.
                if self._is_covered(pool) and pool.slice.hold(worst_case):
                    return True
                if not pool.busy:
                    break
                if not self._changed.wait(deadline - monotonic()):
                    key = pool.slice.key
                    raise StoreError(f"no slice of the quota of {key}: another call is waiting for the store")
            pool.slice.set_quota(claim.quota_pico_usd)
            if pool.surely_refuses(worst_case, self._clock.monotonic()):
                return False
            pool.busy = True
        try:
            return self._take(pool, worst_case)
        finally:
            self._free(pool)

    def _take(self, pool: Pool, worst_case: int) -> bool:
        """Take a slice that has room for a call, and hold it. False if there is no room for it."""
        share = pool.slice
        began = self._clock.monotonic()
        most: int | None = None
        for _ in range(ATTEMPTS):
            if share.spent_before is None:
                share.spent_before = pool.spent(self._store, self._meter)
            with self._changed:
                self._granted[pool] = None
                grant = share.in_flight or self._next_grant(pool, worst_case, most)
            known = self._write(pool, grant)
            with self._changed:
                if self._is_covered(pool) and share.hold(worst_case):
                    pool.first_refused_at = None
                    return True
                need = worst_case - share.unheld
                if known and grant.change_pico_usd > 0:  # else it was an older write
                    room = share.room or 0
                    if room < need:
                        break
                    most = room if most is None else need  # others are fast: ask for no more than that
        pool.refused(began, self._clock.monotonic())
        pool.give_back_next = True  # the rest may be of use to others
        return False

    def _next_grant(self, pool: Pool, worst_case: int, most: int | None) -> Grant:
        share = pool.slice
        if not self._is_covered(pool):
            share.sequence += 1  # a replay's next number is the one left out, so it is turned down and says so
        if share.unheld >= worst_case:
            return share.renew()
        return share.take(worst_case, most=most, slices=NO_SLICES if self._keep_nothing else SLICES_A_QUOTA)

    def _write(self, pool: Pool, grant: Grant) -> bool:
        """Send the grant in flight, for who has made the pool busy. False: it is too late, its outcome stays unknown.
        Raises StoreError: it stays in flight."""
        journal, share, failures = self._journal, pool.slice, 0
        if self._keep_nothing and pool.is_in_doubt(self._clock.now().timestamp()):
            with self._changed:
                share.abandon()
                pool.sent_at = None
            log.error("in doubt: %s of %s may stay set aside", usd_text(abs(grant.change_pico_usd)), share.key)
            return False
        with self._changed:
            self._holders[share.key] = (share.holder_id, share.sequence, share.expires_at_epoch)
            if journal is not None:
                failures = journal.failures
                journal.grant(grant)
        if journal is not None:
            journal.sync(self._changed)
        try:
            outcome = self._store.write_grant(grant, once=self._keep_nothing)
        except SequenceConflict as exc:
            # Another program uses this holder's id. What calls hold goes on under a new one.
            with self._changed:
                pool.slice = Slice(share.key, new_writer_id(), share.quota, share.expires_at_epoch)
                pool.slice.held, pool.slice.granted = share.held, share.granted
                if journal is not None:
                    journal.slice(pool.slice)
            log.error("going on under a new holder id, because another program uses this one: %s", exc)
            raise
        with self._changed:
            share.answered(outcome)
            pool.sent_at = None
            if journal is not None:
                if outcome.applied:  # else the store has no higher number, by which a replay could tell
                    pool.failures = failures
                journal.granted(grant, outcome.applied)
        return True

    def _free(self, pool: Pool) -> None:
        with self._changed:
            pool.busy = False
            give_back, pool.give_back_next = pool.give_back_next, False
            self._changed.notify_all()
        if give_back:
            self.give_back([pool])

    def _is_covered(self, pool: Pool) -> bool:
        # A journal that has failed knows less than was held since. A write in between makes what it says void.
        return self._journal is None or pool.failures == self._journal.failures

    # -- back

    def tend(self) -> None:
        """Give back what nobody has used for a while, of all scopes, and find out about writes whose outcome is
        unknown."""
        now = self._clock.monotonic()
        with self._changed:
            if now - self._tended_at < TEND_SECS:  # every look comes by here
                return
            self._tended_at = now
            now_epoch = self._clock.now().timestamp()
            self._holders = {key: known for key, known in self._holders.items() if known[2] > now_epoch}
            idle = [pool for pool in self._granted if pool.used_at <= now - IDLE_SECS]
        self.forget(idle)

    def forget(self, pools: Iterable[Pool]) -> None:
        """Give back what the pools have, which no call has asked for in a while or whose day is over."""
        given_up = list(pools)
        self.give_back(given_up, loud=False)
        now_epoch = self._clock.now().timestamp()
        with self._changed:
            for pool in given_up:
                share = pool.slice
                over = share.expires_at_epoch <= now_epoch
                if not (pool.busy or share.held) and (over or not (share.in_flight or share.granted)):
                    self._granted.pop(pool, None)

    def give_back(self, pools: Iterable[Pool], *, loud: bool = True, deadline: float = inf) -> None:
        """Give back what no call holds. What the store does not take is tried again later."""
        now_epoch = self._clock.now().timestamp()
        failures = 0
        for pool in pools:
            if monotonic() >= deadline:
                return
            with self._changed:
                share = pool.slice
                if pool.busy:
                    pool.give_back_next = pool.give_back_next or loud
                    continue
                if (share.in_flight is None and not share.unheld) or share.expires_at_epoch <= now_epoch:
                    continue
                pool.busy = True
            try:
                if share.spent_before is None:
                    share.spent_before = pool.spent(self._store, self._meter)
                while True:
                    with self._changed:
                        grant = share.in_flight or share.give_back()
                    if grant is None:
                        break
                    self._write(pool, grant)
                failures = 0
            except Exception as exc:  # whatever the store raised, the grant stays in flight and is repeated
                level = logging.WARNING if loud else logging.DEBUG
                log.log(level, "%s of %s stays set aside for now: %s", usd_text(share.unused), share.key, exc)
                failures += 1
                if failures >= FAILURES_A_PASS:
                    return
            finally:
                self._free(pool)

    def close(self, deadline: float = inf) -> None:
        """Give back all that is not held; what calls under way still hold, when they are settled."""
        self._closed = True
        with self._changed:
            pools = list(self._granted)
        self.give_back(pools, deadline=deadline)

    @property
    def outstanding(self) -> bool:
        """Whether the store counts more as granted than was spent. Call it with the meter's lock."""
        shares = [pool.slice for pool in self._granted]
        return any(share.granted or share.held or share.in_flight for share in shares)

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

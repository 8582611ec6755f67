"""The outbox: usage on its way from the accounts to the store, each exactly once.

One batch an account is in flight. Its outcome unknown, it stays frozen and is repeated until the store has it;
meanwhile new usage merges, so memory is bounded by the number of (scope, label, day) keys. With a journal, usage is on
it before `add` returns, and a batch before it is sent.
"""

import logging
import threading
from collections.abc import Callable
from time import monotonic  # waiting is in real time, whatever the clock of the org days says
from typing import TYPE_CHECKING

from .clock import Clock
from .core.account import Account, Batch
from .core.errors import StoreError
from .core.money import usd_text
from .core.outcomes import Outcome
from .core.usage import Usage
from .stores.contract import SequenceConflict, Store
from .writers import new_writer_id

if TYPE_CHECKING:
    from .journal.journal import Journal

log = logging.getLogger("bedrock_budget")

#: A pass over dirty accounts gives up after so many failures in a row: the store is away, not one of its items.
FAILURES_A_PASS = 3
#: A transaction that may have been applied is not repeated after this long: its token is good for 10 minutes.
IN_DOUBT_SECS = 540.0
#: A clock that is put back by less than this has not stood still.
CLOCK_STEP_SECS = 60.0


class Outbox:
    """See the module's text. Made afresh in a forked child.

    ``transactions``: write each batch as a transaction that leaves no entry of the writer (AWS Lambda).
    """

    def __init__(self, store: Store, clock: Clock, journal: "Journal | None", *, transactions: bool) -> None:
        self._store = store
        self._clock = clock
        self._journal = journal
        self._transactions = transactions
        self.lock = threading.Lock()
        self.written = threading.Condition(self.lock)
        self.dirty: dict[Account, None] = {}  # in the order in which they will be written
        self.writer_id = new_writer_id()
        self.error: Exception | None = None  # why the last write failed; None after one that succeeded
        self._sequence = 0
        self._order = 0
        self._sent_at: dict[Account, float] = {}  # epoch of the first attempt at a transaction in flight

    def begin_look(self) -> int:
        """A place in the order of acknowledgements and looks."""
        with self.lock:
            self._order += 1
            return self._order

    # -- in

    def add_journaled(
        self,
        journal: "Journal",
        account: Account,
        usage: Usage,
        cost_pico_usd: int,
        outcome: Outcome | None,
        request_id: str | None,
    ) -> None:
        """As `Meter.add`; it is on the journal when this returns."""
        line = journal.line_of(account, usage, cost_pico_usd, request_id)
        with self.lock:
            if journal.is_due:
                journal.tend(self.dirty, self.writer_id, self._sequence)
            journal.append(line)
            account.add(usage, cost_pico_usd)
            if outcome is not None:
                account.count(outcome)
            self.dirty[account] = None
        journal.sync(self.lock)

    # -- out

    def unwritten(self) -> tuple[int, int]:
        """What the store is not known to have: pico-USD, and of how many keys."""
        with self.lock:
            return sum(account.unwritten_cost for account in self.dirty), len(self.dirty)

    def targets(self) -> dict[Account, int]:
        """What is to be written by now: the calls added to each account."""
        with self.lock:
            return {account: account.added for account in self.dirty}

    def left_over(self, targets: dict[Account, int]) -> list[Account]:
        """The accounts of which not all of the targets is written. Call it with the lock."""
        return [each for each in self.dirty if each.written < targets.get(each, 0)]

    def write(
        self, accounts: list[Account], deadline: float | None = None, closing: Callable[[], bool] = lambda: False
    ) -> Exception | None:
        """Send one batch of each account. Returns the first failure."""
        first: Exception | None = None
        failures = 0
        known = self.error is not None
        for place, account in enumerate(accounts):
            # Who closes goes on for as long as the store takes what it is given: nobody else would write the rest.
            may_stop = failures or (place and not closing())
            if may_stop and deadline is not None and monotonic() >= deadline:
                break
            try:
                self._send(account)
                failures = 0
            except Exception as exc:  # whatever the store raised, the batch stays and is repeated
                first = first or exc
                failures += 1
                if failures >= FAILURES_A_PASS:
                    break
        if first is not None:
            level = logging.DEBUG if known else logging.WARNING  # once an outage
            log.log(level, "usage not written yet, it is kept and repeated: %s", first)
        return first

    def write_dirty(self) -> None:
        """Send one batch of each dirty account. Raises StoreError for the first failure."""
        with self.lock:
            accounts = list(self.dirty)
        error = self.write(accounts)
        if error is not None:
            raise error if isinstance(error, StoreError) else StoreError(str(error)) from error

    def tend_journal(self) -> None:
        """Give back the journal's space, or try again to have one."""
        journal = self._journal
        if journal is not None:
            with self.lock:
                if journal.is_open:
                    journal.tend(self.dirty, self.writer_id, self._sequence)

    def open_journal(self) -> None:
        """Have a journal from here on, if there is to be one."""
        journal = self._journal
        if journal is not None and not journal.is_open:
            with self.lock:
                journal.tend(self.dirty, self.writer_id, self._sequence)

    def close_journal(self, settled_all: Callable[[], bool]) -> None:
        """Remove the journal if the store has everything, else leave it to a replay."""
        journal = self._journal
        if journal is not None and journal.is_open:
            with self.lock:
                if not self.dirty and settled_all():
                    journal.close()

    def _send(self, account: Account) -> None:
        sending = False
        journal = self._journal
        try:
            with self.lock:
                if account.sending or not account.dirty:
                    return
                batch = account.in_flight
                if batch is None:
                    self._sequence += 1
                    batch = account.seal(self.writer_id, self._sequence)
                    if journal is not None:
                        journal.batch(batch)
                account.sending = sending = True
            if journal is not None:
                journal.sync(self.lock)
            now_epoch = self._clock.now().timestamp()
            if self._transactions:
                self._write_once(account, batch, now_epoch)
            else:
                self._store.write_batch(batch, now_epoch=now_epoch)
            at_epoch = self._clock.now().timestamp()
            with self.lock:
                self._order += 1
                account.acknowledge(at_epoch, self._order)
                self.error = None
                if account.written == account.added:
                    self.dirty.pop(account, None)
                if journal is not None:
                    journal.acknowledged(batch)
        except SequenceConflict as exc:
            with self.lock:
                refused = account.in_flight
                if refused is not None and refused.writer_id == self.writer_id:
                    self.writer_id = new_writer_id()
                self._sequence += 1
                batch = account.reopen(self.writer_id, self._sequence)
                self._sent_at.pop(account, None)  # nothing of this batch has been sent
                if journal is not None:
                    journal.batch(batch, refused)
            log.error("going on under a new writer id, because another program uses this one: %s", exc)
            raise
        except Exception as exc:
            with self.lock:
                self.error = exc
                # To the end: others go first next time, should the store refuse this one item alone.
                self.dirty[account] = self.dirty.pop(account, None)
            raise
        finally:
            if sending:
                with self.lock:
                    account.sending = False
                    self.written.notify_all()

    def _write_once(self, account: Account, batch: Batch, now_epoch: float) -> None:
        # A transaction is the same one only with the same time in it, and only for 10 minutes.
        before = self._sent_at.get(account)
        first = self._sent_at[account] = now_epoch if before is None else before
        if -CLOCK_STEP_SECS < now_epoch - first < IN_DOUBT_SECS:
            try:
                self._store.write_once(batch, now_epoch=first)
            except StoreError as exc:
                if before is None and exc.refused:
                    del self._sent_at[account]  # nothing is in doubt yet
                raise
        else:
            with self.lock:
                account.count("in_doubt")
            log.error(
                "in doubt: %s for %d calls of %s may or may not be in the store: the answer to their write is still "
                "unknown after %g s, and repeating it so late could count it twice",
                usd_text(batch.amounts.cost_pico_usd),
                batch.amounts.requests,
                batch.key,
                now_epoch - first,
            )
        self._sent_at.pop(account, None)

"""The meter: usage goes in from any thread, batches go out to the store, each exactly once.

The calling thread only adds to an account under a short lock and wakes nobody. One background thread, started on
first use and gone after a while of idleness, writes what is dirty every second, or at once when a quota is near. With
``sync`` usage is written before `add` returns. How a batch goes out: `outbox`; what survives a kill: `journal`.
"""

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic  # waiting is in real time, whatever the clock of the org days says
from typing import TYPE_CHECKING, Protocol

from . import lifecycle
from .clock import Clock
from .core.account import Account
from .core.errors import StoreError
from .core.keys import UsageKey
from .core.money import usd_text
from .core.outcomes import Outcome
from .core.usage import Usage
from .outbox import Outbox
from .stores.contract import Store

if TYPE_CHECKING:
    from .journal.journal import Journal
    from .journal.takeover import TakeOver

log = logging.getLogger("bedrock_budget")

FLUSH_SECS = 1.0
#: Between two writes when a quota is near.
HURRY_SECS = 0.2
#: The background thread ends after this long without usage.
IDLE_SECS = 30.0
#: How long `close` waits for a store that takes nothing.
CLOSE_SECS = 10.0


class Abandonable(Protocol):
    """A stream that can be settled by what was seen of it."""

    def abandon(self, ending: Outcome | None = None) -> None: ...


class Meter:
    """See the module's text.

    ``transactions``: write each batch as a transaction, for writers that are many and short-lived (AWS Lambda).
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        sync: bool = False,
        transactions: bool = False,
        journal: "Journal | None" = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sync = sync
        self._transactions = transactions
        self._journal = journal
        self.on_written: Callable[[], None] = lambda: None  # called after each pass
        self.settled_all: Callable[[], bool] = lambda: True  # whether the journal is needed for nothing else
        self.begun_afresh: Callable[[], None] = lambda: None  # called in a forked child: there is another lock
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._outbox = Outbox(self._store, self._clock, self._journal, transactions=self._transactions)
        self.lock = self._outbox.lock
        # One account a key for as long as a scope, a call or unwritten usage holds it.
        self._accounts: weakref.WeakValueDictionary[UsageKey, Account] = weakref.WeakValueDictionary()
        self.deferred: deque[Callable[[], None]] = deque()
        self._open_streams: weakref.WeakSet[Abandonable] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._dirty = self._outbox.dirty
        self._take_over = None if self._journal is None else self._new_take_over(self._journal)
        self._direct = self._sync  # usage is written by the thread that adds it
        self._hurried = False
        self._registered = False

    def _new_take_over(self, journal: "Journal") -> "TakeOver":
        from .journal.takeover import TakeOver  # noqa: PLC0415 - most programs have no journal

        return TakeOver(journal, self._store, self._clock)

    @property
    def writer_id(self) -> str:
        """The id under which batches go out."""
        return self._outbox.writer_id

    @property
    def error(self) -> Exception | None:
        """Why the last write failed; None after one that succeeded."""
        return self._outbox.error

    # -- accounts

    def account(self, key: UsageKey, shard_count: int) -> Account:
        """The account of a key; the same one for all who ask."""
        with self.lock:
            account = self._accounts.get(key)
            if account is None:
                account = self._accounts[key] = Account(key, shard_count)
            return account

    def begin_look(self) -> int:
        """A place in the order of acknowledgements and looks."""
        return self._outbox.begin_look()

    # -- usage in

    def add(
        self,
        account: Account,
        usage: Usage,
        cost_pico_usd: int,
        outcome: Outcome | None = None,
        request_id: str | None = None,
    ) -> None:
        """Meter one settled call. Never raises for the store's sake; what it cannot write stays and is repeated.

        ``outcome``: None for a complete call. ``request_id``: the service's, for the journal.
        """
        if self._journal is None:
            with self.lock:
                account.add(usage, cost_pico_usd)
                if outcome is not None:
                    account.count(outcome)
                self._dirty[account] = None
        else:
            self._outbox.add_journaled(self._journal, account, usage, cost_pico_usd, outcome, request_id)
        if self._direct:
            self._write_now(account)
        elif self._thread is None:
            self._start_thread()

    def count(self, account: Account, outcome: Outcome) -> None:
        """Count a call that costs nothing, or something that happened to one."""
        with self.lock:
            account.count(outcome)

    def hurry(self) -> None:
        """Have the background thread write soon: a quota is near."""
        if not self._hurried:
            self._hurried = True
            self._wake.set()

    def begin(self) -> None:
        """Have a journal, and see to those of dead processes: the first call is about to be made."""
        if self._journal is not None and not self._closing.is_set():
            self._outbox.open_journal()
            self._start_thread()

    def opened(self, stream: Abandonable) -> None:
        """A stream settles later, perhaps by garbage collection: keep the background thread for it."""
        with self.lock:
            self._open_streams.add(stream)
        if self._thread is None and not self._closing.is_set():
            self._start_thread()

    def open_streams(self) -> list[Abandonable]:
        """Streams of this process that may not have settled yet."""
        with self.lock:
            return list(self._open_streams)

    def defer(self, settle: Callable[[], None]) -> None:
        """Run ``settle`` later, on a thread that holds no lock. For finalizers, where taking a lock may deadlock."""
        self.deferred.append(settle)

    def run_deferred(self) -> None:
        """Run what was deferred, if anything."""
        while self.deferred:
            try:
                settle = self.deferred.popleft()
            except IndexError:  # another thread took it
                return
            try:
                settle()
            except Exception:  # neither the background thread nor another call may fail of it
                log.exception("a call that was given up could not be settled: its usage is not metered")

    # -- usage out

    def flush(self, timeout: float | None = None) -> bool:
        """Write all that was metered before this call. False if it could not be done in ``timeout`` seconds.

        May take longer by the store's own time-out. None waits as long as it takes.
        """
        self.run_deferred()
        deadline = None if timeout is None else monotonic() + timeout
        targets = self._outbox.targets()
        left_over = list(targets)
        pause = 0.05
        while True:
            self._outbox.write(left_over, deadline, self._closing.is_set)
            with self.lock:
                left_over = self._outbox.left_over(targets)
                if not left_over:
                    return True
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return False
                self._outbox.written.wait(pause if left is None else min(pause, left))
            pause = min(pause * 2, 1.0)

    def close(self, timeout: float = CLOSE_SECS) -> bool:
        """Write what is left and stop the background thread. Usage that comes later is written at once."""
        self._direct = True
        self._closing.set()
        self._wake.set()
        deadline = monotonic() + timeout
        done = self.flush(timeout)
        if done and self._take_over is not None:  # its own usage first; others' is safe where it is
            self._take_over.finish(max(deadline - monotonic(), 0.0))
        self._outbox.close_journal(self.settled_all)
        if not done:
            cost, keys = self._outbox.unwritten()
            log.error(
                "usage of %s for %d (scope, label, day) could not be written in time: %s",
                usd_text(cost),
                keys,
                self.error,
            )
        return done

    def end_journal(self) -> None:
        """Remove the journal, if the meter is closed and the journal needed for nothing."""
        if self._closing.is_set():
            self._outbox.close_journal(self.settled_all)

    def at_exit(self, timeout: float) -> None:
        if not self._closing.is_set():  # else who closed it has seen to what was left
            self.close(timeout)

    def after_fork_in_child(self) -> None:
        # The parent sends what it has; the child is a writer of its own, with a journal of its own.
        if self._journal is not None:
            self._journal.after_fork_in_child()
        self._start_afresh()
        self.begun_afresh()

    # -- the background thread

    def _start_thread(self) -> None:
        with self.lock:
            if self._thread is not None or self._closing.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="bedrock-budget-meter", daemon=True)
        if not self._registered:
            self._registered = True
            lifecycle.register(self)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is shutting down: at_exit writes
            self._thread = None

    def _run(self) -> None:
        from tenacity import (  # noqa: PLC0415
            Retrying,
            retry_if_exception_type,
            sleep_using_event,
            stop_when_event_set,
            wait_random_exponential,
        )

        retrying = Retrying(
            retry=retry_if_exception_type(StoreError),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_when_event_set(self._closing),
            sleep=sleep_using_event(self._closing),
            before=lambda _: self._outbox.tend_journal(),
            reraise=True,
        )
        idle_secs = 0.0
        while not self._closing.is_set():
            self._wake.wait(FLUSH_SECS - HURRY_SECS)
            self._wake.clear()
            self._hurried = False
            self.run_deferred()
            self._outbox.tend_journal()
            if self._take_over is not None:
                self._take_over.if_due(self._closing.is_set)
            with self.lock:
                idle = not self._outbox.dirty and not self._open_streams and not self.deferred
                idle_secs = idle_secs + FLUSH_SECS if idle else 0.0
                if idle_secs >= IDLE_SECS:
                    self._thread = None
                    return
            if idle:
                continue
            try:
                retrying(self._outbox.write_dirty)
            except StoreError:
                return  # closing; close() writes what is left or says what it could not
            self._tell_written()
            self._closing.wait(HURRY_SECS)

    def _tell_written(self) -> None:
        try:
            self.on_written()
        except Exception:  # looks are not the meter's business, and must not end it
            log.exception("looks could not be brought forward")

    def _write_now(self, account: Account) -> None:
        with self.lock:
            target = account.added
        waited = False
        while account.written < target:
            with self.lock:
                if account.sending:
                    self._outbox.written.wait(1.0)
                    waited = True
                    continue
            # Who has waited for a write that failed does not wait for another one.
            closing = self._closing.is_set()
            if (waited and self.error is not None and not closing) or self._outbox.write([account]) is not None:
                if not closing:
                    self._start_thread()  # it repeats the batch
                return
        self._tell_written()
        if self._closing.is_set():
            self.end_journal()
        else:
            self._outbox.tend_journal()

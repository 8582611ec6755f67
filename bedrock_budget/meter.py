"""The meter: usage goes in from any thread, batches go out to the store, each exactly once.

The calling thread only adds to an account under a short lock and wakes nobody. One background thread, started on
first use and gone after a while of idleness, writes what is dirty every second, or at once when a quota is near. A
batch whose outcome is unknown stays frozen and is repeated until the store has it; meanwhile new usage merges, so
memory is bounded by the number of (scope, label, day) keys. With ``sync`` usage is written before `add` returns.
"""

import logging
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic  # waiting is in real time, whatever the clock of the org days says
from typing import Protocol

from . import lifecycle
from .clock import Clock
from .core.account import Account
from .core.errors import StoreError
from .core.keys import WRITER_ID_LENGTH, UsageKey
from .core.money import usd_text
from .core.usage import Usage
from .stores.contract import SequenceConflict, Store

log = logging.getLogger("bedrock_budget")

FLUSH_SECS = 1.0
#: Between two writes when a quota is near.
HURRY_SECS = 0.2
#: The background thread ends after this long without usage.
IDLE_SECS = 30.0
#: How long `close` waits for a store that takes nothing.
CLOSE_SECS = 10.0
#: A pass over dirty accounts gives up after so many failures in a row: the store is away, not one of its items.
FAILURES_A_PASS = 3


def new_writer_id() -> str:
    """A random writer id: ``w`` and ten URL-safe characters (60 bits)."""
    return "w" + secrets.token_urlsafe(8)[: WRITER_ID_LENGTH - 1]


class Abandonable(Protocol):
    """A stream that can be settled by what was seen of it."""

    def abandon(self) -> None: ...


class Meter:
    """See the module's text."""

    def __init__(self, store: Store, clock: Clock, *, sync: bool = False) -> None:
        self._store = store
        self._clock = clock
        self._sync = sync
        self.error: Exception | None = None  # why the last write failed; None after one that succeeded
        self.on_written: Callable[[], None] = lambda: None  # called after each pass
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.lock = threading.Lock()
        self._written = threading.Condition(self.lock)
        # One account a key for as long as a scope, a call or unwritten usage holds it.
        self._accounts: weakref.WeakValueDictionary[UsageKey, Account] = weakref.WeakValueDictionary()
        self._dirty: dict[Account, None] = {}  # in the order in which they will be written
        self.deferred: deque[Callable[[], None]] = deque()
        self._open_streams: weakref.WeakSet[Abandonable] = weakref.WeakSet()
        self.writer_id = new_writer_id()
        self._sequence: int = 0
        self._order = 0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._direct = self._sync  # usage is written by the thread that adds it
        self._hurried = False
        self._registered = False
        self.error = None

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
        with self.lock:
            self._order += 1
            return self._order

    # -- usage in

    def add(self, account: Account, usage: Usage, cost_pico_usd: int) -> None:
        """Meter one settled call. Never raises for the store's sake; what it cannot write stays and is repeated."""
        with self.lock:
            account.add(usage, cost_pico_usd)
            self._dirty[account] = None
        if self._direct:
            self._write_now(account)
        elif self._thread is None:
            self._start_thread()

    def hurry(self) -> None:
        """Have the background thread write soon: a quota is near."""
        if not self._hurried:
            self._hurried = True
            self._wake.set()

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
        with self.lock:
            targets = {account: account.added for account in self._dirty}
            left_over = list(targets)
        pause = 0.05
        while True:
            self._write(left_over, deadline)
            with self.lock:
                left_over = [each for each in self._dirty if each.written < targets.get(each, 0)]
                if not left_over:
                    return True
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return False
                self._written.wait(pause if left is None else min(pause, left))
            pause = min(pause * 2, 1.0)

    def close(self, timeout: float = CLOSE_SECS) -> bool:
        """Write what is left and stop the background thread. Usage that comes later is written at once."""
        self._direct = True
        self._closing.set()
        self._wake.set()
        done = self.flush(timeout)
        if not done:
            with self.lock:
                left = sum(account.unwritten_cost for account in self._dirty)
                keys = len(self._dirty)
            log.error(
                "usage of %s for %d (scope, label, day) could not be written in %g s: %s",
                usd_text(left),
                keys,
                timeout,
                self.error,
            )
        return done

    def at_exit(self, timeout: float) -> None:
        if not self._closing.is_set():  # else who closed it has seen to what was left
            self.close(timeout)

    def after_fork_in_child(self) -> None:
        # The parent sends what it has; the child is a writer of its own.
        self._start_afresh()

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
            reraise=True,
        )
        idle_secs = 0.0
        while not self._closing.is_set():
            self._wake.wait(FLUSH_SECS - HURRY_SECS)
            self._wake.clear()
            self._hurried = False
            self.run_deferred()
            with self.lock:
                idle = not self._dirty and not self._open_streams and not self.deferred
                idle_secs = idle_secs + FLUSH_SECS if idle else 0.0
                if idle_secs >= IDLE_SECS:
                    self._thread = None
                    return
            if idle:
                continue
            try:
                retrying(self._write_dirty)
            except StoreError:
                return  # closing; close() writes what is left or says what it could not
            self._tell_written()
            self._closing.wait(HURRY_SECS)

    def _tell_written(self) -> None:
        try:
            self.on_written()
        except Exception:  # looks are not the meter's business, and must not end it
            log.exception("looks could not be brought forward")

    def _write_dirty(self) -> None:
        with self.lock:
            accounts = list(self._dirty)
        error = self._write(accounts)
        if error is not None:
            raise error if isinstance(error, StoreError) else StoreError(str(error)) from error

    def _write_now(self, account: Account) -> None:
        with self.lock:
            target = account.added
        waited = False
        while account.written < target:
            with self.lock:
                if account.sending:
                    self._written.wait(1.0)
                    waited = True
                    continue
            # Who has waited for a write that failed does not wait for another one.
            closing = self._closing.is_set()
            if (waited and self.error is not None and not closing) or self._write([account]) is not None:
                if not closing:
                    self._start_thread()  # it repeats the batch
                return
        self._tell_written()

    def _write(self, accounts: list[Account], deadline: float | None = None) -> Exception | None:
        """Send one batch of each account. Returns the first failure."""
        first: Exception | None = None
        failures = 0
        for place, account in enumerate(accounts):
            # `close` goes on for as long as the store takes what it is given: nobody else would write the rest.
            may_stop = failures or (place and not self._closing.is_set())
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
            log.warning("usage not written yet, it is kept and repeated: %s", first)
        return first

    def _send(self, account: Account) -> None:
        sending = False
        try:
            with self.lock:
                if account.sending or not account.dirty:
                    return
                batch = account.in_flight
                if batch is None:
                    self._sequence += 1
                    batch = account.seal(self.writer_id, self._sequence)
                account.sending = sending = True
            self._store.write_batch(batch, now_epoch=self._clock.now().timestamp())
            at_epoch = self._clock.now().timestamp()
            with self.lock:
                self._order += 1
                account.acknowledge(at_epoch, self._order)
                self.error = None
                if account.written == account.added:
                    self._dirty.pop(account, None)
        except SequenceConflict as exc:
            with self.lock:
                refused = account.in_flight
                if refused is not None and refused.writer_id == self.writer_id:
                    self.writer_id = new_writer_id()
                self._sequence += 1
                account.reopen(self.writer_id, self._sequence)
            log.error("going on under a new writer id, because another program uses this one: %s", exc)
            raise
        except Exception as exc:
            with self.lock:
                self.error = exc
                # To the end: others go first next time, should the store refuse this one item alone.
                self._dirty[account] = self._dirty.pop(account, None)
            raise
        finally:
            if sending:
                with self.lock:
                    account.sending = False
                    self._written.notify_all()

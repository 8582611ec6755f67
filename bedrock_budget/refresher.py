"""Looks in the background: each scope in use when it is due, and first looks at once.

A few daemon threads, started on demand, share one heap of due times. A call that waits for a scope's very first look
wakes one; no other call does. Scopes that nobody has used for a while are no longer looked at.
"""

import heapq
import itertools
import threading
from collections.abc import Callable

from .clock import Clock, SystemClock
from .scopes import ScopeDay

MAX_THREADS = 4
#: A call waits this long for a scope's first look; then the store counts as unreachable.
FIRST_LOOK_SECS = 3.0
#: Scopes unused for this long are forgotten until their next call, which then waits for a first look again.
FORGET_SECS = 900.0
#: A clock that is not the system's may be moved by a test; it is asked this often.
FOREIGN_CLOCK_SECS = 0.05


class Refresher:
    """See the module's text."""

    def __init__(
        self, look: Callable[[ScopeDay], None], clock: Clock, *, on_forget: Callable[[ScopeDay], None]
    ) -> None:
        self._look = look
        self._clock = clock
        self._on_forget = on_forget
        self._longest_wait = None if isinstance(clock, SystemClock) else FOREIGN_CLOCK_SECS
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, ScopeDay]] = []
        self._tickets = itertools.count()
        self._threads = 0
        self._waiting = 0
        self._closed = False

    def first_look(self, scope: ScopeDay) -> None:
        """Have a scope looked at now and from now on; wait for the look, but no longer than `FIRST_LOOK_SECS`."""
        with self._changed:
            in_hand = not self._closed
            if in_hand and not scope.asked:
                if not scope.awaits_look(self._clock.now()):
                    return  # the look that others asked for has just been made
                scope.asked = True
                scope.tried.clear()
                heapq.heappush(self._heap, (float("-inf"), self._new_ticket(scope), scope))
                in_hand = self._get_help()
        if not in_hand:
            self._look(scope)
        elif not scope.tried.wait(FIRST_LOOK_SECS):
            with self._changed:
                if not scope.tried.is_set():
                    scope.failed(TimeoutError(f"the store did not answer in {FIRST_LOOK_SECS:g} s"))
                    scope.tried.set()  # the look goes on; nobody else waits for it

    def bring_forward(self, scope: ScopeDay) -> None:
        """Have a scope looked at now, and its intervals start again."""
        with self._changed:
            if not self._closed and not scope.asked and not scope.looking:
                scope.schedule = scope.schedule.brought_forward()
                scope.due_at = float("-inf")
                heapq.heappush(self._heap, (scope.due_at, self._new_ticket(scope), scope))
                self._get_help()

    def close(self) -> None:
        """Look no more."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify_all()

    def end_soon(self) -> None:
        """Look no more, as of when the threads next wake. Takes no lock: garbage collection may call it anywhere."""
        self._closed = True

    def after_fork_in_child(self) -> None:
        """Threads and locks do not survive a fork."""
        self._start_afresh()

    def _new_ticket(self, scope: ScopeDay) -> int:
        # A scope may stand in the heap twice; only its newest entry counts.
        scope.ticket = next(self._tickets)
        return scope.ticket

    def _get_help(self) -> bool:
        """Have one more thread take what is due, under the lock. False if there is none at all."""
        if self._waiting:
            self._changed.notify()
        elif self._threads < MAX_THREADS:
            thread = threading.Thread(target=self._run, name="bedrock-budget-refresh", daemon=True)
            try:
                thread.start()
                self._threads += 1
            except RuntimeError:  # the interpreter is shutting down, or the process has too many threads
                return self._threads > 0
        return True

    def _run(self) -> None:
        while True:
            scope = self._next_due()
            if scope is None:
                return
            scope.looking = True
            try:
                self._look(scope)
            finally:
                scope.looking = False
            now = self._clock.now()
            if (now - scope.used_at).total_seconds() > FORGET_SECS or now >= scope.ends_at:
                self._on_forget(scope)
                continue
            with self._changed:
                if not self._closed:
                    heapq.heappush(self._heap, (scope.due_at, self._new_ticket(scope), scope))

    def _next_due(self) -> ScopeDay | None:
        """Wait for a scope that is due; None if this thread should end."""
        with self._changed:
            while True:
                if self._closed or not self._heap:
                    self._threads -= 1
                    return None
                due_at, ticket, scope = self._heap[0]
                if ticket != scope.ticket:
                    heapq.heappop(self._heap)
                    continue
                now = self._clock.monotonic()
                wait = due_at - now
                if wait <= 0:
                    heapq.heappop(self._heap)
                    if self._heap and self._heap[0][0] <= now:
                        self._get_help()
                    return scope
                if self._longest_wait is not None:
                    wait = min(wait, self._longest_wait)
                self._waiting += 1
                try:
                    self._changed.wait(wait)
                finally:
                    self._waiting -= 1

"""What a process must not share with its children: locks, connections, clients."""

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: How long a fork waits for `WHOLE`, seconds.
_FORK_WAIT_SECS = 10.0

#: Held while a client is made and first used, so that a fork waits until that is done: imports and OpenSSL take locks
#: meanwhile, which in a child would stay locked by a thread that it does not have.
WHOLE = threading.RLock()

_taken = threading.local()


class PerProcess(Generic[T]):
    """A value that each process makes for itself on first use.

    After a fork the child makes its own; the parent's stays referenced there, so that it is never closed or used
    (a lock may have been held by a thread that the child does not have, and a socket or database connection has one
    owner). ``make`` must be cheap: racing threads may call it more than once, but all of them get the same value.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """This process's value."""
        pid = os.getpid()
        made = self._made.get(pid)
        if made is None:
            made = self._made.setdefault(pid, self._make())  # atomic
        return made


def _before_fork() -> None:
    _taken.whole = WHOLE.acquire(timeout=_FORK_WAIT_SECS)


def _after_fork() -> None:
    if _taken.whole:
        WHOLE.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)

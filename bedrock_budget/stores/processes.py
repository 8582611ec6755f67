"""What a process must not share with its children: locks, connections, clients."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


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

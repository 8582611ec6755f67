"""A clock that moves only when told to."""

import threading
from datetime import UTC, datetime, timedelta

DEFAULT_START = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


class ManualClock:
    """A clock for tests, with the two readings that the library takes: ``now()`` and ``monotonic()``. Thread-safe.

    ``start`` is the first wall-clock time (aware; the default is fixed), ``monotonic`` the first monotonic reading
    in seconds.
    """

    def __init__(self, start: datetime = DEFAULT_START, monotonic: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._now = _as_utc(start)
        self._monotonic = monotonic

    def now(self) -> datetime:
        """The wall-clock time: aware, in UTC."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """The monotonic reading, in seconds. It never goes back."""
        with self._lock:
            return self._monotonic

    def advance(self, by: float | timedelta) -> None:
        """Move both readings forward, by seconds or a timedelta >= 0."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if step < timedelta(0):
            raise ValueError(f"time advances forward only, got {by!r}; use set() to put the wall clock back")
        with self._lock:
            self._now += step
            self._monotonic += step.total_seconds()

    def set(self, now: datetime) -> None:
        """Set the wall clock alone, forward or back, as an administrator or NTP would; ``monotonic()`` stays."""
        with self._lock:
            self._now = _as_utc(now)


def _as_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"an aware datetime is needed, got the naive {moment!r}")
    return moment.astimezone(UTC)

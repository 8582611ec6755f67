"""Streams that a caller gave up are read to their end in the background, to learn what they cost.

The service reportedly bills the whole generation, whoever listens. Draining is bounded: so many streams at a time,
each for so long; a stream that is not through by then, or one too many, is settled by an estimate from what was seen.
"""

import threading
from time import monotonic  # real time, whatever the clock of the org days says
from typing import Protocol

MOST_STREAMS = 8
DRAIN_SECS = 30.0


class Drainable(Protocol):
    """A given-up stream. Both methods settle its call, unless that is done."""

    def drain(self) -> None:
        """Read it to its end; closed afterwards."""
        ...

    def close_now(self) -> None:
        """Close it and settle by what was seen."""
        ...


class Drainer:
    """See the module's text."""

    def __init__(self, *, most_streams: int = MOST_STREAMS, secs: float = DRAIN_SECS) -> None:
        self._most_streams = most_streams
        self._secs = secs
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._ended = threading.Condition()
        self._draining: set[Drainable] = set()
        self._no_more = False

    def take(self, stream: Drainable) -> bool:
        """Drain a stream in the background. False if there are too many already."""
        with self._ended:
            if self._no_more or len(self._draining) >= self._most_streams:
                return False
            self._draining.add(stream)
        try:
            threading.Thread(target=self._drain, args=(stream,), name="bedrock-budget-drain", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down
            self._end(stream)
            return False
        return True

    def take_no_more(self) -> None:
        """The process ends: nobody would wait for what a stream costs."""
        self._no_more = True

    def wait(self, timeout: float | None) -> bool:
        """Wait until what is being drained has settled. False if it has not in ``timeout`` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        with self._ended:
            mine = set(self._draining)
            return self._ended.wait_for(
                lambda: not mine & self._draining, None if deadline is None else max(deadline - monotonic(), 0)
            )

    def after_fork_in_child(self) -> None:
        """The parent drains what it was draining."""
        self._start_afresh()

    def _drain(self, stream: Drainable) -> None:
        # The reading thread may hang in a read for longer than it has: another one settles then.
        timer = threading.Timer(self._secs, self._give_up, (stream,))
        timer.daemon = True
        timer.start()
        try:
            stream.drain()
        finally:
            timer.cancel()
            self._end(stream)

    def _give_up(self, stream: Drainable) -> None:
        try:
            stream.close_now()
        finally:
            self._end(stream)

    def _end(self, stream: Drainable) -> None:
        with self._ended:
            self._draining.discard(stream)
            self._ended.notify_all()

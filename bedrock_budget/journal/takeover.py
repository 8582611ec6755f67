"""A process looks after the journals of others that died, its predecessor's above all."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from ..clock import Clock
from ..core.errors import StoreError
from ..core.money import usd_text
from ..stores.contract import Store
from ..writers import new_writer_id
from .journal import Journal
from .replay import OtherStore, replay_unlocked

log = logging.getLogger("bedrock_budget")

#: Between two searches for journals of dead processes.
SEARCH_SECS = 30.0


class TakeOver:
    """Replays the unlocked folders beside a process's own: when it starts, and from time to time."""

    def __init__(self, journal: Journal, store: Store, clock: Clock) -> None:
        self._journal = journal
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._due_at = 0.0  # by `monotonic`
        self._searched = False  # to the end, at least once
        self._reported: set[Path] = set()

    def if_due(self, stop: Callable[[], bool]) -> None:
        """Search, unless it was done a moment ago. Raises nothing; what fails is tried again."""
        if monotonic() >= self._due_at and self._lock.acquire(blocking=False):
            try:
                self._due_at = monotonic() + SEARCH_SECS
                self._search(stop)
            finally:
                self._lock.release()

    def finish(self, timeout: float) -> None:
        """Have searched at least once, for a process that ends early. May take longer by the store's time-outs."""
        deadline = monotonic() + timeout
        if self._lock.acquire(timeout=timeout):
            try:
                if not self._searched:
                    self._search(lambda: monotonic() >= deadline)
            finally:
                self._lock.release()

    def _search(self, stop: Callable[[], bool]) -> None:
        try:
            done = replay_unlocked(
                self._journal.root,
                self._store,
                store_url=self._store.url,
                now_epoch=lambda: self._clock.now().timestamp(),
                new_writer_id=new_writer_id,
                skipped=self._skipped,
                stop=stop,
            )
        except (StoreError, OSError) as exc:
            log.warning("journals of dead processes in %s are not replayed yet: %s", self._journal.root, exc)
            return
        except Exception:  # the meter must go on
            log.exception("journals of dead processes in %s could not be replayed", self._journal.root)
            return
        self._searched = not stop()
        for each in done:
            written = each.written
            if written.requests:
                text = "replayed the journal of a dead process, %s: %s for %d calls"
                log.warning(text, each.path, usd_text(written.cost_pico_usd), written.requests)

    def _skipped(self, path: Path, exc: Exception) -> None:
        if path not in self._reported:
            self._reported.add(path)
            log.log(logging.INFO if isinstance(exc, OtherStore) else logging.ERROR, "not replayed: %s", exc)

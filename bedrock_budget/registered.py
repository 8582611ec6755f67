"""The inference profiles registered for orgs and apps, read seldom and remembered.

They change seldom and cannot be asked for in the request that reads controls (a batch of items whose keys are known):
finding them takes a request of its own, for a read unit. So they are read with a scope's first look, and again with
one in `EVERY_SECS`.
"""

import logging
import threading
from collections.abc import Mapping

from cachetools import LRUCache

from .clock import Clock
from .core.errors import StoreError
from .stores.contract import Profile, Store
from .stores.processes import PerProcess

log = logging.getLogger("bedrock_budget")

#: A registered profile takes effect within this time.
EVERY_SECS = 300.0
MAX_REMEMBERED = 65_536

_Whose = tuple[str, str | None]


def by_label(profiles: list[Profile]) -> dict[str, str]:
    """The ARN that each label stands for: the app's comes before the org's."""
    return {profile.label: profile.arn for profile in sorted(profiles, key=lambda each: each.app_id is not None)}


class _Memory:
    """What one process knows: when they were last read, and the ARN of each label."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: LRUCache[_Whose, tuple[float, Mapping[str, str]]] = LRUCache(MAX_REMEMBERED)


class Registered:
    """See the module's text."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._memory = PerProcess(_Memory)

    def labels(self, org_id: str, app_id: str | None) -> Mapping[str, str]:
        """The ARN of each registered label, as last read; none before."""
        memory = self._memory.get()
        with memory.lock:
            return memory.known.get((org_id, app_id), (0.0, {}))[1]

    def refresh(self, org_id: str, app_id: str | None) -> None:
        """Read them if that is due. Raises StoreError if they never could be: what is not known is not "none"."""
        whose = (org_id, app_id)
        now = self._clock.monotonic()
        memory = self._memory.get()
        with memory.lock:
            known = memory.known.get(whose)
        if known is not None and now - known[0] < EVERY_SECS:
            return
        try:
            labels = by_label(self._store.profiles(org_id, app_id))
        except StoreError as exc:
            if known is None:
                raise
            log.warning("keeping the inference profiles last read of org %s, app %s: %s", org_id, app_id, exc)
            labels = dict(known[1])
        with memory.lock:
            memory.known[whose] = (now, labels)

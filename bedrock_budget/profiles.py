"""What opaque ids stand for: application inference profiles and prompt routers, looked up once and remembered.

A lookup happens before an id is first needed, outside every lock, in a thread of its own, and is waited for no longer
than `WAIT_SECS`. What it found is remembered in memory and renewed in the background; a profile keeps what was found
last if that fails. A failure is remembered for a short while, so that AWS is not asked again by every call.
"""

import logging
import threading
from collections.abc import Iterable
from time import monotonic  # waiting is in real time, whatever the clock of the org days says

from cachetools import LRUCache, TLRUCache

from .clock import Clock
from .control_plane import LookUp, LookupFailed, action_for
from .core.equivalents import Equivalent
from .core.model_ids import ModelId, parse_model_id
from .stores.processes import PerProcess

log = logging.getLogger("bedrock_budget")

#: A call waits no longer than this for what its model stands for.
WAIT_SECS = 3.0
#: What a profile stands for does not change, but the regions of a system profile may grow.
FRESH_SECS = 86_400.0
#: A lookup that failed is repeated after this.
FAILED_SECS = 60.0
MAX_REMEMBERED = 4096
MAX_THREADS = 4


def is_opaque(model_id: str) -> bool:
    """Whether only AWS knows what an id stands for."""
    return parse_model_id(model_id).price_kind in ("profile", "served")


class _Memory:
    """What one process knows. Its lock is held for a moment, never while AWS is asked."""

    def __init__(self, clock: Clock) -> None:
        def until(_id: str, failure: str, now: float) -> float:
            return now + (FAILED_SECS if failure else FRESH_SECS)

        self.lock = threading.Lock()
        self.found: LRUCache[str, Equivalent] = LRUCache(MAX_REMEMBERED)
        # The outcome of each lookup, for as long as it need not be repeated: why it failed, "" if it did not.
        self.outcomes: TLRUCache[str, str] = TLRUCache(MAX_REMEMBERED, until, timer=clock.monotonic)
        self.warned: LRUCache[str, str] = LRUCache(MAX_REMEMBERED)  # of which failure
        self.under_way: dict[str, threading.Event] = {}


class Profiles:
    """See the module's text. One for all views of a client."""

    def __init__(self, look_up: LookUp, clock: Clock) -> None:
        self._look_up = look_up
        self._memory = PerProcess(lambda: _Memory(clock))

    def equivalent(self, model_id: str) -> Equivalent | None:
        """What an id stands for, as far as it is known: itself, unless it is opaque. Asks nobody."""
        model = parse_model_id(model_id)
        if model.price_kind not in ("profile", "served"):
            return Equivalent((model_id,), model.region)
        memory = self._memory.get()
        with memory.lock:
            return memory.found.get(model_id)

    def problem(self, model_id: str) -> str | None:
        """Why an id has no list price, and what to do; None if its form is no reason."""
        model = parse_model_id(model_id)
        problem = model.problem
        if model.price_kind not in ("profile", "served"):
            return problem
        memory = self._memory.get()
        with memory.lock:
            if model_id in memory.found:
                return None
            failure = memory.outcomes.get(model_id)
        return f"{problem}, and {failure or f'{action_for(model)} has not answered yet'}"

    def resolve(self, model_ids: Iterable[str], *, wait_secs: float = WAIT_SECS) -> None:
        """Have opaque ids looked up that are due for it, and wait for them, but no longer than ``wait_secs``.

        Never raises: what could not be found is a `problem`.
        """
        opaque = [model_id for model_id in dict.fromkeys(model_ids) if is_opaque(model_id)]
        if not opaque:
            return
        memory = self._memory.get()
        ours: list[str] = []
        awaited: list[threading.Event] = []
        with memory.lock:
            for model_id in opaque:
                if model_id in memory.outcomes:
                    continue
                if model_id not in memory.under_way:
                    memory.under_way[model_id] = threading.Event()
                    ours.append(model_id)
                if model_id not in memory.found:  # what is known and only old is renewed without anybody waiting
                    awaited.append(memory.under_way[model_id])
        count = min(len(ours), MAX_THREADS)
        for part in (ours[number::count] for number in range(count)):
            thread = threading.Thread(
                target=self._look_up_all, args=(memory, part), name="bedrock-budget-profiles", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down, or the process has too many threads
                self._look_up_all(memory, part)
        deadline = monotonic() + wait_secs
        for event in awaited:
            event.wait(max(deadline - monotonic(), 0.0))

    def _look_up_all(self, memory: _Memory, model_ids: Iterable[str]) -> None:
        for model_id in model_ids:
            self._look_up_one(memory, parse_model_id(model_id))

    def _look_up_one(self, memory: _Memory, model: ModelId) -> None:
        found: Equivalent | None = None
        failure = ""
        try:
            found = self._look_up(model)
        except LookupFailed as exc:
            failure = str(exc)
        except Exception as exc:  # whatever it is, those who wait must hear of it
            failure = f"{action_for(model)} failed: {exc!r}"
        with memory.lock:
            if found is not None:
                memory.found[model.text] = found
            memory.outcomes[model.text] = failure
            again = memory.warned.get(model.text) == failure
            memory.warned[model.text] = failure
            memory.under_way.pop(model.text).set()
        if failure:
            log.log(
                logging.DEBUG if again else logging.WARNING,
                "cannot look up what %s stands for: %s",
                model.text,
                failure,
            )
        elif found is not None:
            log.info("%s stands for %s", model.text, ", ".join(found.model_ids))

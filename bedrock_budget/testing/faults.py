"""What should go wrong next: a queue of faults, each for the first requests that match it."""

import threading
from dataclasses import dataclass
from typing import Literal

from .exchange import RawReply, Request

STREAMS = frozenset(("ConverseStream", "InvokeModelWithResponseStream"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error reply; the request is not billed."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is closed ``before`` processing (not billed), ``after`` it, or in mid-``body`` (both billed)."""

    when: Literal["before", "after", "body"]


@dataclass(frozen=True, slots=True)
class BrokenStream:
    """The stream ends after ``after_events`` text deltas: with a modelled exception, or cut off (``error`` None)."""

    after_events: int
    error: str | None
    message: str


Fault = Refusal | Drop | BrokenStream | RawReply


@dataclass(slots=True)
class _Rule:
    fault: Fault
    remaining: int
    operation: str | None
    model_id: str | None

    def fits(self, request: Request) -> bool:
        if isinstance(self.fault, BrokenStream) and request.operation not in STREAMS:
            return False
        return self.operation in (None, request.operation) and self.model_id in (None, request.model_id)


class Faults:
    """Faults in the order in which they were added. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []

    def add(self, fault: Fault, n: int = 1, operation: str | None = None, model_id: str | None = None) -> None:
        """Apply ``fault`` to the next ``n`` requests of that operation and model (None: of any)."""
        if n < 1:
            raise ValueError(f"a fault is for one request at least, got {n}")
        with self._lock:
            self._rules.append(_Rule(fault, n, operation, model_id))

    def take(self, request: Request) -> Fault | None:
        """The fault for this request, which uses it up; None for none."""
        if not self._rules:  # the common case, without the lock: a fault added this instant may miss this request
            return None
        with self._lock:
            for rule in self._rules:
                if rule.fits(request):
                    rule.remaining -= 1
                    if not rule.remaining:
                        self._rules.remove(rule)
                    return rule.fault
        return None

    def clear(self) -> None:
        """Forget all faults that have not happened yet."""
        with self._lock:
            self._rules.clear()

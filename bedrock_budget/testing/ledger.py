"""What a `LocalBedrock` served and billed: the second count, to hold a meter's figures against."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.usage import Usage


class PriceLike(Protocol):
    """Prices of one model in USD micros per 1,000,000 tokens."""

    @property
    def input(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def cache_read(self) -> int: ...
    @property
    def cache_write_5m(self) -> int: ...
    @property
    def cache_write_1h(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One request, entered when it arrived and before any byte of its reply.

    ``usage`` is what it is billed for, whatever became of the caller: nothing if it was refused.
    ``started_at`` is ``time.time()`` at arrival. ``complete`` is False for a stream that the service broke off.
    """

    request_id: str
    operation: str
    model_id: str
    usage: Usage
    started_at: float
    complete: bool
    status: int

    @property
    def billed(self) -> bool:
        """Whether Bedrock charges for it: a served request, other than the free CountTokens."""
        return self.status == 200 and self.operation != "CountTokens"

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON-ready values."""
        return {
            "request_id": self.request_id,
            "operation": self.operation,
            "model_id": self.model_id,
            "usage": self.usage._asdict(),
            "started_at": self.started_at,
            "complete": self.complete,
            "status": self.status,
        }


class Ledger:
    """The entries of one server, in order of arrival. Append-only and thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[LedgerEntry] = []

    def record(self, entry: LedgerEntry) -> None:
        """Append an entry."""
        with self._lock:
            self._entries.append(entry)

    def entries(self) -> list[LedgerEntry]:
        """All entries so far, refusals included (a copy)."""
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def usage_by_model(self) -> dict[str, Usage]:
        """Tokens billed per model id, as the callers wrote it."""
        sums: dict[str, Usage] = {}
        for entry in self.entries():
            if entry.billed:
                sums[entry.model_id] = sums.get(entry.model_id, Usage()).plus(entry.usage)
        return sums

    def cost_pico_usd(self, prices: Mapping[str, PriceLike]) -> int:
        """What all billed requests cost, exactly, in pico-USD. ``prices`` maps each model id, as called, to its prices.

        Raises KeyError naming a billed model that has no price.
        """
        # Its own arithmetic on purpose: a mistake in the library's pricing must not cancel out here.
        total = 0
        for model_id, usage in self.usage_by_model().items():
            if model_id not in prices:
                raise KeyError(f"no price given for model {model_id!r}")
            price = prices[model_id]
            total += usage.input_tokens * price.input
            total += usage.output_tokens * price.output
            total += usage.cache_read_tokens * price.cache_read
            total += usage.cache_write_5m_tokens * price.cache_write_5m
            total += usage.cache_write_1h_tokens * price.cache_write_1h
        return total

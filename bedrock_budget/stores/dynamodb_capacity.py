"""What DynamoDB says its requests consumed: the bill, in capacity units."""

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Units(NamedTuple):
    """Capacity units since the last reset.

    One write unit pays for a write of up to 1 KB, one read unit for a strongly consistent read of up to 4 KB (half a
    unit if eventually consistent). ``by_operation`` holds all units of each operation, table and index.
    ``refused_writes`` were turned down by their condition: DynamoDB bills them like writes but reports no units.
    """

    read_units: float
    table_write_units: float
    index_write_units: float
    requests: int
    refused_writes: int
    by_operation: Mapping[str, float]

    @property
    def write_units(self) -> float:
        return self.table_write_units + self.index_write_units


class Consumed:
    """A running count of capacity units. Thread-safe."""

    _WRITES = frozenset({"UpdateItem", "PutItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"})

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        with self._lock:
            self._read = self._table_write = self._index_write = 0.0
            self._requests = self._refused = 0
            self._by_operation: dict[str, float] = {}

    def add(self, operation: str, capacities: Iterable[Mapping[str, Any]]) -> None:
        """Count one answered request by its ``ConsumedCapacity`` entries.

        Raises KeyError, TypeError or ValueError if they do not say how much.
        """
        total = index = 0.0
        for capacity in capacities:
            total += float(capacity["CapacityUnits"])
            indexes: Mapping[str, Any] = capacity.get("GlobalSecondaryIndexes") or {}
            index += sum(float(entry["CapacityUnits"]) for entry in indexes.values())
        with self._lock:
            self._requests += 1
            self._by_operation[operation] = self._by_operation.get(operation, 0.0) + total
            if operation in self._WRITES:
                self._index_write += index
                self._table_write += total - index
            else:
                self._read += total

    def add_refused(self) -> None:
        """Count a write that its condition turned down."""
        with self._lock:
            self._requests += 1
            self._refused += 1

    def units(self) -> Units:
        """The count so far."""
        with self._lock:
            return Units(
                *(self._read, self._table_write, self._index_write),
                *(self._requests, self._refused),
                dict(self._by_operation),
            )

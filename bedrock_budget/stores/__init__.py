"""Where the counters that all processes share are kept.

`open_store` opens the store of a URL. The stores' classes are imported when they are asked for: a program that uses
one of them does not pay for importing the others' libraries.
"""

from typing import TYPE_CHECKING

from .contract import (
    Controls,
    DailyTotal,
    Override,
    Profile,
    SequenceConflict,
    ShardSum,
    Sticky,
    Stop,
    Store,
    StoreSetupError,
    UnreadableItem,
)
from .urls import default_store_url, open_store

if TYPE_CHECKING:
    from .dynamodb import DynamoDBStore
    from .memory import MemoryStore
    from .sqlite import SQLiteStore

__all__ = [
    "Controls",
    "DailyTotal",
    "DynamoDBStore",
    "MemoryStore",
    "Override",
    "Profile",
    "SQLiteStore",
    "SequenceConflict",
    "ShardSum",
    "Sticky",
    "Stop",
    "Store",
    "StoreSetupError",
    "UnreadableItem",
    "default_store_url",
    "open_store",
]


def __getattr__(name: str) -> type[Store]:
    if name == "MemoryStore":
        from .memory import MemoryStore  # noqa: PLC0415

        return MemoryStore
    if name == "SQLiteStore":
        from .sqlite import SQLiteStore  # noqa: PLC0415

        return SQLiteStore
    if name == "DynamoDBStore":
        from .dynamodb import DynamoDBStore  # noqa: PLC0415

        return DynamoDBStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

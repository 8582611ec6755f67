from collections.abc import Iterator
from pathlib import Path

import pytest

from bedrock_budget.stores import MemoryStore, SQLiteStore, Store


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "budget.db")
    yield store
    store.close()


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "memory":
        yield MemoryStore()
    else:
        yield request.getfixturevalue(f"{request.param}_store")


@pytest.fixture(params=["sqlite", "dynamodb"])
def shared_store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind that several processes can share."""
    shared: Store = request.getfixturevalue(f"{request.param}_store")
    return shared

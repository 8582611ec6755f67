"""Meters with a journal, and the end of a process as its journal sees it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles import UnreliableStore

from bedrock_budget.journal.journal import Journal
from bedrock_budget.meter import Meter
from bedrock_budget.testing import ManualClock

MakeMeter = Callable[[], Meter]


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def make_meter(monkeypatch: pytest.MonkeyPatch, store: UnreliableStore, root: Path) -> Iterator[MakeMeter]:
    """Meters whose background thread never starts: only what the test calls happens."""
    monkeypatch.setattr(Meter, "_start_thread", lambda self: None)
    made: list[Meter] = []

    def make() -> Meter:
        made.append(Meter(store, ManualClock(), journal=Journal(root, store.url)))
        return made[-1]

    yield make
    for meter in made:
        die(meter)


@pytest.fixture
def meter(make_meter: MakeMeter) -> Meter:
    return make_meter()


def die(meter: Meter) -> None:
    """What the kernel does when the process is killed: its files are closed and its locks given back."""
    assert meter._journal is not None
    meter._journal.after_fork_in_child()  # as a child does with what is its parent's
    meter._closing.set()

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command_line import Ran, Run, run_main

from bedrock_budget.stores import SQLiteStore
from bedrock_budget.testing import ManualClock

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.fixture
def configuration() -> str:
    """The configuration of the documentation's examples."""
    found = re.search(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str) -> Path:
    """An operator's folder: a configuration, and the environment that names it and the store."""
    (tmp_path / "budget.yaml").write_text(configuration, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEDROCK_BUDGET_CONFIG", "budget.yaml")
    monkeypatch.setenv("BEDROCK_BUDGET_STORE", "sqlite:///budget.db")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[SQLiteStore]:
    """The store that the environment names, which exists."""
    store = SQLiteStore(folder / "budget.db")
    store.app_ids("")
    yield store
    store.close()


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in the operator's folder."""

    def run_one(*words: str, clock: ManualClock | None = None) -> Ran:
        capsys.readouterr()
        code = run_main(*words, clock=clock)
        return Ran(code, *capsys.readouterr())

    return run_one

"""Several aggregators that share the keys: each key has one, whatever the others do."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import environment_of_tests

from bedrock_budget.aggregator import Aggregator, aggregator_for, main
from bedrock_budget.clock import SystemClock
from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.errors import ConfigError
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.partition import PARTITION_VARIABLE, Partition
from bedrock_budget.stores import SQLiteStore
from bedrock_budget.writers import new_writer_id

KEYS = [UsageKey(f"ORG#acme#APP#app{number}", "premium", "20260115") for number in range(30)]

names = st.text(
    st.characters(codec="utf-8", exclude_characters="#", categories=["L", "N", "P"]), min_size=1, max_size=9
)


@given(names, names, st.integers(1, 40))
def test_every_key_belongs_to_exactly_one_share_on_all_its_days(app: str, label: str, shares: int) -> None:
    key = UsageKey(f"ORG#acme#APP#{app}", label, "20260115")
    own = [Partition(number, shares) for number in range(1, shares + 1) if Partition(number, shares).has(key)]
    assert len(own) == 1
    assert own[0].has(key._replace(day="20260116"))


def test_a_share_is_the_same_in_every_process_and_version() -> None:
    assert [Partition(number, 3).has(KEYS[0]) for number in (1, 2, 3)] == [True, False, False]


def test_shares_are_about_equal() -> None:
    keys = [UsageKey(f"ORG#acme#APP#app{number}", "premium", "20260115") for number in range(3000)]
    counts = [sum(map(Partition(number, 3).has, keys)) for number in (1, 2, 3)]
    assert min(counts) > 850


def test_a_share_is_written_as_number_and_count() -> None:
    assert Partition.parse("2/3") == Partition(2, 3)
    assert str(Partition(2, 3)) == "2/3"
    assert all(map(Partition().has, KEYS))


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "3", "1/0", "0/0", "-1/3", "1/3/5", "one/3", " 1/3", "1.0/3", "", "٣/٣"]
)
def test_what_is_no_share_is_an_error_that_says_what_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="1 <= I <= N"):
        Partition.parse(text)
    with pytest.raises(SystemExit) as ended:
        main(["--store", "memory://", f"--partition={text}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--partition" in said
    assert repr(text) in said


def test_the_environment_names_a_share_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/budget.db"
    assert _share(aggregator_for(url, None)) == "1/1"
    monkeypatch.setenv(PARTITION_VARIABLE, "2/5")
    assert _share(aggregator_for(url, None)) == "2/5"
    assert _share(aggregator_for(url, None, partition=Partition(1, 2))) == "1/2"
    monkeypatch.setenv(PARTITION_VARIABLE, "5/2")
    with pytest.raises(ConfigError, match=r"\$BEDROCK_BUDGET_PARTITION .* got '5/2'"):
        aggregator_for(url, None)
    assert main(["--store", url, "--once"]) == 2


def _share(aggregator: Aggregator) -> str:
    share: str = aggregator.health()[1]["partition"]
    return share


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A store in which all keys have been written just now."""
    path = tmp_path / "budget.db"
    store = SQLiteStore(path)
    for number, key in enumerate(KEYS):
        batch = Batch(key, new_writer_id(), 1, number % 8, 8, Amounts(number + 1, Usage(number), 1))
        store.write_batch(batch, now_epoch=SystemClock().now().timestamp())
    store.close()
    return path


def aggregators(database: Path, *shares: str) -> None:
    """A process for each share, all at once."""
    command = [sys.executable, "-m", "bedrock_budget.aggregator", "--store", f"sqlite:///{database}", "--once"]
    processes = [
        subprocess.Popen(
            [*command, "--partition", share], env=environment_of_tests(), stderr=subprocess.PIPE, text=True
        )
        for share in shares
    ]
    for process in processes:
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log


def totals(database: Path) -> dict[UsageKey, int]:
    store = SQLiteStore(database)
    found = {key: total.amounts.cost_pico_usd for key, total in store.read_totals(KEYS).items()}
    store.close()
    return found


ALL = {key: number + 1 for number, key in enumerate(KEYS)}


def test_processes_with_a_share_each_cover_all_keys(database: Path) -> None:
    aggregators(database, "1/3", "3/3")
    some = totals(database)
    assert some == {key: cost for key, cost in ALL.items() if not Partition(2, 3).has(key)}
    assert 0 < len(some) < len(ALL)
    aggregators(database, "2/3")
    assert totals(database) == ALL


def test_shares_that_overlap_leave_the_same_totals(database: Path) -> None:
    aggregators(database, "1/2", "2/2", "1/3", "1/1")
    assert totals(database) == ALL


def test_only_its_own_keys_are_counted_in_the_log(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    own = sum(map(Partition(1, 3).has, KEYS))
    assert main(["--store", f"sqlite:///{database}", "--once", "--partition", "1/3"]) == 0
    assert f"{own} keys, {own} totals written" in caplog.text

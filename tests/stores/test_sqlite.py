"""What is particular to the SQLite store: the file, its limits and its errors."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import environment_of_tests
from stores.batches import DAY, NOW, amounts, batch, new_key, new_writer, times
from stores.threads import in_threads

from bedrock_budget.core.account import Amounts
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.holds import Grant
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DailyTotal, SQLiteStore, Stop, StoreSetupError, default_store_url, open_store
from bedrock_budget.stores import sqlite_file as files
from bedrock_budget.stores.sqlite_statements import MIGRATIONS, SCHEMA_VERSION

as_user = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do everything")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budget.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for other writers no longer than a moment."""
    monkeypatch.setattr(files, "BUSY_TIMEOUT_SECS", 0.05)


def write(store: SQLiteStore) -> None:
    store.write_batch(batch(new_key(), new_writer(), 1), now_epoch=NOW)


def test_an_acknowledged_write_is_on_disk_for_every_other_connection(
    sqlite_store: SQLiteStore, connection: sqlite3.Connection
) -> None:
    one = batch(new_key(), new_writer(), 1, shard=3)
    sqlite_store.write_batch(one, now_epoch=NOW)
    row = connection.execute("SELECT scope, label, day, shard, cost_pico_usd, shard_count, active_hour FROM shards")
    assert row.fetchone() == (*one.key, 3, 1_400_000, 8, "2026012315")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    with sqlite_store._writing.transaction("BEGIN") as own:
        assert own.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_sum_beyond_what_sqlite_holds_exactly_is_refused_and_nothing_is_added(sqlite_store: SQLiteStore) -> None:
    key = new_key()
    most = Amounts(2**63 - 1, Usage(2**63 - 1), 1)
    writer = new_writer()
    sqlite_store.write_batch(batch(key, writer, 1, most, shard=0), now_epoch=NOW)
    for too_much in (Amounts(1, Usage(), 1), Amounts(0, Usage(1), 0), Amounts(2**63, Usage(), 1)):
        with pytest.raises(StoreError, match=r"2\^63-1") as caught:
            sqlite_store.write_batch(batch(key, writer, 2, too_much, shard=0), now_epoch=NOW)
        assert caught.value.__cause__ is not None
    assert sqlite_store.read_shards({key: 8}, writer_id=writer)[key][:2] == (most, 1)
    # another shard still has room, and sums are Python's
    sqlite_store.write_batch(batch(key, new_writer(), 1, most, shard=1), now_epoch=NOW)
    assert sqlite_store.read_shards({key: 8})[key].amounts == times(most, 2)
    with pytest.raises(StoreError, match=r"2\^63-1"):
        sqlite_store.write_total(key, DailyTotal(times(most, 2), 1))


def test_many_threads_may_open_a_new_file_at_once(path: Path) -> None:
    stores = [SQLiteStore(path) for _ in range(8)]
    key = new_key()
    in_threads(8, lambda n: stores[n].write_batch(batch(key, new_writer(), 1), now_epoch=NOW))
    assert stores[0].read_shards({key: 8})[key].amounts == times(amounts(), 8)
    for store in stores:
        store.close()


def test_readers_do_not_wait_for_a_writer(
    sqlite_store: SQLiteStore, connection: sqlite3.Connection, impatient: None
) -> None:
    write(sqlite_store)
    sqlite_store.close()
    connection.execute("BEGIN IMMEDIATE")
    assert sqlite_store.read_totals([new_key()]) == {}
    with pytest.raises(StoreError, match=r"budget\.db: another program held it .*try again") as caught:
        write(sqlite_store)
    assert not isinstance(caught.value, StoreSetupError)
    connection.execute("ROLLBACK")
    write(sqlite_store)


def test_a_new_file_locked_by_another_program_is_waited_for_and_reported(
    sqlite_store: SQLiteStore, connection: sqlite3.Connection, impatient: None
) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="another program"):
        write(sqlite_store)
    connection.execute("ROLLBACK")
    write(sqlite_store)


def test_a_thread_waits_for_others_of_its_process_within_bounds(sqlite_store: SQLiteStore, impatient: None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def occupy() -> None:
        with sqlite_store._writing.transaction("BEGIN"):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=occupy)
    thread.start()
    inside.wait()
    with pytest.raises(StoreError, match="other threads"):
        write(sqlite_store)
    leave.set()
    thread.join()
    write(sqlite_store)


def test_a_missing_folder_is_named_and_not_created(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "no" / "budget.db")
    with pytest.raises(StoreSetupError, match=r"no/budget\.db: the folder .*/no does not exist; create it"):
        write(store)
    assert not (tmp_path / "no").exists()


def test_the_users_state_folder_is_created_for_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEDROCK_BUDGET_STORE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    store = open_store(default_store_url())
    assert isinstance(store, SQLiteStore)
    assert not (tmp_path / "state").exists()
    write(store)
    store.close()
    assert stat.S_IMODE((tmp_path / "state" / "bedrock-budget").stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    other = open_store(default_store_url())
    assert isinstance(other, SQLiteStore)
    with pytest.raises(StoreSetupError, match=r"cannot be created .*BEDROCK_BUDGET_STORE"):
        write(other)


def test_a_path_means_the_file_it_meant_when_the_store_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("budget.db")
    monkeypatch.chdir("/")
    write(store)
    store.close()
    assert (tmp_path / "budget.db").exists()


def test_what_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"precious text, not a database. " * 100)
    with pytest.raises(StoreSetupError, match=r"budget\.db: not a SQLite database"):
        write(SQLiteStore(path))
    assert path.read_bytes().startswith(b"precious")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreSetupError, match="cannot be opened"):
        write(SQLiteStore(tmp_path))


@pytest.mark.parametrize("statement", ["CREATE TABLE theirs (a)", "PRAGMA user_version = 7"])
def test_another_programs_database_is_left_alone(path: Path, connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)
    before = path.read_bytes()
    with pytest.raises(StoreSetupError, match="another program"):
        write(SQLiteStore(path))
    assert path.read_bytes() == before


def test_a_newer_schema_is_named(sqlite_store: SQLiteStore, connection: sqlite3.Connection) -> None:
    write(sqlite_store)
    sqlite_store.close()
    newer = SCHEMA_VERSION + 1
    connection.execute(f"PRAGMA user_version = {newer}")
    found = rf"newer bedrock-budget \(schema {newer}, this one knows {SCHEMA_VERSION}\); upgrade"
    with pytest.raises(StoreSetupError, match=found):
        write(sqlite_store)


def test_a_place_without_a_write_ahead_log_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "connect", lambda _, **options: sqlite3.Connection(":memory:", **options))
    with pytest.raises(StoreSetupError, match="write-ahead log"):
        write(SQLiteStore(path))


@as_user
def test_a_file_that_cannot_be_written_is_named(sqlite_store: SQLiteStore) -> None:
    write(sqlite_store)
    sqlite_store.close()
    os.chmod(sqlite_store.path, 0o400)
    with pytest.raises(StoreSetupError, match="cannot be written"):
        write(sqlite_store)


def test_a_read_only_database_is_named(sqlite_store: SQLiteStore) -> None:
    write(sqlite_store)
    with sqlite_store._writing.transaction("BEGIN") as own:
        own.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreSetupError, match="cannot be written; correct the permissions"):
        write(sqlite_store)


def test_a_full_disk_is_named_and_nothing_is_added(sqlite_store: SQLiteStore) -> None:
    key = new_key()
    sqlite_store.write_batch(batch(key, new_writer(), 1), now_epoch=NOW)
    with sqlite_store._writing.transaction("BEGIN") as own:
        pages = own.execute("PRAGMA page_count").fetchone()[0]
        own.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="disk is full; free some space"):
        sqlite_store.put_config("acme", None, {"large": "x" * 100_000})
    assert sqlite_store.read_shards({key: 8})[key].amounts == amounts()


def test_a_schema_that_cannot_be_written_leaves_no_half_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MIGRATIONS", {**MIGRATIONS, 1: (MIGRATIONS[1][0], "nonsense")})
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match=r"SQLite failed.*nonsense"):
        write(store)
    monkeypatch.undo()
    write(store)
    store.close()


def test_a_file_of_an_older_version_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SCHEMA_VERSION", 1)
    old = SQLiteStore(path)
    key = new_key()
    old.write_batch(batch(key, new_writer(), 1), now_epoch=NOW)
    old.close()
    monkeypatch.undo()
    stores = [SQLiteStore(path) for _ in range(4)]
    in_threads(4, lambda number: stores[number].read_granted([key]))
    stores[0].write_grant(Grant(key, new_writer(), 1, 5, 9, 0, int(NOW) + 1))
    assert stores[1].read_granted([key]) == {key: 5}
    assert stores[2].read_shards({key: 8})[key].amounts == amounts()


def make_file_of_schema_1(path: Path) -> None:
    """A file as version 0.1.0 left it before there were stops, in its write-ahead log mode."""
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("PRAGMA journal_mode = WAL")
    old.executescript((Path(__file__).parent / "schema_1.sql").read_text())
    old.close()


def check_upgraded(path: Path) -> None:
    """What was there is there, and what is new can be used."""
    store = SQLiteStore(path)
    key = UsageKey("ORG#acme#APP#chat", "premium", DAY)
    settled = Amounts(1_400_000, Usage(20, 5), 1)
    assert store.read_shards({key: 8}, writer_id="wAAAAAAAAAA")[key] == (settled, 1, 8)
    assert store.read_totals([key])[key] == DailyTotal(settled, int(NOW) + 1)
    assert store.active_keys(["2026012315"]) == {key: 4}
    found = store.read_controls("acme", "chat", scope=key.scope, day=DAY, now_epoch=NOW)
    assert found.stop is None
    assert found.app_item == {"quotas": {"premium": 5}}
    assert found.override
    assert found.override.reason == "incident 7"
    assert found.sticky
    assert found.sticky.label == "standard"
    store.put_stop("acme", Stop(None, "ann", "a leak", int(NOW), None))
    assert store.lift_stop("acme", None, lifted_by="ann", now_epoch=int(NOW))
    with store._writing.transaction("BEGIN") as own:
        assert own.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    store.close()


def test_a_file_of_schema_1_is_upgraded_in_place(path: Path) -> None:
    make_file_of_schema_1(path)
    check_upgraded(path)
    check_upgraded(path)  # it stays as it is


def test_a_file_is_upgraded_once_by_any_number_of_processes_at_once(path: Path) -> None:
    make_file_of_schema_1(path)
    program = (
        "import sys; from bedrock_budget.stores import SQLiteStore; store = SQLiteStore(sys.argv[1]);"
        "print('ready', flush=True); sys.stdin.readline(); print(store.app_ids('acme')); store.close()"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment_of_tests(),
        )
        for _ in range(6)
    ]
    for each in running:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in running:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    assert [(each.communicate()[0], each.returncode) for each in running] == [("['chat']\n", 0)] * 6
    check_upgraded(path)


def test_a_file_is_upgraded_once_by_any_number_of_threads_at_once(path: Path) -> None:
    make_file_of_schema_1(path)
    stores = [SQLiteStore(path) for _ in range(8)]
    in_threads(8, lambda n: stores[n].put_stop(f"org{n}", Stop(None, "ann", "a leak", int(NOW), None)))
    assert all(stores[-1].stops(f"org{n}", now_epoch=NOW) for n in range(8))
    for store in stores:
        store.close()


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_file_of_schema_1(path)
    monkeypatch.setattr(files, "MIGRATIONS", {**MIGRATIONS, SCHEMA_VERSION: (*MIGRATIONS[SCHEMA_VERSION], "nonsense")})
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match=r"SQLite failed.*nonsense"):
        store.app_ids("acme")
    monkeypatch.undo()
    check_upgraded(path)
    store.close()


def test_a_broken_connection_is_replaced(sqlite_store: SQLiteStore) -> None:
    write(sqlite_store)
    connection = sqlite_store._writing._connection
    assert connection is not None
    connection.close()
    with pytest.raises(StoreError, match="closed database"):
        write(sqlite_store)
    write(sqlite_store)


def test_a_connection_of_another_process_is_neither_used_nor_closed(
    sqlite_store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a fork that ran none of Python's hooks looks like this to the child
    write(sqlite_store)
    connection = sqlite_store._writing._connection
    assert connection is not None
    real = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: real + 1)
    with pytest.raises(StoreSetupError, match="forked in a way that Python did not see"):
        write(sqlite_store)
    with pytest.raises(StoreSetupError, match="forked in a way that Python did not see"):
        sqlite_store.read_totals([new_key()])  # SQLite's account of locks is one for all connections to a file
    sqlite_store.close()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    monkeypatch.undo()
    write(sqlite_store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_no_connection_is_open_across_a_fork(sqlite_store: SQLiteStore) -> None:
    write(sqlite_store)
    files._before_fork()  # as Python calls it
    held = [sqlite_store._writing.lock.locked(), sqlite_store._reading.lock.locked()]
    opened = sqlite_store._writing._connection
    files._after_fork()
    assert held == [True, True]
    assert opened is None
    write(sqlite_store)


def test_a_file_that_is_busy_for_long_stays_open_across_a_fork(sqlite_store: SQLiteStore, impatient: None) -> None:
    write(sqlite_store)
    with sqlite_store._writing.transaction("BEGIN"):
        files._before_fork()
        files._after_fork()
        assert sqlite_store._writing._connection is not None
    assert not sqlite_store._reading.lock.locked()
    write(sqlite_store)

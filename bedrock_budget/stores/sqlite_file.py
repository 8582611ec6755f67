"""The SQLite file: opening it, its schema, and what its errors mean."""

import os
import sqlite3
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.errors import StoreError
from .contract import StoreSetupError
from .sqlite_errors import BUSY_TIMEOUT_SECS, is_busy, leaves_connection_usable, store_error
from .sqlite_statements import MIGRATIONS, SCHEMA, SCHEMA_VERSION
from .urls import state_folder

#: Marks the file as this library's (``PRAGMA application_id``): "BBdg".
APPLICATION_ID = 0x42426467


class SQLiteFile:
    """One connection to a file, opened on first use. Any number of threads may use it, one at a time.

    SQLite keeps account of a process's file locks in the process's memory. A child gets a copy of that account but
    none of the locks, and would write without them, even through a connection of its own. So every connection is
    closed before a fork (see `_before_fork`), and parent and child open new ones when they need them.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened_by = 0
        _files[id(self)] = self

    @contextmanager
    def transaction(self, begin: str) -> Generator[sqlite3.Connection, None, None]:
        """A transaction, committed unless the block raises. ``begin``: ``BEGIN`` or ``BEGIN IMMEDIATE``.

        Raises StoreError for everything that SQLite refuses.
        """
        if not self.lock.acquire(timeout=BUSY_TIMEOUT_SECS):
            raise StoreError(f"{self.path}: other threads kept it busy for {BUSY_TIMEOUT_SECS:g} s; try again")
        try:
            connection = self._connect()
            with _transaction(connection, begin):
                yield connection
        except (sqlite3.Error, OverflowError) as exc:
            if not leaves_connection_usable(exc):
                self._discard()
            raise store_error(exc, self.path) from exc
        finally:
            self.lock.release()

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        with self.lock:
            self.close_locked()

    def close_locked(self) -> None:
        """`close`, for who holds ``lock``."""
        connection = self._connection
        if connection is not None and self._opened_by == os.getpid():
            self._connection = None
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None or self._opened_by != os.getpid():
            if any(file.path == self.path and file.inherited for file in _all_files()):
                raise StoreSetupError(
                    f"{self.path}: in use when this process was forked in a way that Python did not see; use the store "
                    "only after the fork (uWSGI: set lazy-apps)"
                )
            self._connection = _open(self.path)
            self._opened_by = os.getpid()
        return self._connection

    @property
    def inherited(self) -> bool:
        """Whether a connection of the parent process is still open here."""
        return self._connection is not None and self._opened_by != os.getpid()

    def __del__(self) -> None:
        # A connection that is only dropped is warned of from Python 3.13 on. A parent's is not ours to close.
        if getattr(self, "_connection", None) is not None and not self.inherited:
            self._discard()

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


_files: weakref.WeakValueDictionary[int, SQLiteFile] = weakref.WeakValueDictionary()
_forking = threading.Lock()
_held: list[SQLiteFile] = []  # by the thread that forks, from before the fork to after it


def _all_files() -> list[SQLiteFile]:
    return [file for reference in _files.valuerefs() if (file := reference()) is not None]


def _before_fork() -> None:
    _forking.acquire()
    for file in _all_files():
        # A file that is busy for too long stays open; the child finds that out, see `SQLiteFile.inherited`.
        if file.lock.acquire(timeout=BUSY_TIMEOUT_SECS):
            _held.append(file)
            with suppress(sqlite3.Error):
                file.close_locked()


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _open(path: str) -> sqlite3.Connection:
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random  # noqa: PLC0415

    folder = Path(path).parent
    if not folder.is_dir():
        if folder != state_folder():
            raise StoreSetupError(f"{path}: the folder {folder} does not exist; create it or correct the path")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreSetupError(
                f"{path}: the folder {folder} cannot be created ({exc.strerror}); "
                "set $BEDROCK_BUDGET_STORE to a place that can be written"
            ) from exc
    # autocommit (isolation_level None): transactions begin where the code says so
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECS, isolation_level=None, check_same_thread=False)
    try:
        # SQLite does not wait by itself while another process changes the journal mode of a new file.
        for attempt in Retrying(
            retry=retry_if_exception(is_busy),
            stop=stop_after_delay(BUSY_TIMEOUT_SECS),
            wait=wait_random(0.002, 0.02),
            reraise=True,
        ):
            with attempt:
                _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    with _transaction(connection, "BEGIN"):
        version = _check_version(connection, path)  # before anything is changed in a file that may not be ours
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreSetupError(f"{path}: SQLite cannot use a write-ahead log there ({mode}); put it on a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    if version == SCHEMA_VERSION:
        return
    with _transaction(connection, "BEGIN IMMEDIATE"):
        version = _check_version(connection, path)  # another process may have been faster
        if version == 0:
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            version = 1
        for step in range(version + 1, SCHEMA_VERSION + 1):
            for statement in MIGRATIONS[step]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Generator[None, None, None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_version(connection: sqlite3.Connection, path: str) -> int:
    """The schema version of the file, 0 for an empty one. Raises StoreSetupError for a file that is not ours.

    In a transaction: another process may be writing the schema just now.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        if version or connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise StoreSetupError(f"{path}: a database of another program; give the store a file of its own")
        return 0
    if version > SCHEMA_VERSION:
        raise StoreSetupError(
            f"{path}: written by a newer bedrock-budget (schema {version}, this one knows {SCHEMA_VERSION}); "
            "upgrade bedrock-budget or use another file"
        )
    return version


def absolute(path: str | os.PathLike[str]) -> str:
    """The path as it is meant now, whatever folder the process changes to."""
    return os.path.abspath(os.fspath(path))

"""What SQLite's errors mean for a store, and what to do about them."""

import sqlite3

from ..core.errors import StoreError
from .contract import StoreSetupError

#: How long a statement waits for other writers of the file, seconds.
BUSY_TIMEOUT_SECS = 10.0


def is_busy(exc: BaseException) -> bool:
    return isinstance(exc, sqlite3.Error) and _code(exc) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def leaves_connection_usable(exc: Exception) -> bool:
    """Whether the connection that raised this can go on after a rollback; else it is to be replaced."""
    return is_busy(exc) or isinstance(exc, OverflowError) or _code(exc) == sqlite3.SQLITE_CONSTRAINT


def _code(exc: BaseException) -> int:
    """SQLite's primary result code; -1 for errors of the Python module itself."""
    code: int = getattr(exc, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else code


#: Result code -> (whether an operator has to act first, what it means and what to do).
_MEANINGS = {
    sqlite3.SQLITE_BUSY: (False, f"another program held it for over {BUSY_TIMEOUT_SECS:g} s; end that or try again"),
    sqlite3.SQLITE_LOCKED: (False, "another program holds it; end that or try again"),
    sqlite3.SQLITE_FULL: (False, "the disk is full; free some space"),
    sqlite3.SQLITE_CONSTRAINT: (False, "a counter would exceed 2^63-1, more than SQLite can hold exactly"),
    sqlite3.SQLITE_READONLY: (True, "it or its folder cannot be written; correct the permissions"),
    sqlite3.SQLITE_PERM: (True, "no permission; correct the file's permissions"),
    sqlite3.SQLITE_CANTOPEN: (True, "it cannot be opened; correct the path or the permissions of file and folder"),
    sqlite3.SQLITE_NOTADB: (True, "not a SQLite database; move it away or give another path"),
    sqlite3.SQLITE_CORRUPT: (True, "the database is damaged; restore it from a backup or move it away"),
}


def store_error(exc: Exception, path: str) -> StoreError:
    """The error to raise for one of SQLite's."""
    if isinstance(exc, OverflowError):
        return StoreError(f"{path}: {_MEANINGS[sqlite3.SQLITE_CONSTRAINT][1]} ({exc})")
    setup, meaning = _MEANINGS.get(_code(exc), (False, "SQLite failed"))
    text = f"{path}: {meaning} ({exc})"
    return StoreSetupError(text) if setup else StoreError(text)

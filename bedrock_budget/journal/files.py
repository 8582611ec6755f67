"""The journal's folders: one for each process, locked for as long as the process lives.

``<journal>/<folder>/lock`` is locked with ``flock``, which the kernel gives back when the process ends, however it
ends. A folder is made under a name that nobody looks for and renamed once it is locked, so a folder without an owner
is always that of a dead process. Segments are numbered, ``000000000001.log``; the highest holds all that matters.
"""

import os
import re
import secrets
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import time  # as file systems have it
from typing import IO

from ..core.errors import ConfigError

LOCK = "lock"
_NEW = "new-"
_NEW_SECS = 60.0
_SEGMENT = ".log"
#: Put before the name of a folder that a person has to look at; nobody replays it.
IN_DOUBT = "in-doubt-"
#: Process id and writer id. Whatever else stands beside the journal's folders is none of ours.
_NAME = re.compile(rf"({IN_DOUBT})?[0-9]+-w[A-Za-z0-9_-]{{10}}")
_NEW_NAME = re.compile(rf"{_NEW}[0-9a-f]{{16}}")

_held: "weakref.WeakSet[Folder]" = weakref.WeakSet()


class Folder:
    """A folder that this process has locked. Closing, or the end of the process, gives the lock back."""

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        self.path = path
        self._lock = lock
        _held.add(self)

    def segment(self, number: int) -> Path:
        """The path of a segment."""
        return self.path / f"{number:012}{_SEGMENT}"

    def segments(self) -> list[Path]:
        """The complete segments, oldest first."""
        return segments_in(self.path)

    def remove(self) -> None:
        """Delete the folder with all its segments, then give the lock back. Raises OSError.

        The newest segment goes last: an older one that is left without it would count as the truth.
        """
        for path in [*self.path.glob("*.tmp"), *self.segments()]:
            discard(path)
        (self.path / LOCK).unlink()
        self.path.rmdir()
        self.release()

    def put_aside(self) -> Path:
        """Keep the folder for a person to look at. Returns its new path."""
        self.path = self.path.rename(self.path.with_name(IN_DOUBT + self.path.name))
        self.release()
        return self.path

    def release(self) -> None:
        """Give the lock back."""
        self._lock.close()


def discard(path: Path) -> None:
    """Delete a segment that is of no use any more."""
    path.unlink(missing_ok=True)


def check_root(root: Path) -> None:
    """Raise ConfigError for a journal that can never work here; a full or read-only disk may pass."""
    if find_spec("fcntl") is None:
        raise ConfigError("journal: needs file locks (flock), which this platform does not have; leave it out")
    if root.exists() and not root.is_dir():
        raise ConfigError(f"journal: must be a folder, and {str(root)!r} is a file; name another path")


def make_folder(root: Path, name: str) -> Folder:
    """Make and lock a new folder. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = root / (_NEW + secrets.token_hex(8))
    new.mkdir(mode=0o700)
    lock = (new / LOCK).open("wb")
    folder = Folder(new, lock)
    try:
        _lock(lock)
        folder.path = new.rename(root / name)
        return folder
    except BaseException:
        lock.close()
        with suppress(OSError):
            (new / LOCK).unlink()
            new.rmdir()
        raise


def _lock(file: IO[bytes]) -> None:
    """Raises BlockingIOError if another process has it."""
    import fcntl  # noqa: PLC0415 - not everywhere; `check_root` says so

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def folders_in(root: Path) -> list[Path]:
    """The folders of processes, dead or alive, and those put aside, by name. Raises OSError."""
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def segments_in(folder: Path) -> list[Path]:
    """The complete segments of a folder, oldest first. Raises OSError."""
    return sorted(folder.glob(f"*{_SEGMENT}"))


def lock_folder(path: Path) -> Folder | None:
    """Lock a folder that nobody has; None if its process lives, or if it is gone or put aside. Raises OSError."""
    if path.name.startswith(IN_DOUBT):
        return None
    try:
        lock = (path / LOCK).open("r+b")
    except FileNotFoundError:
        if segments_in(path):
            raise
        return None  # replayed and removed by another just now
    folder = Folder(path, lock)
    try:
        _lock(lock)
        if os.fstat(lock.fileno()).st_ino == (path / LOCK).stat().st_ino:
            return folder
    except (BlockingIOError, FileNotFoundError):  # FileNotFoundError: as above
        pass
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def sweep(root: Path) -> None:
    """Remove what processes left that were killed while they made or removed their folder."""
    for path in list(root.glob("*")):
        with suppress(OSError):
            if _NEW_NAME.fullmatch(path.name) and not path.is_symlink() and time() - path.stat().st_mtime > _NEW_SECS:
                (path / LOCK).unlink(missing_ok=True)
                path.rmdir()
            elif _NAME.fullmatch(path.name) and not (path / LOCK).exists():
                path.rmdir()  # fails if anything is in it


def _after_fork_in_child() -> None:
    # A lock is held for as long as any process has its file open: a child must not keep its parent's.
    for folder in list(_held):
        folder.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a loss of power. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

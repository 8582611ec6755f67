"""The journal's folders: one for each process, locked for as long as the process lives.

``<journal>/<folder>/lock`` is locked with ``flock``, which the kernel gives back when the process ends, however it
ends. A folder is made under a name that nobody looks for and renamed once it is locked, so a folder without an owner
is always that of a dead process. ``NNNNNN.log`` is a segment; the highest number holds all that matters.
"""

import os
import secrets
from collections.abc import Iterator
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


class Folder:
    """A folder that this process has locked. Closing, or the end of the process, gives the lock back."""

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        self.path = path
        self._lock = lock

    def segment(self, number: int) -> Path:
        """The path of a segment."""
        return self.path / f"{number:06}{_SEGMENT}"

    def segments(self) -> list[Path]:
        """The complete segments, oldest first."""
        return segments_in(self.path)

    def remove(self) -> None:
        """Delete the folder with all its segments, then give the lock back. Raises OSError."""
        for path in self.path.iterdir():
            if path.name != LOCK:
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
    try:
        _lock(lock)
        return Folder(new.rename(root / name), lock)
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
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(_NEW))


def segments_in(folder: Path) -> list[Path]:
    """The complete segments of a folder, oldest first. Raises OSError."""
    return sorted(folder.glob(f"*{_SEGMENT}"))


def lock_folder(path: Path) -> Folder | None:
    """Lock a folder that nobody has; None if its process lives, or if it is gone or put aside. Raises OSError."""
    if path.name.startswith(IN_DOUBT):
        return None
    try:
        lock = (path / LOCK).open("r+b")
    except FileNotFoundError:  # deleted, or its process was killed while it did so
        with suppress(OSError):
            path.rmdir()
        return None
    try:
        _lock(lock)
        if os.fstat(lock.fileno()).st_ino == (path / LOCK).stat().st_ino:
            return Folder(path, lock)
    except (BlockingIOError, FileNotFoundError):  # FileNotFoundError: replayed and removed by another just now
        pass
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def unlocked(root: Path) -> Iterator[Folder]:
    """The folders of dead processes, each locked when it is handed over. Raises OSError."""
    for path in root.glob(_NEW + "*"):
        with suppress(OSError):
            if time() - path.stat().st_mtime > _NEW_SECS:  # its process was killed while it made it
                (path / LOCK).unlink(missing_ok=True)
                path.rmdir()
    for path in folders_in(root):
        folder = lock_folder(path)
        if folder is not None:
            yield folder


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a loss of power. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The journal of one meter: what it has settled and not yet seen in the store, on disk.

Nothing here raises for the disk's sake: a disk that takes no more makes one loud warning, the meter goes on in memory,
and a new segment with all that is unwritten is tried every few seconds. Batches that went out in between are unknown
to the old segment; a replay finds that out by the store's sequence numbers (see `replay`).
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from time import monotonic
from typing import IO

from ..core.account import ZERO, Account, Batch
from ..core.holds import Grant, Slice
from ..core.usage import Usage
from . import files
from .records import (
    VERSION,
    AckRecord,
    BatchRecord,
    GrantedRecord,
    GrantRecord,
    HeaderRecord,
    HoldRecord,
    Record,
    SettledRecord,
    SliceRecord,
    SumRecord,
    encode,
    encode_usage,
)

log = logging.getLogger("bedrock_budget")

#: A segment that is longer than this gives way to a new one.
MOST_BYTES = 4 << 20
#: The same, once nothing is unwritten: the new one is empty.
MOST_IDLE_BYTES = 256 << 10
#: Between two attempts to go on after a failure.
RETRY_SECS = 5.0


class Journal:
    """See the module's text. The meter's lock guards all but `sync`.

    ``root``: the folder that all processes share. ``store_url``: of the store that the usage belongs to. ``full``:
    a record is on the disk itself, not in the system's cache, when it is said to be written.
    """

    def __init__(self, root: Path, store_url: str, *, full: bool = False) -> None:
        self.root = root
        self.store_url = store_url
        self.error: Exception | None = None  # why records are not written; None while they are
        self.failures = 0  # how often records began to be lost
        self.carry: Callable[[], Iterable[Record]] = tuple  # what else a new segment begins with
        self._full = full
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._folder: files.Folder | None = None
        self._file: IO[bytes] | None = None
        self._number = 0
        self._bytes = 0
        self._most_bytes = MOST_BYTES
        self._tried_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a segment to write to, or an attempt at one has failed."""
        return self._file is not None or self._tried_at is not None

    @property
    def is_due(self) -> bool:
        """Whether it is to be tended before the next record: there is no segment, or it is long."""
        return self._file is None or self._bytes >= self._most_bytes

    # -- records

    @staticmethod
    def line_of(account: Account, usage: Usage, cost_pico_usd: int, request_id: object) -> bytes:
        """The record of one settled call."""
        known = request_id if isinstance(request_id, str) else None  # a stand-in's may be anything
        return encode_usage(account.key, account.shard_count, cost_pico_usd, usage, known)

    def append(self, line: bytes) -> None:
        """Write a record that the process can lose from here on."""
        file = self._file
        if file is None:
            return
        try:
            written = file.write(line)
            if written != len(line):
                raise OSError(f"{written} of {len(line)} bytes could be written")
            self._bytes += written
        except (OSError, ValueError) as exc:
            self._failed(exc)

    def batch(self, batch: Batch, replaces: Batch | None = None) -> None:
        """Before a batch is sent for the first time."""
        before = (replaces.writer_id, replaces.sequence) if replaces else None
        self.append(encode(BatchRecord(batch, before)))

    def acknowledged(self, batch: Batch) -> None:
        """The store has a batch."""
        self.append(encode(AckRecord(batch.writer_id, batch.sequence)))

    def slice(self, share: Slice) -> None:
        """A slice that did not begin with nothing."""
        self.append(encode(SliceRecord.of(share)))

    def grant(self, grant: Grant) -> None:
        """Before a grant is sent for the first time, or again."""
        self.append(encode(GrantRecord(grant)))

    def granted(self, grant: Grant, applied: bool) -> None:
        """The store has answered a grant."""
        self.append(encode(GrantedRecord(grant.holder_id, grant.sequence, applied)))

    def held(self, worst_case_pico_usd: int, holder_ids: Sequence[str]) -> None:
        """Before a call is sent: what is held for it, and out of which slices."""
        self.append(encode(HoldRecord(worst_case_pico_usd, tuple(holder_ids))))

    def settled(self, worst_case_pico_usd: int, charge_pico_usd: int, holder_ids: Sequence[str]) -> None:
        """A call that was held has cost so much."""
        self.append(encode(SettledRecord(worst_case_pico_usd, charge_pico_usd, tuple(holder_ids))))

    def sync(self, lock: AbstractContextManager[object]) -> None:
        """With ``full``, have all records so far on the disk. Called without the meter's ``lock``."""
        file = self._file
        if self._full and file is not None:
            try:
                os.fdatasync(file.fileno())
            except (OSError, ValueError) as exc:
                with lock:
                    if self._file is file:  # else a new segment has taken over, and is on the disk
                        self._failed(exc)

    # -- segments

    def tend(self, unwritten: Iterable[Account], writer_id: str, sequence: int) -> None:
        """Begin a new segment if this one is long, if there is none, or if it has failed.

        ``unwritten``: the accounts that the store has not got all of; ``sequence``: the last number given so far.
        """
        if self._file is None:
            if self._tried_at is not None and monotonic() - self._tried_at < RETRY_SECS:
                return  # first: while the disk fails, every call comes by here
        elif self._bytes < min(self._most_bytes, MOST_IDLE_BYTES):
            return
        accounts = [each for each in unwritten if each.dirty]
        if self._file is None or self._bytes >= (self._most_bytes if accounts else MOST_IDLE_BYTES):
            self.begin(accounts, writer_id, sequence)

    def begin(self, accounts: Iterable[Account], writer_id: str, sequence: int) -> None:
        """Begin a segment with all that is unwritten, in place of the last one."""
        try:
            if self._folder is None:
                self._folder = files.make_folder(self.root, f"{os.getpid()}-{writer_id}")
            records = [*_carried_over(accounts, self.store_url, writer_id, sequence), *self.carry()]
            self._begin(self._folder, records)
        except OSError as exc:
            self._failed(exc)
            if self._folder is not None and not self._folder.path.exists():  # somebody has removed it
                self._folder.release()
                self._folder = None
            return
        if self.error is not None:
            log.warning("the journal in %s works again", self.root)
            self.error = None

    def _begin(self, folder: files.Folder, records: list[Record]) -> None:
        number = self._number + 1
        path = folder.segment(number)
        half_done = path.with_suffix(".tmp")
        data = b"".join(map(encode, records))
        file = half_done.open("wb", buffering=0)
        try:
            if file.write(data) != len(data):
                raise OSError("the disk is full")
            if self._full:
                os.fsync(file.fileno())
            half_done.rename(path)
            if self._full:
                files.sync_folder(folder.path)
        except BaseException:
            file.close()
            with suppress(OSError):
                half_done.unlink(missing_ok=True)
            raise
        old, self._file = self._file, file
        self._number, self._bytes = number, len(data)
        self._most_bytes = max(MOST_BYTES, 2 * len(data))
        if old is not None:
            old.close()
        for stale in folder.segments():
            if stale != path:
                with suppress(OSError):  # read by nobody: the highest number counts
                    files.discard(stale)

    def _failed(self, exc: Exception) -> None:
        if self.error is None:
            log.error(
                "the journal in %s cannot be written, so until it can be, usage that the store has not got yet is "
                "lost if this process is killed: %s",
                self.root,
                exc,
            )
        if self._file is not None or self.error is None:
            self.failures += 1
        self.error = exc
        self._tried_at = monotonic()
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.truncate(self._bytes)  # what was written of the last record
            with suppress(OSError):
                file.close()

    # -- the end

    def close(self) -> None:
        """Delete the folder: the store has everything."""
        folder, file = self._folder, self._file
        self._start_afresh()
        if file is not None:
            file.close()
        if folder is not None:
            try:
                folder.remove()
            except OSError as exc:  # a replay will find nothing to do
                log.warning("the journal %s could not be removed: %s", folder.path, exc)
                folder.release()

    def after_fork_in_child(self) -> None:
        """The folder is the parent's; the child makes one of its own."""
        folder, file = self._folder, self._file
        self._start_afresh()
        self.error = None
        if file is not None:
            file.close()
        if folder is not None:
            folder.release()


def _carried_over(accounts: Iterable[Account], store_url: str, writer_id: str, sequence: int) -> list[Record]:
    records: list[Record] = [HeaderRecord(VERSION, store_url, writer_id, sequence)]
    for account in accounts:
        if account.in_flight is not None:
            records.append(BatchRecord(account.in_flight, None))
        if account.unsent != ZERO:
            records.append(SumRecord(account.key, account.shard_count, account.unsent))
    return records

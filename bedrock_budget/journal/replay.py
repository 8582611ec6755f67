"""Replay: give the store what a dead process had settled and the store has not got.

Batches that were sent, or about to be, go out again unchanged and in order; the store knows those it has. The usage
after them goes out as a new writer, in batches that are journaled in the same folder first, so that a replay may be
killed and repeated. Then the folder is removed.

A journal whose disk had failed may lack batches. The store's sequence numbers show it: if an item carries a higher
number of the dead writer than its journal, what the journal has left for that item may be in the store already. It is
not written again but put aside and reported as *in doubt*.
"""

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.account import ZERO, Amounts, Batch, sum_of
from ..core.errors import StoreError
from ..core.keys import UsageKey, shard_of
from ..core.money import usd_text
from ..stores.contract import SequenceConflict, Store
from . import files
from .records import (
    VERSION,
    AckRecord,
    BatchRecord,
    GrantRecord,
    HeaderRecord,
    Record,
    SumRecord,
    UsageRecord,
    encode,
    read_segment,
)
from .slices import Slices

log = logging.getLogger("bedrock_budget")

#: A search gives up after so many failures of the store in a row: it is away.
FAILURES_A_SEARCH = 3


class JournalUnreadable(Exception):
    """A folder that cannot be replayed; the message says why."""


@dataclass
class Unwritten:
    """What a folder holds that the store may lack. Costs are pico-USD."""

    path: Path
    store_url: str = ""
    writer_id: str = ""
    torn: int = 0
    batches: dict[tuple[str, int], Batch] = field(default_factory=dict[tuple[str, int], Batch])
    sums: dict[UsageKey, tuple[int, Amounts]] = field(default_factory=dict[UsageKey, tuple[int, Amounts]])
    #: The highest sequence number that the journal knows of its process's writers, by key and writer.
    sequences: dict[tuple[UsageKey, str], int] = field(default_factory=dict[tuple[UsageKey, str], int])
    first_sequence: int = 0
    slices: Slices = field(default_factory=Slices)

    @property
    def amounts(self) -> Amounts:
        """All of it."""
        batches = [batch.amounts for batch in self.batches.values()]
        return sum_of([*batches, *(amounts for _, amounts in self.sums.values())])

    def take(self, record: Record) -> None:
        """Take in the next record of the segment."""
        if self.slices.take(record):
            return
        match record:
            case HeaderRecord(version, store_url, writer_id, sequence):
                if version != VERSION:
                    raise JournalUnreadable(f"{self.path} is of version {version}, this library writes {VERSION}")
                self.store_url, self.writer_id, self.first_sequence = store_url, writer_id, sequence
            case UsageRecord(key, shard_count, cost_pico_usd, usage, _):
                self._add(key, shard_count, Amounts(cost_pico_usd, usage, 1))
            case SumRecord(key, shard_count, amounts):
                self._add(key, shard_count, amounts)
            case BatchRecord(batch, replaces):
                if replaces is not None:
                    self.batches.pop(replaces, None)
                else:
                    self.sums.pop(batch.key, None)
                self.batches[batch.writer_id, batch.sequence] = batch
                self.sequences[batch.key, batch.writer_id] = batch.sequence
            case AckRecord(writer_id, sequence):
                self.batches.pop((writer_id, sequence), None)
            case _:
                pass

    def _add(self, key: UsageKey, shard_count: int, amounts: Amounts) -> None:
        count, before = self.sums.get(key, (shard_count, ZERO))
        self.sums[key] = (max(count, shard_count), before.plus(amounts))


def read_unwritten(folder: Path) -> Unwritten:
    """Read a folder, also that of a process that lives. Raises OSError, JournalUnreadable."""
    found = Unwritten(folder)
    while True:
        segments = files.segments_in(folder)
        if not segments:  # the process ended before it settled anything
            return found
        try:
            records, found.torn = read_segment(segments[-1])
            break
        except FileNotFoundError:  # its process has begun a new one
            continue
    if not records or not isinstance(records[0], HeaderRecord):
        raise JournalUnreadable(f"{segments[-1]} does not begin as a journal does")
    try:
        for record in records:
            found.take(record)
        _ = found.amounts  # what does not add up is no journal either
    except (TypeError, ValueError, AttributeError) as exc:
        raise JournalUnreadable(f"{segments[-1]} holds what no journal does: {exc}") from exc
    return found


@dataclass(frozen=True)
class Replayed:
    """What became of one folder. ``written``: what the store has now and may have had before (batches in flight);
    ``in_doubt``: what was not written because it may have been, and where it was put aside. ``returned_pico_usd``:
    what strict enforcement had set aside and can be used again."""

    path: Path
    written: Amounts
    torn: int
    in_doubt: Amounts = ZERO
    returned_pico_usd: int = 0


def replay(
    folder: files.Folder,
    unwritten: Unwritten,
    store: Store,
    *,
    now_epoch: Callable[[], float],
    new_writer_id: Callable[[], str],
) -> Replayed:
    """Give the store what a locked folder holds (``unwritten``), and remove the folder.

    Raises OSError, and StoreError if the store does not take it: the folder stays, and may be replayed again.
    """
    if unwritten.torn:
        log.warning("%d torn records at the end of the journal %s were skipped", unwritten.torn, folder.path)
    written = ZERO
    returned = 0
    segments = folder.segments()
    doubtful: dict[UsageKey, Amounts] = {}
    if segments:
        with segments[-1].open("ab", buffering=0) as file:

            def note(record: Record) -> None:
                line = encode(record)
                if file.write(line) != len(line):
                    raise OSError(f"{segments[-1]}: the disk is full")
                if isinstance(record, BatchRecord | GrantRecord):
                    os.fdatasync(file.fileno())

            # The next record stands on a line of its own, and one that lacks but its end stays torn: what it says was
            # not sent, and goes out as something else now.
            if unwritten.torn and file.write(b"?\n") != 2:
                raise OSError(f"{segments[-1]}: the disk is full")
            for batch in unwritten.batches.values():
                _send(store, batch, now_epoch())
                note(AckRecord(batch.writer_id, batch.sequence))
                written = written.plus(batch.amounts)
            doubtful = _in_doubt(store, unwritten)
            writer_id = new_writer_id()
            left = ((key, *rest) for key, rest in unwritten.sums.items() if key not in doubtful)
            for sequence, (key, shard_count, amounts) in enumerate(left, start=1):
                batch = Batch(key, writer_id, sequence, shard_of(writer_id, shard_count), shard_count, amounts)
                note(BatchRecord(batch, None))
                _send(store, batch, now_epoch())
                note(AckRecord(writer_id, sequence))
                written = written.plus(amounts)
            returned = unwritten.slices.give_back(store, note, now_epoch())
    if doubtful:
        kept = folder.put_aside()
        total = sum_of(doubtful.values())
        log.error(
            "in doubt: %s for %d calls may or may not be in the store, because the journal's disk had failed; they "
            "were not written again, and the journal was put aside as %s",
            usd_text(total.cost_pico_usd),
            total.requests,
            kept,
        )
        return Replayed(kept, written, unwritten.torn, total, returned)
    folder.remove()
    return Replayed(folder.path, written, unwritten.torn, returned_pico_usd=returned)


class OtherStore(Exception):
    """A folder whose usage belongs to another store."""


def replay_unlocked(
    root: Path,
    store: Store,
    *,
    store_url: str | None,
    now_epoch: Callable[[], float],
    new_writer_id: Callable[[], str],
    skipped: Callable[[Path, Exception], None],
    stop: Callable[[], bool] = lambda: False,
) -> list[Replayed]:
    """Replay the folders of all dead processes that used this store (``store_url`` None: any store).

    ``skipped`` is told of folders that cannot be replayed, with a JournalUnreadable, OSError or OtherStore.
    Raises StoreError if the store does not take what it is given, OSError if ``root`` cannot be read.
    """
    done: list[Replayed] = []
    failure: StoreError | None = None
    failures = 0
    files.sweep(root)
    for path in files.folders_in(root):
        if stop() or failures >= FAILURES_A_SEARCH:
            break
        folder: files.Folder | None = None
        try:
            folder = files.lock_folder(path)
            if folder is None:
                continue
            found = read_unwritten(path)
            if store_url is not None and found.store_url not in ("", store_url):
                raise OtherStore(f"{path} belongs to the store {found.store_url}, not to {store_url}")
            done.append(replay(folder, found, store, now_epoch=now_epoch, new_writer_id=new_writer_id))
            failures = 0
        except StoreError as exc:
            failure = failure or exc
            failures += 1
        except (OSError, JournalUnreadable, OtherStore, ValueError, TypeError) as exc:
            skipped(path, exc)
        finally:
            if folder is not None:
                folder.release()
    if failure is not None:
        raise failure
    return done


def _send(store: Store, batch: Batch, now_epoch: float) -> None:
    try:
        store.write_batch(batch, now_epoch=now_epoch)
    except SequenceConflict:
        # A later batch of this writer is in the item, and batches of one writer go to an item in order.
        log.info("batch %d of writer %s was in the store already", batch.sequence, batch.writer_id)


def _in_doubt(store: Store, unwritten: Unwritten) -> dict[UsageKey, Amounts]:
    """The sums of keys whose items carry a batch that the journal does not know."""
    doubtful: dict[UsageKey, Amounts] = {}
    if not unwritten.sums:
        return doubtful
    for writer_id in _writers(unwritten):
        shards = store.read_shards({key: count for key, (count, _) in unwritten.sums.items()}, writer_id=writer_id)
        for key, (_, amounts) in unwritten.sums.items():
            known = unwritten.sequences.get((key, writer_id), 0)
            if writer_id == unwritten.writer_id:
                known = max(known, unwritten.first_sequence)
            if shards[key].writer_sequence > known:
                doubtful[key] = amounts
    return doubtful


def _writers(unwritten: Unwritten) -> Iterable[str]:
    return dict.fromkeys([unwritten.writer_id, *(writer for _, writer in unwritten.sequences)])

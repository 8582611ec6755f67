"""The journal of a meter: what is in it at each point, its space, and disks that fail."""

import errno
import logging
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from doubles import AWAY, UnreliableStore, stored

from bedrock_budget.core.errors import ConfigError
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.journal import files, journal, journal_for
from bedrock_budget.journal.journal import Journal
from bedrock_budget.journal.records import (
    AckRecord,
    BatchRecord,
    GrantedRecord,
    GrantRecord,
    HeaderRecord,
    HoldRecord,
    SettledRecord,
    SliceRecord,
    SumRecord,
    UsageRecord,
    read_segment,
)
from bedrock_budget.journal.replay import read_unwritten
from bedrock_budget.meter import Meter

KEY = UsageKey("ORG#acme#APP#chat", "premium", "20260115")
ONE = Usage(10, 2, 3, 4, 5)


def add(meter: Meter, calls: int = 1, key: UsageKey = KEY) -> None:
    account = meter.account(key, 8)
    for number in range(calls):
        meter.add(account, ONE, 7, None, f"request-{number}")


def folder_of(root: Path) -> Path:
    (folder,) = files.folders_in(root)
    return folder


def segment_of(root: Path) -> Path:
    (segment,) = files.segments_in(folder_of(root))
    return segment


def kinds(root: Path) -> list[str]:
    return [type(record).__name__ for record in read_segment(segment_of(root)).records]


class Disk:
    """A file on a disk that may be full."""

    def __init__(self, file: Any, limit: int) -> None:
        self._file = file
        self._left = limit

    def write(self, data: bytes) -> int:
        taken = data[: self._left]
        self._left -= len(taken)
        if data and not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        written: int = self._file.write(taken)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_usage_is_on_the_journal_when_add_returns_and_a_batch_before_it_is_sent(
    meter: Meter, store: UnreliableStore, root: Path
) -> None:
    add(meter, 2)
    header, *usage = read_segment(segment_of(root)).records
    assert header == HeaderRecord(1, store.url, meter.writer_id, 0)
    assert usage == [UsageRecord(KEY, 8, 7, ONE, f"request-{number}") for number in range(2)]
    on_journal: list[list[str]] = []
    store.fails = lambda name, subject: on_journal.append(kinds(root))  # type: ignore[assignment, return-value]
    assert meter.flush(5)
    assert on_journal[0] == ["HeaderRecord", "UsageRecord", "UsageRecord", "BatchRecord"]
    assert kinds(root)[-1] == "AckRecord"
    assert read_unwritten(folder_of(root)).amounts.requests == 0


def test_a_clean_end_leaves_nothing_behind(meter: Meter, store: UnreliableStore, root: Path) -> None:
    add(meter)
    assert meter.close()
    assert list(root.iterdir()) == []
    add(meter)  # later usage has a journal of its own
    assert list(root.iterdir()) == []
    assert stored(store, KEY).requests == 2


def test_an_end_with_the_store_away_leaves_the_journal(meter: Meter, store: UnreliableStore, root: Path) -> None:
    store.writes_fail = AWAY
    add(meter)
    assert not meter.close(0.1)
    assert read_unwritten(folder_of(root)).amounts.requests == 1


def test_a_long_segment_gives_way_to_one_that_holds_what_is_unwritten(
    monkeypatch: pytest.MonkeyPatch, meter: Meter, store: UnreliableStore, root: Path
) -> None:
    monkeypatch.setattr(journal, "MOST_BYTES", 2_000)
    store.writes_fail = AWAY
    add(meter, 10)
    meter.flush(0)  # a batch in flight
    add(meter, 40)
    assert kinds(root)[:3] == ["HeaderRecord", "BatchRecord", "SumRecord"]
    assert segment_of(root).name > "000000000001.log"
    assert segment_of(root).stat().st_size < 2_200
    assert read_unwritten(folder_of(root)).amounts.requests == 50
    add(meter)
    store.come_back()
    assert meter.flush(5)
    assert stored(store, KEY).requests == 51
    assert read_unwritten(folder_of(root)).amounts.requests == 0


def test_what_cannot_be_made_shorter_is_not_written_again_for_each_call(
    monkeypatch: pytest.MonkeyPatch, meter: Meter, store: UnreliableStore, root: Path
) -> None:
    monkeypatch.setattr(journal, "MOST_BYTES", 300)
    for number in range(20):
        add(meter, 1, KEY._replace(label=f"label{number}"))
    segments = int(segment_of(root).stem)
    assert segments < 10
    add(meter, 5)
    assert int(segment_of(root).stem) <= segments + 1
    assert read_unwritten(folder_of(root)).amounts.requests == 25


def test_a_journal_that_somebody_removed_is_begun_anew(
    monkeypatch: pytest.MonkeyPatch, meter: Meter, root: Path
) -> None:
    monkeypatch.setattr(journal, "MOST_BYTES", 500)
    monkeypatch.setattr(journal, "RETRY_SECS", 0.0)
    add(meter)
    shutil.rmtree(root)
    add(meter, 20)
    assert read_unwritten(folder_of(root)).amounts.requests == 21


def test_space_is_given_back_once_all_is_written(monkeypatch: pytest.MonkeyPatch, meter: Meter, root: Path) -> None:
    monkeypatch.setattr(journal, "MOST_IDLE_BYTES", 500)
    add(meter, 10)
    assert meter.flush(5)
    meter._outbox.tend_journal()
    assert kinds(root) == ["HeaderRecord"]
    (header,) = read_segment(segment_of(root)).records
    assert isinstance(header, HeaderRecord)
    assert header.sequence == 1


def test_only_its_owner_may_look_into_a_journal(meter: Meter, root: Path) -> None:
    add(meter)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder_of(root).stat().st_mode) == 0o700


@pytest.mark.parametrize("room", [0, 20, 200])
def test_a_full_disk_is_one_loud_warning_and_the_meter_goes_on(
    meter: Meter, store: UnreliableStore, root: Path, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    add(meter)
    assert meter._journal is not None
    meter._journal._file = Disk(meter._journal._file, room)  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING):
        add(meter, 50)
    (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert told.levelno == logging.ERROR
    assert str(root) in told.message
    assert "lost if this process is killed" in told.message
    assert read_segment(segment_of(root)).torn == 0
    assert meter.flush(5)
    assert stored(store, KEY).requests == 51


def test_after_a_failure_a_new_segment_holds_all_that_is_unwritten(
    monkeypatch: pytest.MonkeyPatch, meter: Meter, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(meter)
    assert meter._journal is not None
    meter._journal._file = Disk(meter._journal._file, 0)  # type: ignore[assignment]
    add(meter, 3)
    assert read_unwritten(folder_of(root)).amounts.requests == 1
    meter._outbox.tend_journal()
    assert meter._journal.error is not None  # not at once again
    monkeypatch.setattr(journal, "RETRY_SECS", 0.0)
    meter._outbox.tend_journal()
    assert meter._journal.error is None
    assert "works again" in caplog.text
    assert read_unwritten(folder_of(root)).amounts.requests == 4


def test_a_journal_that_can_never_be_made_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, meter: Meter, store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    add(meter, 5)
    assert meter.close()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert stored(store, KEY).requests == 5


def test_full_sync_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch, store: UnreliableStore, root: Path) -> None:
    from bedrock_budget.testing import ManualClock

    monkeypatch.setattr(Meter, "_start_thread", lambda self: None)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    for full, expected in ((False, 0), (True, 3)):
        meter = Meter(store, ManualClock(), journal=Journal(root, store.url, full=full))
        synced.clear()
        add(meter, 2)
        assert meter.flush(5)
        assert len(synced) == expected  # two calls and a batch
        assert meter.close()


def test_a_refused_batch_is_replaced_in_the_journal(meter: Meter, store: UnreliableStore, root: Path) -> None:
    from bedrock_budget.stores import SequenceConflict

    add(meter)
    refusals = [SequenceConflict("another program")]
    store.fails = lambda name, subject: refusals.pop() if name == "write_batch" and refusals else None
    meter.flush(0)
    records = read_segment(segment_of(root)).records
    first, second = (record for record in records if isinstance(record, BatchRecord))
    assert second.replaces == (first.batch.writer_id, first.batch.sequence)
    assert second.batch.amounts == first.batch.amounts
    assert read_unwritten(folder_of(root)).amounts.requests == 1


def test_the_environment_names_a_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert journal_for(None, "normal", "memory://") is None
    monkeypatch.setenv("BEDROCK_BUDGET_JOURNAL", str(tmp_path / "there"))
    found = journal_for(None, "normal", "memory://")
    assert found is not None
    assert found.root == tmp_path / "there"
    given = journal_for(tmp_path / "given", "full", "memory://")
    assert given is not None
    assert given.root == tmp_path / "given"
    assert not (tmp_path / "given").exists()  # before the first use


def test_a_platform_without_file_locks_has_no_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="which this platform does not have"):
        journal_for(tmp_path, "normal", "memory://")


def test_records_of_all_kinds_are_known() -> None:
    assert {
        *(AckRecord, BatchRecord, HeaderRecord, SumRecord, UsageRecord),
        *(GrantRecord, GrantedRecord, HoldRecord, SettledRecord, SliceRecord),
    } == set(journal.Record.__args__)

"""Replay: whatever a dead process had done, the store ends with each call once."""

import logging
import os
from contextlib import suppress
from pathlib import Path

import pytest
from doubles import AWAY, UnreliableStore, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget.core.account import Batch
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.journal import files
from bedrock_budget.journal.journal import Journal
from bedrock_budget.journal.records import HeaderRecord, UsageRecord, encode
from bedrock_budget.journal.replay import Replayed, read_unwritten, replay_unlocked
from bedrock_budget.meter import Meter
from bedrock_budget.stores import MemoryStore, Store
from bedrock_budget.testing import ManualClock
from bedrock_budget.writers import new_writer_id

from .conftest import MakeMeter, die

KEY = UsageKey("ORG#acme#APP#chat", "premium", "20260115")
KEYS = [KEY._replace(label=f"label{number}") for number in range(3)]
ONE = Usage(10, 2, 3, 4, 5)


def add(meter: Meter, calls: int = 1, key: UsageKey = KEY) -> None:
    account = meter.account(key, 8)
    for number in range(calls):
        meter.add(account, ONE, 7, None, f"request-{number}")


def replay_all(root: Path, store: Store, url: str | None = None) -> tuple[list[Replayed], dict[str, Exception]]:
    skipped: dict[str, Exception] = {}
    done = replay_unlocked(
        root,
        store,
        store_url=url or store.url,
        now_epoch=lambda: 1_768_435_200.0,
        new_writer_id=new_writer_id,
        skipped=lambda path, exc: skipped.update({path.name: exc}),
    )
    return done, skipped


def test_usage_that_was_never_sent_is_written(meter: Meter, store: UnreliableStore, root: Path) -> None:
    add(meter, 3)
    assert replay_all(root, store) == ([], {})  # its process lives
    die(meter)
    (done,), _ = replay_all(root, store)
    assert (done.written.requests, done.in_doubt.requests, done.torn) == (3, 0, 0)
    assert stored(store, KEY) == done.written
    assert list(root.iterdir()) == []
    assert replay_all(root, store) == ([], {})


@pytest.mark.parametrize("applied", [True, False])
def test_a_batch_whose_answer_was_lost_counts_once(
    meter: Meter, store: UnreliableStore, root: Path, applied: bool
) -> None:
    add(meter, 3)
    if applied:
        store.lose_replies = 1
    else:
        store.writes_fail = AWAY
    meter.flush(0)
    add(meter, 2)
    die(meter)
    store.come_back()
    replay_all(root, store)
    assert stored(store, KEY).requests == 5


def _next(store: UnreliableStore, name: str, answers: list[Exception | None]) -> Exception | None:
    if name == "write_batch":
        if not answers:
            store.lose_replies = 1
            return None
        return answers.pop()
    return None


def test_a_replay_that_is_cut_off_is_repeated_without_counting_twice(
    meter: Meter, store: UnreliableStore, root: Path
) -> None:
    for key in KEYS:
        add(meter, 2, key)
    die(meter)
    for taken in (0, 1, 1):  # so many batches get through, then one is applied whose answer is lost
        answers: list[Exception | None] = [None] * taken
        store.fails = lambda name, subject, answers=answers: _next(store, name, answers)  # type: ignore[misc]
        with pytest.raises(StoreError):
            replay_all(root, store)
        assert len(files.folders_in(root)) == 1
    store.come_back()
    store.fails = lambda name, subject: None
    replay_all(root, store)
    assert [stored(store, key).requests for key in KEYS] == [2, 2, 2]


def test_a_torn_end_is_skipped_and_reported(
    meter: Meter, store: UnreliableStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(meter, 3)
    die(meter)
    (folder,) = files.folders_in(root)
    (segment,) = files.segments_in(folder)
    segment.write_bytes(segment.read_bytes()[:-10])
    (done,), _ = replay_all(root, store)
    assert done.torn == 1
    assert "1 torn records" in caplog.text
    assert stored(store, KEY).requests == 2


def test_a_batch_that_lacks_but_its_end_stays_torn(meter: Meter, store: UnreliableStore, root: Path) -> None:
    add(meter, 3)
    meter._outbox._store = UnreliableStore()
    meter._outbox._store.writes_fail = AWAY
    meter.flush(0)  # the batch is on the journal, and then the process is killed
    die(meter)
    (segment,) = root.glob("*/*.log")
    segment.write_bytes(segment.read_bytes()[:-1])
    for _ in range(2):
        store.fails = lambda name, subject: _next(store, name, [])
        with suppress(StoreError):
            replay_all(root, store)
    store.come_back()
    store.fails = lambda name, subject: None
    replay_all(root, store)
    assert stored(store, KEY).requests == 3


def test_the_newest_segment_is_removed_last(
    monkeypatch: pytest.MonkeyPatch, meter: Meter, store: UnreliableStore, root: Path
) -> None:
    add(meter, 3)
    (segment,) = root.glob("*/*.log")
    stale = segment.with_name("000000000000.log")
    stale.write_bytes(segment.read_bytes())  # its process was killed before it could remove it
    die(meter)
    removed: list[str] = []

    def killed(path: Path) -> None:
        if removed:
            raise OSError("killed")
        removed.append(path.name)
        path.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(files, "discard", killed)
        replay_all(root, store)
    assert removed == ["000000000000.log"]
    replay_all(root, store)
    assert stored(store, KEY).requests == 3


def test_what_is_no_journal_is_left_alone(store: UnreliableStore, root: Path, tmp_path: Path) -> None:
    for name in ("dpkg", "1-w", "x-wexampleOne", "new-folder"):
        folder = root / name
        folder.mkdir(parents=True)
        for file in (files.LOCK, "status", "000000000001.log"):
            (folder / file).write_text("precious")
    (tmp_path / "elsewhere").mkdir()
    (root / "1-wexampleOne").symlink_to(tmp_path / "elsewhere")
    before = sorted(root.rglob("*"))
    assert replay_all(root, store) == ([], {})
    assert sorted(root.rglob("*")) == before


def test_one_folder_that_cannot_be_replayed_does_not_keep_others_from_it(
    make_meter: MakeMeter, store: UnreliableStore, root: Path
) -> None:
    hostile = files.make_folder(root, "0-wexampleOne")
    lines = [HeaderRecord(1, store.url, "w", 0), UsageRecord(KEY, "eight", 7, ONE, None)]  # type: ignore[arg-type]
    hostile.segment(1).write_bytes(b"".join(map(encode, lines)))
    hostile.release()
    refused = make_meter()
    add(refused, 2, KEYS[0])
    add(good := make_meter(), 3)
    die(refused)
    die(good)
    store.fails = lambda name, subject: AWAY if name == "write_batch" and subject.key == KEYS[0] else None
    skipped: dict[str, Exception] = {}
    with pytest.raises(StoreError):
        replay_unlocked(
            root,
            store,
            store_url=store.url,
            now_epoch=lambda: 1_768_435_200.0,
            new_writer_id=new_writer_id,
            skipped=lambda path, exc: skipped.update({path.name: exc}),
        )
    assert list(skipped) == ["0-wexampleOne"]
    assert stored(store, KEY).requests == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_was_forked_during_a_replay_does_not_keep_its_lock(root: Path) -> None:
    folder = files.make_folder(root, "1-wexampleOne")
    (read, write), (ready, begun) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.write(begun, b"x")
        os.read(read, 1)
        os._exit(0)
    os.read(ready, 1)
    folder.release()
    again = files.lock_folder(folder.path)
    os.write(write, b"x")
    os.waitpid(child, 0)
    for each in (read, write, ready, begun):
        os.close(each)
    assert again is not None
    again.release()


def test_what_a_failed_disk_has_not_seen_sent_is_in_doubt_and_not_written_again(
    meter: Meter, store: UnreliableStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(meter, 3)
    add(meter, 2, KEYS[0])
    assert meter._journal is not None
    meter._journal._failed(OSError("the disk is gone"))
    meter._outbox.write([meter.account(KEY, 8)])  # its batch is not on the journal
    assert stored(store, KEY).requests == 3
    die(meter)
    (done,), _ = replay_all(root, store)
    assert (done.written.requests, done.in_doubt.requests) == (2, 3)
    assert stored(store, KEY).requests == 3
    assert stored(store, KEYS[0]).requests == 2
    assert done.path.name.startswith("in-doubt-")
    assert done.path.is_dir()
    assert [record.levelno for record in caplog.records][-1] == logging.ERROR
    assert replay_all(root, store) == ([], {})


def test_journals_of_another_store_are_left_alone(meter: Meter, store: UnreliableStore, root: Path) -> None:
    add(meter)
    die(meter)
    done, skipped = replay_all(root, store, url="dynamodb://elsewhere")
    assert done == []
    assert "belongs to the store UnreliableStore, not to dynamodb://elsewhere" in str(*skipped.values())
    assert len(files.folders_in(root)) == 1
    replay_all(root, store)
    assert stored(store, KEY).requests == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "does not begin as a journal does"),
        (b"nonsense\n", "does not begin as a journal does"),
        (encode(HeaderRecord(99, "x", "w", 0)), "is of version 99"),
    ],
)
def test_a_folder_that_cannot_be_read_is_kept_and_named(
    store: UnreliableStore, root: Path, content: bytes, problem: str
) -> None:
    folder = files.make_folder(root, "1-wexampleOne")
    folder.segment(1).write_bytes(content)
    folder.release()
    done, skipped = replay_all(root, store)
    assert done == []
    assert problem in str(skipped["1-wexampleOne"])
    assert folder.segment(1).exists()


def test_an_empty_folder_is_removed(store: UnreliableStore, root: Path) -> None:
    files.make_folder(root, "1-wexampleOne").release()
    (done,), skipped = replay_all(root, store)
    assert (done.written.requests, skipped) == (0, {})
    assert list(root.iterdir()) == []


def test_what_was_killed_while_it_made_or_removed_its_folder_leaves_none(store: UnreliableStore, root: Path) -> None:
    files.make_folder(root, "1-wexampleOne").release()
    (root / "1-wexampleOne" / files.LOCK).unlink()
    for name in ("new-0123456789abcdef", "new-fedcba9876543210"):
        (root / name).mkdir()
        (root / name / files.LOCK).touch()
    os.utime(root / "new-0123456789abcdef", (0, 0))
    assert replay_all(root, store) == ([], {})
    assert [path.name for path in root.iterdir()] == ["new-fedcba9876543210"]


def test_a_process_takes_over_the_journals_of_dead_ones(
    make_meter: MakeMeter, store: UnreliableStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = make_meter(), make_meter()
    add(first, 3)
    die(first)
    add(second)
    assert second.close()
    assert stored(store, KEY).requests == 4
    assert "replayed the journal of a dead process" in caplog.text
    assert list(root.iterdir()) == []


def test_a_search_is_not_repeated_at_once_but_after_a_failure_at_the_end(
    make_meter: MakeMeter, store: UnreliableStore, root: Path
) -> None:
    first, second = make_meter(), make_meter()
    add(first, 3)
    die(first)
    store.writes_fail = AWAY
    assert second._take_over is not None
    second._take_over.if_due(lambda: False)
    store.come_back()
    second._take_over.if_due(lambda: False)
    assert stored(store, KEY).requests == 0
    second._take_over.finish(5)
    assert stored(store, KEY).requests == 3


ACTIONS = ["add", "add other", "write", "lose reply", "fail", "rotate", "kill", "replay fails"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), max_size=30))
def test_whatever_is_killed_each_call_is_counted_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str]
) -> None:
    found, added, in_doubt = _run(tmp_path_factory.mktemp("journal"), actions)
    assert found == added
    assert not in_doubt


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*ACTIONS, "disk fails"]), max_size=30))
def test_whatever_disk_fails_no_call_is_counted_twice(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str]
) -> None:
    found, added, _ = _run(tmp_path_factory.mktemp("journal"), actions)
    assert all(found[key] <= added[key] for key in added)


def _run(root: Path, actions: list[str]) -> tuple[dict[UsageKey, int], dict[UsageKey, int], int]:
    """The calls that the store counts and those that were made, by key, and those in doubt."""
    store = UnreliableStore(MemoryStore())
    journal = Journal(root, store.url)
    meter = _still(store, journal)
    added = {KEY: 0, KEYS[0]: 0}
    in_doubt = 0
    for action in actions:
        match action:
            case "add" | "add other":
                key = KEY if action == "add" else KEYS[0]
                add(meter, 1, key)
                added[key] += 1
            case "write" | "lose reply" | "fail":
                store.lose_replies = action == "lose reply"
                store.writes_fail = AWAY if action == "fail" else None
                meter._outbox.write([meter.account(key, 8) for key in added])
                store.lose_replies, store.writes_fail = 0, None
            case "rotate":
                dirty = [each for each in meter._outbox.dirty if each.dirty]
                with meter.lock:
                    journal.begin(dirty, meter.writer_id, meter._outbox._sequence)
            case "disk fails":
                journal._failed(OSError("gone"))
            case "kill" | "replay fails":
                die(meter)
                if action == "replay fails":
                    store.lose_replies = 1
                    with suppress(StoreError):
                        in_doubt += sum(each.in_doubt.requests for each in replay_all(root, store)[0])
                    store.lose_replies = 0
                done, skipped = replay_all(root, store)
                assert not skipped
                in_doubt += sum(each.in_doubt.requests for each in done)
                journal = Journal(root, store.url)
                meter = _still(store, journal)
    assert meter.flush(5)
    die(meter)
    return {key: stored(store, key).requests for key in added}, added, in_doubt


def _still(store: UnreliableStore, journal: Journal) -> Meter:
    meter = Meter(store, ManualClock(), journal=journal)
    meter._thread = meter  # type: ignore[assignment]  # as if it ran
    return meter


def test_an_account_of_a_running_process_can_be_read(meter: Meter, root: Path) -> None:
    add(meter, 2)
    (folder,) = files.folders_in(root)
    found = read_unwritten(folder)
    assert found.amounts.requests == 2
    assert not found.batches


def test_batches_go_out_again_unchanged(meter: Meter, store: UnreliableStore, root: Path) -> None:
    add(meter, 2)
    store.writes_fail = AWAY
    meter.flush(0)
    sent: Batch = store.batches[-1]
    die(meter)
    store.come_back()
    replay_all(root, store)
    assert store.batches[-1] == sent

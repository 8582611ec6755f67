"""``journal list`` and ``journal replay``."""

import json
from pathlib import Path

import pytest
from cli.command_line import DAY, Run

from bedrock_budget.core.holds import Grant
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.journal.journal import Journal
from bedrock_budget.journal.records import HeaderRecord, encode, encode_usage
from bedrock_budget.stores import SQLiteStore

KEY = UsageKey("ORG#acme#APP#chat", "premium", DAY)


@pytest.fixture
def root(folder: Path) -> Path:
    return folder / "journal"


def begun(root: Path, store_url: str, calls: int = 2) -> Journal:
    """The journal of a process that lives for as long as the object."""
    journal = Journal(root, store_url)
    journal.begin([], "wexampleOne", 0)
    for _ in range(calls):
        journal.append(encode_usage(KEY, 8, 1_000_000, Usage(1, 2), "request"))
    return journal


def test_running_and_dead_journals_are_told_apart(run: Run, store: SQLiteStore, root: Path) -> None:
    journal = begun(root, store.url)
    assert "running" in run("journal", "list", str(root)).out
    assert run("journal", "replay", str(root)).out == f"nothing to replay in {root}\n"
    journal.after_fork_in_child()
    (listed,) = json.loads(run("journal", "list", str(root), "--json").out)["journals"]
    assert (listed["state"], listed["store"], listed["unwritten_requests"]) == ("dead", store.url, 2)
    assert (listed["unwritten_usd_micros"], listed["torn_records"]) == (2, 0)
    (replayed,) = json.loads(run("journal", "replay", str(root), "--json").out)["replayed"]
    assert (replayed["written_usd_micros"], replayed["written_requests"]) == (2, 2)
    assert store.read_shards({KEY: 8})[KEY].amounts.cost_pico_usd == 2_000_000
    assert run("journal", "list", str(root)).out == f"no journals in {root}\n"


def test_what_was_set_aside_is_told_and_returned(run: Run, store: SQLiteStore, root: Path) -> None:
    journal = begun(root, store.url, calls=0)
    grant = Grant(KEY, "wexampleTwo", 1, 9_000_000, 10**12, 0, 4_000_000_000)
    journal.grant(grant)
    journal.granted(grant, store.write_grant(grant).applied)
    journal.held(2_000_000, [grant.holder_id])
    journal.after_fork_in_child()
    (listed,) = json.loads(run("journal", "list", str(root), "--json").out)["journals"]
    assert listed["set_aside_usd_micros"] == 9
    (replayed,) = json.loads(run("journal", "replay", str(root), "--json").out)["replayed"]
    assert (replayed["returned_usd_micros"], replayed["written_requests"]) == (7, 0)
    assert store.read_granted([KEY]) == {KEY: 2_000_000}  # of the call that was under way


def test_another_stores_journal_needs_a_word(run: Run, store: SQLiteStore, root: Path) -> None:
    begun(root, "sqlite:////elsewhere/budget.db").after_fork_in_child()
    done = run("journal", "replay", str(root))
    assert done.code == 0
    assert "belongs to the store sqlite:////elsewhere/budget.db, not to" in done.err
    assert "--any-store" in done.err
    assert "2 calls" in run("journal", "replay", str(root), "--any-store").out


def test_an_unreadable_journal_is_named_and_a_failure(run: Run, store: SQLiteStore, root: Path) -> None:
    journal = begun(root, store.url)
    (segment,) = root.glob("*/*.log")
    journal.after_fork_in_child()
    segment.write_bytes(encode(HeaderRecord(2, store.url, "w", 0)))
    listed = run("journal", "list", str(root))
    assert "unreadable" in listed.out
    assert "is of version 2, this library writes 1" in listed.err
    done = run("journal", "replay", str(root))
    assert done.code == 1
    assert "is of version 2" in done.err
    assert segment.exists()


def test_a_folder_that_is_none_is_a_mistake(run: Run, folder: Path) -> None:
    for command in ("list", "replay"):
        done = run("journal", command, str(folder / "nowhere"))
        assert done.code == 2
        assert "is not a folder; give the one that programs have as journal=" in done.err


def test_journals_in_doubt_are_listed(run: Run, store: SQLiteStore, root: Path) -> None:
    journal = begun(root, store.url)
    assert journal._folder is not None
    journal._folder.put_aside()
    journal.after_fork_in_child()
    assert "in doubt" in run("journal", "list", str(root)).out
    assert "nothing to replay" in run("journal", "replay", str(root)).out

"""docs/cli.md says what the parser has, and its examples are what the commands print."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command_line import DAY, NOW_EPOCH, Ran, Run, run_main, spend
from cli.conftest import DOCS
from prices.price_list_products import OFFER_FILE
from prices.price_list_server import PriceListServer, serving
from reconcile.bills import write_logs

from bedrock_budget.cli import build_parser
from bedrock_budget.core.holds import Grant
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.journal.journal import Journal
from bedrock_budget.journal.records import encode_usage
from bedrock_budget.stores import SQLiteStore, Sticky, Store
from bedrock_budget.testing import ManualClock
from bedrock_budget.testing.ledger import LedgerEntry

TEXT = DOCS.read_text(encoding="utf-8")
COMMON = "Options of every command"
TABLES = "## bedrock-budget tables create"
ENDPOINT = "http://127.0.0.1:8000"


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command that does something."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for each in group.choices.values():
            yield from commands(each)


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {action.option_strings[-1] if action.option_strings else str(action.metavar) for action in parser._actions}


def documented(section: str) -> set[str]:
    """What the table of options in a section lists."""
    return {found[1] for found in re.finditer(r"^\| `(--[a-z-]+|[A-Z]+)", section, re.MULTILINE)}


SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}
PARSERS = {parser.prog: parser for parser in commands(build_parser())}


def test_every_command_is_documented_and_every_documented_one_exists() -> None:
    assert {name for name in SECTIONS if name.startswith("bedrock-budget")} == set(PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_is_documented_and_every_documented_one_exists(name: str) -> None:
    common = documented(SECTIONS[COMMON])
    assert common == {"--store", "--config", "--json", "--debug", "--help"}
    assert documented(SECTIONS[name]) | common == options(PARSERS[name])


@pytest.mark.parametrize("name", PARSERS)
def test_every_command_has_an_example(name: str) -> None:
    assert f"\n$ {name} " in SECTIONS[name] or f"\n$ {name}\n" in SECTIONS[name]


def test_the_exit_codes_are_documented_in_the_help() -> None:
    rows = re.findall(r"^\| ([0-4]) \| ([^:,`(|]*\w)", SECTIONS["Exit codes"], re.MULTILINE)
    assert len(rows) == 5
    for code, meaning in rows:
        for parser in (build_parser(), *PARSERS.values()):
            assert f"{code}  {meaning}" in parser.format_help()


def use_up_a_day(store: Store) -> None:
    """The day of the examples."""
    spend(
        store, "acme", "chat", "premium", 50_004_350, usage=Usage(4_200_300, 1_900_100, 812_000, 51_000), requests=912
    )
    spend(store, "acme", "chat", "standard", 4_790_200, usage=Usage(2_100_000, 970_000), requests=233)
    spend(store, "acme", "billing", "premium", 1_400, usage=Usage(210, 51), requests=1)
    spend(store, "globex", None, "premium", 10_000_000, usage=Usage(800_000, 506_666), requests=140)
    spend(store, "globex", None, "standard", 5_100_000, usage=Usage(2_000_000, 1_093_750), requests=333)
    spend(store, "globex", None, "economy", 2_000_000, usage=Usage(20_000_000, 9_285_714), requests=2_047)
    for org_id, app_id, label, place in (("acme", "chat", "standard", 1), ("globex", None, "economy", 2)):
        scope = f"ORG#{org_id}" + (f"#APP#{app_id}" if app_id else "")
        sticky = Sticky(label, place, "QUOTA_EXCEEDED", "premium", NOW_EPOCH - 3600, NOW_EPOCH + 86_400)
        store.advance_sticky(scope, DAY, sticky)


def leave_a_journal(store: SQLiteStore, root: Path) -> None:
    """What a process that was killed left, by the documentation's name."""
    journal = Journal(root, store.url)
    journal.begin([], "wexampleOne", 0)
    key = UsageKey("ORG#acme#APP#chat", "premium", DAY)
    for _ in range(3):
        journal.append(encode_usage(key, 8, 1_450_000_000, Usage(400, 16), None))
    slice_ = Grant(key, "wexampleTwo", 1, 25_000_000_000, 10_000_000_000_000, 0, NOW_EPOCH + 172_800)
    journal.grant(slice_)
    journal.granted(slice_, store.write_grant(slice_).applied)
    journal.held(5_000_000_000, [slice_.holder_id])  # and then it was killed
    journal.after_fork_in_child()  # closes its files, as the kernel does
    (folder,) = root.iterdir()
    folder.rename(root / "4711-wexampleOne")


def leave_logs(folder: Path) -> None:
    """Two calls in the invocation logs, one of which was not metered."""
    usages = {"one": Usage(210, 51), "two": Usage(30, 4)}
    model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    entries = [LedgerEntry(name, "Converse", model, usage, 0.0, True, 200) for name, usage in usages.items()]
    write_logs(folder, entries, ManualClock().now())


def executed(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], endpoint: str = ENDPOINT
) -> str:
    """A part of the documentation with what its examples print now."""
    last = Ran(0, "", "")

    def execute(line: str) -> str:
        nonlocal last
        if line == "echo $?":
            return f"{last.code}\n"
        program, *words = shlex.split(line)
        if program == "export":
            name, _, value = words[0].partition("=")
            monkeypatch.setenv(name, value.replace(ENDPOINT, endpoint))
            return ""
        assert program == "bedrock-budget"
        capsys.readouterr()
        code = run_main(*words)
        last = Ran(code, *capsys.readouterr())
        return (last.err + last.out).replace(endpoint, ENDPOINT)

    def run_block(block: re.Match[str]) -> str:
        lines = [line.removeprefix("$ ") for line in block[1].splitlines() if line.startswith("$ ")]
        return "```console\n" + "".join(f"$ {line}\n{execute(line)}" for line in lines) + "```"

    return re.sub(r"```console\n(.*?)```", run_block, text, flags=re.DOTALL)


@pytest.fixture
def price_list(aws_credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A small AWS Price List."""
    with serving(PriceListServer(OFFER_FILE)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", server.url)
        yield


def test_the_examples_print_what_the_documentation_shows(
    folder: Path,
    store: SQLiteStore,
    price_list: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_up_a_day(store)
    leave_a_journal(store, folder / "journal")
    leave_logs(folder / "logs")
    text = TEXT.partition(TABLES)[0]
    assert executed(text, monkeypatch, capsys) == text


def test_the_examples_of_tables_print_what_the_documentation_shows(
    run: Run, dynamodb_endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TEXT.partition(TABLES)[2]
    assert executed(text, monkeypatch, capsys, dynamodb_endpoint) == text

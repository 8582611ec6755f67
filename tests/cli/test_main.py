"""The program as a whole: its errors, exit codes and pipes."""

import logging
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cli.command_line import Run

import bedrock_budget
from bedrock_budget import cli
from bedrock_budget.cli import main, table_text
from bedrock_budget.stores import SQLiteStore

ROOT = Path(bedrock_budget.__file__).parents[1]


def python(*words: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """``python -m bedrock_budget`` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bedrock_budget", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


# -- in a process of its own


def test_python_m_runs_commands(folder: Path) -> None:
    ran = python("status", "--org", "globex")
    assert ran.returncode == 0
    assert ran.stdout.startswith("globex: org day ")
    assert ran.stderr.startswith("note: ")
    assert python("explain", "--org", "globex", "gold").returncode == 3


def test_python_m_tells_errors_without_a_traceback(folder: Path) -> None:
    ran = python("status", "--config", "missing.yaml")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("bedrock-budget: missing.yaml: cannot be read ")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("--help",), ("status",)])
def test_a_reader_that_goes_away_is_no_error(folder: Path, words: tuple[str, ...]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as closed_pipe:
        ran = subprocess.run(
            [sys.executable, "-m", "bedrock_budget", *words],
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 141
    assert "BrokenPipe" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_ctrl_c_is_quiet(folder: Path) -> None:
    os.mkfifo(folder / "slow.yaml")
    process = subprocess.Popen(
        [sys.executable, "-m", "bedrock_budget", "status", "--config", "slow.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with (folder / "slow.yaml").open("w"):  # opens once the command has opened it to read
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


# -- in this process


def test_help_and_version(run: Run) -> None:
    ran = run("--version")
    assert ran == (0, f"bedrock-budget {bedrock_budget.__version__}\n", "")
    ran = run("--help")
    assert ran.code == 0
    assert all(name in ran.out for name in ("status", "explain", "override", "tables", "exit codes"))
    assert run("override", "set", "-h").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "bedrock-budget: the following arguments are required: COMMAND\n"),
        (("tables",), "bedrock-budget tables: the following arguments are required: COMMAND\n"),
        (("--store", "memory://", "status"), "bedrock-budget: --store stands before the command; options come after"),
        (("--json=1", "status"), "bedrock-budget: --json stands before the command; "),
        (("explain",), "bedrock-budget explain: the following arguments are required: --org\n"),
        (("explain", "--org", "a#b"), "bedrock-budget explain: argument --org: must not contain '#'"),
        (("status", "--stor", "x"), "bedrock-budget: unrecognized arguments: --stor x\n"),
        (("status", "--store", "memory://"), "bedrock-budget: --store: memory:// lives inside one process, "),
        (("status", "--store", "redis://x"), "bedrock-budget: store URL 'redis://x': unknown scheme 'redis'"),
        (("status", "--store", " "), "bedrock-budget: --store: is empty; "),
    ],
)
def test_mistakes_on_the_command_line_end_with_2(run: Run, words: tuple[str, ...], message: str) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(message)
    assert len(ran.err.splitlines()) <= 2


def test_words_come_from_the_process_by_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bedrock-budget", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("bedrock-budget ")


def test_what_is_unforeseen_is_one_line_unless_debugged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(SQLiteStore, "app_ids", fail)
    ran = run("override", "clear", "--org", "acme")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "bedrock-budget: RuntimeError: boom (--debug shows where)"
    ran = run("override", "clear", "--org", "acme", "--debug")
    assert ran.code == 1
    assert "Traceback" in ran.err


def test_ctrl_c_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SQLiteStore, "read_controls", interrupt)
    ran = run("override", "clear", "--org", "acme")
    assert (ran.code, ran.out) == (130, "")


def test_debug_shows_the_log_and_leaves_logging_as_it_was(run: Run, store: SQLiteStore) -> None:
    logger = logging.getLogger("bedrock_budget")
    before = (logger.level, list(logger.handlers))
    store.put_config("acme", "chat", {"quotas": {"premium": -1}})
    ran = run("status", "--org", "acme", "--app", "chat", "--debug")
    assert "bedrock_budget WARNING cannot read the budget of ORG#acme#APP#chat" in ran.err
    assert (logger.level, list(logger.handlers)) == before
    assert "WARNING" not in run("status", "--org", "acme", "--app", "chat").err


def test_a_stream_without_an_encoding_is_left_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["--version"]) == 0
    assert out.getvalue().startswith("bedrock-budget ")


# -- text


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (1_400, "$0.001400"),
        (999_999, "$0.999999"),
        (1_000_000, "$1.00"),
        (1_500_000, "$1.50"),
        (12_345_678, "$12.345678"),
        (12_345_600, "$12.3456"),
        (1_234_567_000_000, "$1,234,567.00"),
    ],
)
def test_dollars(micros: int, text: str) -> None:
    assert table_text.dollars(micros) == text


def test_decimal_points_stand_in_one_line() -> None:
    column = table_text.dollars_column([1_400, 50_000_000, None, 1_500_000])
    assert column == ["$0.001400", "$50.00    ", "unlimited", "$1.50    "]


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=-5), "0 s"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(minutes=1), "1 min"),
        (timedelta(minutes=1, seconds=1), "1 min 1 s"),
        (timedelta(hours=10, minutes=59, seconds=59), "10 h 59 min"),
        (timedelta(hours=25), "1 d 1 h"),
        (timedelta(days=2, minutes=5), "2 d"),
    ],
)
def test_spans(duration: timedelta, text: str) -> None:
    assert table_text.span(duration) == text

"""``bedrock-budget``: the operator's commands.

A command is a file here with a function ``register``, listed in `COMMANDS`. What it prints is for people, or JSON
with ``--json``; what went wrong is one message on stderr and an exit code (`exits`).
"""

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from .. import __version__
from ..clock import Clock, SystemClock
from ..core.errors import BudgetError, ConfigError
from . import exits, explain, journal, override, prices, profile, reconcile, status, stop, tables
from .options import AddParser, Parser, note

#: What adds each command to the parser, in the order of ``--help``.
COMMANDS: tuple[Callable[[AddParser], None], ...] = (
    status.register,
    explain.register,
    override.register,
    stop.register,
    profile.register,
    journal.register,
    prices.register,
    reconcile.register,
    tables.register,
)

_PROGRAM = "bedrock-budget"
_WITHOUT_COMMAND = ("-h", "--help", "--version")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog=_PROGRAM,
        description="A daily USD budget for Amazon Bedrock: see what is spent, why calls go where they go, and steer.",
        epilog=exits.EXPLAINED + "\nOptions come after the command: bedrock-budget status --store URL --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for register in COMMANDS:
        register(commands.add_parser)
    return parser


def main(argv: Sequence[str] | None = None, *, clock: Clock | None = None) -> int:
    """Run one command and return its exit code. ``argv``: without the program's name; default: the process's."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail
    debug = "--debug" in words
    try:
        code = _run(words, clock or SystemClock(), debug=debug)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whatever is still in the buffer goes nowhere, so that the interpreter's last flush does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.PIPE_CLOSED
    except Exception as exc:
        if debug:
            traceback.print_exc()
        text = str(exc) if isinstance(exc, BudgetError) else f"{type(exc).__name__}: {exc} (--debug shows where)"
        print(f"{_PROGRAM}: {text}", file=sys.stderr)
        return exits.USAGE if isinstance(exc, ConfigError) else exits.FAILED


def _run(words: Sequence[str], clock: Clock, *, debug: bool) -> int:
    parser = build_parser()
    try:
        if words and words[0].startswith("-") and words[0] not in _WITHOUT_COMMAND:
            parser.error(f"{words[0].partition('=')[0]} stands before the command; options come after it")
        args = parser.parse_args(words)
    except SystemExit as exc:  # argparse, after it has said what there is to say
        return exc.code if isinstance(exc.code, int) else exits.DONE
    with _logged(debug=debug):
        code: int = args.run(args, clock)
    return code


@contextmanager
def _logged(*, debug: bool) -> Generator[None]:
    """Show what the library logs: with ``debug`` at once, else the warnings of a command that did not fail, since the
    error of one that did says the same."""
    logger = logging.getLogger("bedrock_budget")
    warnings: list[str] = []
    handler = logging.StreamHandler() if debug else _Kept(warnings)
    handler.setLevel(logging.DEBUG if debug else logging.WARNING)
    level = logger.level
    logger.addHandler(handler)
    if debug:
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    for text in dict.fromkeys(warnings):
        note(text)


class _Kept(logging.Handler):
    """Keeps messages for later."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())

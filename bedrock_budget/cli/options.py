"""What the commands' parsers have in common, and the store that their options name."""

import argparse
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from ..clock import Clock
from ..core.errors import ConfigError
from ..core.keys import id_problem
from . import exits

if TYPE_CHECKING:
    from ..stores import Store
    from .orgs import Orgs

#: ``add_parser`` of a group of commands.
AddParser = Callable[..., argparse.ArgumentParser]
#: What a command does: its options and the clock in, its exit code out.
Run = Callable[[argparse.Namespace, Clock], int]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one message and a place to look, not the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(exits.USAGE, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def add_command(
    add_parser: AddParser, name: str, run: Run, *, summary: str, description: str
) -> argparse.ArgumentParser:
    """A command with the options that all of them take."""
    parser = add_parser(
        name,
        help=summary,
        description=description,
        epilog=exits.EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    common = parser.add_argument_group("options of every command")
    common.add_argument("--store", metavar="URL", help="the store (default: $BEDROCK_BUDGET_STORE, else a SQLite file)")
    common.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration (default: $BEDROCK_BUDGET_CONFIG, else the org's item in the Config table)",
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--debug", action="store_true", help="log to stderr, and show the traceback of an error")
    return parser


def add_group(add_parser: AddParser, name: str, *, summary: str, description: str) -> AddParser:
    """A group of commands (``tables create``); returns what adds a command to it."""
    group = add_parser(name, help=summary, description=description, allow_abbrev=False)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True).add_parser


def add_scope(parser: argparse.ArgumentParser, *, org_required: bool, app_help: str) -> None:
    """``--org`` and ``--app``."""
    org_help = "the org" if org_required else "only this org (default: every org that the configuration lists)"
    parser.add_argument("--org", metavar="ORG", type=identifier, required=org_required, help=org_help)
    parser.add_argument("--app", metavar="APP", type=identifier, help=app_help)


def identifier(text: str) -> str:
    """An org id, app id or label, as the type of an option."""
    problem = id_problem(text)
    if problem:
        raise argparse.ArgumentTypeError(problem)
    return text


def note(text: str) -> None:
    """Something to know that is not an error."""
    print(f"note: {text}", file=sys.stderr)


@contextmanager
def opened(
    args: argparse.Namespace, clock: Clock, *, looking_only: bool = False, config_needed: bool = True
) -> "Generator[Orgs]":
    """The store and configuration that a command's options name.

    ``looking_only``: the command shows things and must leave everything as it is. ``config_needed`` False: a mistake
    in the configuration file is only noted.
    Raises ConfigError.
    """
    from ..config import load_budgets  # noqa: PLC0415
    from .orgs import Orgs  # noqa: PLC0415

    try:
        budgets = load_budgets(args.config)
    except ConfigError as exc:
        if config_needed:
            raise
        note(f"going on without the configuration: {exc}")
        budgets = None
    store = shared_store(args.store, looking_only=looking_only)
    try:
        yield Orgs(store, budgets, clock)
    finally:
        store.close()


def store_url(given: str | None) -> str:
    """The URL of ``--store``, else of the environment, else the default."""
    from ..stores import default_store_url  # noqa: PLC0415

    if given is not None and not given.strip():
        raise ConfigError("--store: is empty; give a URL, or leave it out for $BEDROCK_BUDGET_STORE or the default")
    return given or default_store_url()


def shared_store(given: str | None, *, looking_only: bool) -> "Store":
    """The store of ``--store``, which other processes can see. Raises ConfigError."""
    from ..stores import MemoryStore, SQLiteStore, open_store  # noqa: PLC0415
    from ..stores.urls import state_folder  # noqa: PLC0415
    from .looking import looking_at  # noqa: PLC0415

    store = open_store(store_url(given))
    if isinstance(store, MemoryStore):
        raise ConfigError(
            "--store: memory:// lives inside one process, where this command cannot see it; "
            "give the URL that the programs use, such as sqlite:///budget.db"
        )
    if isinstance(store, SQLiteStore) and not os.path.exists(store.path):
        folder = os.path.dirname(store.path)
        if looking_only and (os.path.isdir(folder) or folder == str(state_folder())):
            note(f"{store.path} does not exist: nothing has been metered there yet (give the right one with --store)")
            return MemoryStore()  # looking must not create the file
        if not looking_only:
            note(f"{store.path} did not exist and is created (give the right one with --store)")
    return looking_at(store) if looking_only else store

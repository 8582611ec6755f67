"""``bedrock-budget journal``: what dead processes left in their journals, and writing it to the store."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..core.errors import ConfigError
from ..core.money import micros_half_up
from .exits import DONE, FAILED
from .options import AddParser, add_command, add_group, note, shared_store
from .table_text import aligned, dollars

_LIST = """\
The journals in a folder: whose process lives, and what the store may lack of the others. Changes nothing. Figures of a
living process's journal are of this moment; its meter writes them by itself."""
_REPLAY = """\
Write what dead processes left in their journals to the store, each exactly once, and remove the journals. A program
that starts with the same journal does the same. Journals of living processes, of other stores, and those put aside
because something in them is in doubt are left alone. May be stopped and repeated. Ends with exit code 1 if a journal
could not be read."""


def register(add_parser: AddParser) -> None:
    """Add the commands."""
    add = add_group(
        add_parser, "journal", summary="list and replay the journals of dead processes", description="Journals."
    )
    listing = add_command(add, "list", run_list, summary="what the journals hold", description=_LIST)
    replaying = add_command(add, "replay", run_replay, summary="write it to the store", description=_REPLAY)
    for parser in (listing, replaying):
        parser.add_argument("folder", metavar="DIR", type=Path, help="the folder given as journal=")
    replaying.add_argument(
        "--any-store",
        action="store_true",
        help="also journals that were written for another store URL (it was the same store under another name)",
    )


def run_list(args: argparse.Namespace, clock: Clock) -> int:
    """Print what the journals hold."""
    rows = [_row(path) for path in _folders(args.folder)]
    if args.json:
        print(json.dumps({"folder": str(args.folder), "journals": rows}, indent=2))
    elif not rows:
        print(f"no journals in {args.folder}")
    else:
        head = ["JOURNAL", "STATE", "UNWRITTEN", "CALLS", "SET ASIDE", "TORN"]
        shown = [
            [
                row["name"],
                row["state"],
                dollars(row["unwritten_usd_micros"]),
                str(row["unwritten_requests"]),
                dollars(row["set_aside_usd_micros"]),
                str(row["torn_records"]),
            ]
            for row in rows
        ]
        print("\n".join(aligned([head, *shown], left=(0, 1))))
    return DONE


def _folders(root: Path) -> list[Path]:
    from ..journal.files import folders_in  # noqa: PLC0415

    if not root.is_dir():
        raise ConfigError(f"DIR: {str(root)!r} is not a folder; give the one that programs have as journal=")
    return folders_in(root)


def _row(path: Path) -> dict[str, Any]:
    from ..journal.files import IN_DOUBT, lock_folder  # noqa: PLC0415
    from ..journal.replay import JournalUnreadable, Unwritten, read_unwritten  # noqa: PLC0415

    state = "in doubt"
    if not path.name.startswith(IN_DOUBT):
        try:
            folder = lock_folder(path)
            state = "running" if folder is None else "dead"
            if folder is not None:
                folder.release()
        except OSError as exc:
            note(f"{path}: {exc}")
            state = "unreadable"
    try:
        found = read_unwritten(path)
    except (JournalUnreadable, OSError) as exc:
        note(str(exc))
        found, state = Unwritten(path), "unreadable"
    amounts = found.amounts
    return {
        "name": path.name,
        "state": state,
        "store": found.store_url,
        "unwritten_usd_micros": micros_half_up(amounts.cost_pico_usd),
        "unwritten_requests": amounts.requests,
        "set_aside_usd_micros": micros_half_up(found.slices.set_aside),
        "torn_records": found.torn,
    }


def run_replay(args: argparse.Namespace, clock: Clock) -> int:
    """Replay, and print what was written."""
    from ..journal.replay import OtherStore, replay_unlocked  # noqa: PLC0415
    from ..writers import new_writer_id  # noqa: PLC0415

    _folders(args.folder)
    skipped: dict[str, Exception] = {}
    store = shared_store(args.store, looking_only=False)
    try:
        done = replay_unlocked(
            args.folder,
            store,
            store_url=None if args.any_store else store.url,
            now_epoch=lambda: clock.now().timestamp(),
            new_writer_id=new_writer_id,
            skipped=lambda path, exc: skipped.update({path.name: exc}),
        )
    finally:
        store.close()
    if args.json:
        replayed = [
            {
                "name": each.path.name,
                "written_usd_micros": micros_half_up(each.written.cost_pico_usd),
                "written_requests": each.written.requests,
                "in_doubt_usd_micros": micros_half_up(each.in_doubt.cost_pico_usd),
                "returned_usd_micros": micros_half_up(each.returned_pico_usd),
                "torn_records": each.torn,
            }
            for each in done
        ]
        reasons = {name: str(exc) for name, exc in skipped.items()}
        print(json.dumps({"folder": str(args.folder), "replayed": replayed, "skipped": reasons}, indent=2))
    else:
        for each in done:
            written = each.written
            cost = dollars(micros_half_up(written.cost_pico_usd))
            returned = f", {dollars(micros_half_up(each.returned_pico_usd))} returned" if each.returned_pico_usd else ""
            print(f"replayed {each.path.name}: {cost} for {written.requests} calls{returned}")
        for exc in skipped.values():
            hint = "; --any-store if it is the same one" if isinstance(exc, OtherStore) else ""
            note(f"not replayed: {exc}{hint}")
        if not done and not skipped:
            print(f"nothing to replay in {args.folder}")
    return FAILED if any(not isinstance(exc, OtherStore) for exc in skipped.values()) else DONE

"""One worker process: calls Bedrock through a budget from several threads, and notes what returned.

Its one argument is a JSON object of `Settings`. It ends cleanly, with `close()`, when its standard input is closed.
Notes are lines of JSON, each written with one call to the system, so that they outlive SIGKILL:

- ``returned``: time, request id, the call's usage key. After the call has returned; a stream, when read to its end.
- ``writes``: time, ``begin``, ``failed`` or ``end``, key, cost and requests: batches on their way to the store.

Times are of the monotonic clock, which all processes of a machine share.
"""

import json
import os
import random
import secrets
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from faults import traffic

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.account import Batch
from bedrock_budget.core.keys import scope_key
from bedrock_budget.stores import DynamoDBStore

#: Every so many calls a stream.
STREAM_EVERY = 4


class Settings(NamedTuple):
    """``journal`` and ``kept``: the journal's folder, and where its segments go instead of being deleted."""

    bedrock_url: str
    store_url: str
    timezone: str
    generation: int
    threads: int
    seed: int
    returned: str
    writes: str
    journal: str | None = None
    kept: str | None = None


class Notes:
    """A file of notes."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, *fields: object) -> None:
        os.write(self._file, json.dumps(fields).encode() + b"\n")


def note_writes(notes: Notes) -> None:
    """Have every batch that goes to the store noted, and what became of it."""
    write_batch = DynamoDBStore.write_batch

    def noted(self: DynamoDBStore, batch: Batch, *, now_epoch: float) -> None:
        amounts = (batch.amounts.cost_pico_usd, batch.amounts.requests)
        notes.add(time.monotonic(), "begin", batch.key, amounts)
        try:
            write_batch(self, batch, now_epoch=now_epoch)
        except BaseException:
            notes.add(time.monotonic(), "failed", batch.key, amounts)
            raise
        notes.add(time.monotonic(), "end", batch.key, amounts)

    DynamoDBStore.write_batch = noted  # type: ignore[method-assign]


def keep_segments(kept: Path) -> None:
    """Have the journal's segments moved away instead of deleted."""
    from bedrock_budget.journal import files

    def keep(path: Path) -> None:
        with suppress(FileNotFoundError):
            path.rename(kept / f"{path.parent.name}-{path.name}-{secrets.token_hex(6)}")

    files.discard = keep


def make_calls(
    views: list[PriceKeeperClient], settings: Settings, thread: int, notes: Notes, stop: threading.Event
) -> None:
    """Call until told to stop. A call that fails is not noted: nothing was promised for it."""
    chance = random.Random(f"{settings.seed} {settings.generation} {thread}")
    number = 0
    while not stop.is_set():
        number += 1
        app = chance.randrange(len(views))
        text = traffic.text_of_call(app, settings.generation, chance.randrange(1000))
        call: dict[str, Any] = {
            "modelId": chance.choice(list(traffic.MODELS)),
            "messages": [{"role": "user", "content": [{"text": text}]}],
        }
        try:
            if number % STREAM_EVERY:
                response = views[app].converse(**call)
            else:
                response = views[app].converse_stream(**call)
                for _ in response["stream"]:
                    pass
        except (BotoCoreError, ClientError) as exc:
            print(f"a call failed: {exc!r}", file=sys.stderr)
            continue
        metadata = response["ResponseMetadata"]
        record = metadata["PriceKeeper"]
        key = (scope_key(traffic.ORG, traffic.APPS[app]), record["label"], record["org_day"])
        notes.add(time.monotonic(), metadata["RequestId"], key)


def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    note_writes(Notes(settings.writes))
    if settings.kept is not None:
        keep_segments(Path(settings.kept))
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=settings.bedrock_url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(proxies={}, max_pool_connections=settings.threads),
    )
    keeper = PriceKeeperClient(
        client,
        org_id=traffic.ORG,
        app_id=traffic.APPS[0],
        config=traffic.config(settings.timezone),
        store=settings.store_url,
        journal=settings.journal,
        on_store_error="open",
    )
    views = [keeper.for_app(app) for app in traffic.APPS]
    notes = Notes(settings.returned)
    stop = threading.Event()
    threads = [
        threading.Thread(target=make_calls, args=(views, settings, number, notes, stop), daemon=True)
        for number in range(settings.threads)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    keeper.close()


if __name__ == "__main__":
    main()

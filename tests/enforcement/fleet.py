"""Worker processes that can be killed, and the stores that they share."""

import multiprocessing
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import boto3
from enforcement import worker
from enforcement.worker import Settings
from engines import dynoxide
from engines.fixtures import CREDENTIALS, REGION

from bedrock_budget.stores.tables import create_tables

#: Forked from one process that has everything imported: workers start quickly, and none inherits a thread.
_PROCESSES = multiprocessing.get_context("forkserver")
_END_SECS = 120.0


class Process:
    """One worker process."""

    def __init__(self, settings: Settings) -> None:
        self._pipe: Connection
        self._ready = False
        self._pipe, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=worker.main, args=(settings, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        """Wait until it can begin at once. Raises RuntimeError if it cannot."""
        if not self._ready:
            self._hear()
            self._ready = True

    def go(self) -> None:
        """Have it begin, when it is ready."""
        self.wait_until_ready()
        self._pipe.send("go")

    def kill(self) -> None:
        """SIGKILL, at whatever it is. Raises RuntimeError if it has ended by itself."""
        if not self._process.is_alive():
            raise RuntimeError(f"a worker ended by itself, with status {self._process.exitcode}")
        self._process.kill()
        self.abandon()

    def stop(self) -> None:
        """Tell it to end."""
        self._pipe.send("stop")

    def outcomes(self) -> "Counter[str]":
        """What became of its calls. Waits for its end. Raises RuntimeError if that was none as it should be."""
        outcomes: Counter[str] = self._hear()
        self._process.join(_END_SECS)
        if self._process.exitcode != 0:
            raise RuntimeError(f"a worker ended with status {self._process.exitcode}")
        return outcomes

    def abandon(self) -> None:
        """Make sure that it is gone."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()

    def _hear(self) -> Any:
        if not self._pipe.poll(_END_SECS):
            raise RuntimeError(f"a worker said nothing for {_END_SECS:g} s")
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a worker ended with status {self._process.exitcode}") from None


@contextmanager
def environment() -> Iterator[None]:
    """Nobody's credentials and settings, and for workers no coverage, whose files a kill would tear."""
    before = dict(os.environ)
    for name in before:
        if re.match("AWS_|BEDROCK_BUDGET_CONFIG|BEDROCK_BUDGET_STORE|COV", name):
            del os.environ[name]
    os.environ.update(CREDENTIALS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Stores:
    """Fresh stores in one engine, or SQLite files in a folder."""

    def __init__(self, engine: str | None, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._count = 0

    def new(self, *, sqlite: bool = False) -> str:
        """The URL of a store with nothing in it."""
        if sqlite or self._engine is None:
            self._count += 1
            return f"sqlite:///{self._folder / f'{self._count}.db'}"
        prefix = f"enforcement-{secrets.token_hex(4)}-"  # the engine may be shared
        client = boto3.client("dynamodb", region_name=REGION, endpoint_url=self._engine)
        create_tables(client, prefix)
        client.close()
        return f"dynamodb://?region={REGION}&prefix={prefix}&endpoint_url={self._engine}"


@contextmanager
def stores(folder: Path) -> Iterator[Stores]:
    """Stores in an engine of their own, in the right environment. Raises EngineUnavailable."""
    with environment(), dynoxide.running() as engine:
        yield Stores(engine, folder)

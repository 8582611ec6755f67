"""One worker process: calls Bedrock through a budget from several threads, as its `Settings` say.

It says ``ready`` through its pipe, begins when it is told ``go``, and says at its end what became of its calls. Notes,
if it takes any, are written with one call to the system each, so that they outlive SIGKILL: ``begin`` and ``end`` of
each call, the end with the id of the request, if there was one.
"""

import logging
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from enforcement import traffic
from engines.fixtures import CREDENTIALS

from bedrock_budget import BudgetExhausted, PriceKeeperClient, StoreError

#: Between two calls of a thread that was refused.
REFUSED_PAUSE_SECS = 0.02


class Settings(NamedTuple):
    """``work``: each thread calls ``once``, ``until_refused``, or ``until_stopped``, whatever it is told; or calls
    ``arrive`` at random, ``rate`` a second, until it is stopped. A call is answered with ``output_tokens``: at least
    the first, at most the second number.
    """

    bedrock_url: str
    store_url: str
    config: dict[str, Any]
    enforcement: str
    work: Literal["once", "until_refused", "until_stopped", "arrive"]
    threads: int
    max_tokens: int
    output_tokens: tuple[int, int]
    seed: object
    rate: float = 0.0
    journal: str | None = None
    notes: str | None = None


class Worker:
    """The work of a process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outcomes: Counter[str] = Counter()
        self.stop = threading.Event()
        self._lock = threading.Lock()
        path = settings.notes
        self._notes = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        client = boto3.client(
            "bedrock-runtime",
            endpoint_url=settings.bedrock_url,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(proxies={}, max_pool_connections=settings.threads),
        )
        self.bedrock = PriceKeeperClient(
            client,
            org_id=traffic.ORG,
            app_id=traffic.APP,
            config=settings.config,
            store=settings.store_url,
            enforcement=settings.enforcement,  # type: ignore[arg-type]
            journal=settings.journal,
        )

    def run(self, pipe: Connection) -> None:
        """Work from ``go`` to the end."""
        work = self._arrive if self.settings.work == "arrive" else self._repeat
        count = 1 if self.settings.work == "arrive" else self.settings.threads
        gate = threading.Event()

        def begin(number: int) -> None:
            gate.wait()
            work(number)

        threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        pipe.send("ready")
        pipe.recv()
        gate.set()
        if self.settings.work in ("until_stopped", "arrive"):
            pipe.recv()
            self.stop.set()
        for thread in threads:
            thread.join()
        self.bedrock.close()

    def _repeat(self, thread: int) -> None:
        settings = self.settings
        chance = random.Random(f"{settings.seed} {thread}")
        calls = 0
        while not self.stop.is_set():
            calls += 1
            refused = self._call(f"{thread}-{calls}", chance.randint(*settings.output_tokens)) == "refused"
            if settings.work == "once" or (settings.work == "until_refused" and refused):
                return
            if refused:
                self.stop.wait(REFUSED_PAUSE_SECS)

    def _arrive(self, _thread: int) -> None:
        settings = self.settings
        chance = random.Random(f"{settings.seed}")
        at = time.monotonic()
        calls = 0
        with ThreadPoolExecutor(settings.threads) as pool:
            while True:
                at += chance.expovariate(settings.rate)
                if self.stop.wait(max(0.0, at - time.monotonic())):
                    return
                calls += 1
                pool.submit(self._call, str(calls), chance.randint(*settings.output_tokens))

    def _call(self, name: str, output_tokens: int) -> str:
        self._note(f"begin {name}\n")
        request_id = "-"
        try:
            response = self.bedrock.converse(**traffic.call(output_tokens, self.settings.max_tokens))
            request_id = response["ResponseMetadata"]["RequestId"]
            outcome: str = response["ResponseMetadata"]["PriceKeeper"]["label"]
        except BudgetExhausted:
            outcome = "refused"
        except (BotoCoreError, ClientError, StoreError) as exc:
            outcome = f"failed: {exc!r}"[:300]
        self._note(f"end {name} {request_id}\n")
        with self._lock:
            self.outcomes[outcome] += 1
        return outcome

    def _note(self, line: str) -> None:
        if self._notes is not None:
            os.write(self._notes, line.encode())


def main(settings: Settings, pipe: Connection) -> None:
    """The whole life of a process."""
    os.environ.update(CREDENTIALS)
    logging.getLogger("bedrock_budget").setLevel(logging.ERROR)  # replays are nothing special here
    worker = Worker(settings)
    worker.run(pipe)
    pipe.send(worker.outcomes)
    pipe.close()

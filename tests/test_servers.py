"""Servers and process pools end in an orderly way, over real HTTP: the shards are what Bedrock billed, exactly.

The examples run as users start them, but for one thing: the background thread writes nothing, so that what is stored
at the end was written by the end itself.
"""

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest
from doubles import wait_until
from metered import PRICES, budget
from programs import environment_of_tests

from bedrock_budget.core.account import sum_of
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.stores import SQLiteStore
from bedrock_budget.testing import LocalBedrock

EXAMPLES = Path(__file__).parents[1] / "examples" / "servers"
REQUESTS = 300
VISITORS = 8
END_SECS = 45.0
SIGTERM = getattr(signal, "SIGTERM", 0)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="these servers need fork and SIGTERM")


def need(module: str) -> None:
    """Skip without a server that is installed only for tests; but in CI it must be there."""
    if importlib.util.find_spec(module) is None:
        missing = f"{module} is not installed; it is in the dependency group `test`"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)


class Site:
    """A folder with a budget and a store, a Bedrock, and the programs that run there."""

    def __init__(self, folder: Path, bedrock: LocalBedrock) -> None:
        self.folder = folder
        self.bedrock = bedrock
        self.database = folder / "budget.db"
        self.log = folder / "log.txt"
        self.days = {self._today()}
        (folder / "budget.json").write_text(json.dumps(budget()))  # JSON is YAML
        inherited = environment_of_tests(traced=False)
        self.environment = {
            **inherited,
            "PYTHONPATH": os.pathsep.join([str(folder), str(EXAMPLES), inherited["PYTHONPATH"]]),
            "BEDROCK_BUDGET_CONFIG": str(folder / "budget.json"),
            "BEDROCK_BUDGET_STORE": f"sqlite:///{self.database}",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }

    def write(self, name: str, program: str) -> None:
        start = "from bedrock_budget import meter\nmeter.FLUSH_SECS = 1000  # the background thread writes nothing\n"
        (self.folder / name).write_text(start + dedent(program))

    def run(self, *arguments: str) -> None:
        """Run Python to its end, which is a good one."""
        with self.running(*arguments) as process:
            assert process.wait(END_SECS) == 0, self.log.read_text()

    @contextmanager
    def running(self, *arguments: str, pass_fds: tuple[int, ...] = ()) -> Iterator["subprocess.Popen[bytes]"]:
        """A process of Python, with a group of its own that does not outlive the block."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait_for_requests(self, process: "subprocess.Popen[bytes]", requests: int = REQUESTS) -> None:
        wait_until(lambda: len(self.bedrock.ledger) >= requests or process.poll() is not None, END_SECS)
        assert process.poll() is None, self.log.read_text()

    def terminate(self, process: "subprocess.Popen[bytes]", *exit_codes: int) -> None:
        process.send_signal(SIGTERM)
        assert process.wait(END_SECS) in exit_codes, self.log.read_text()

    def check(self, app_id: str, at_least: int = REQUESTS) -> None:
        """What is stored is what was billed, to the pico-dollar and to the request."""
        self.days.add(self._today())
        keys = [UsageKey(f"ORG#acme#APP#{app_id}", "premium", day) for day in self.days]
        store = SQLiteStore(self.database)
        try:
            stored = sum_of(found.amounts for found in store.read_shards(dict.fromkeys(keys, 64)).values())
        finally:
            store.close()
        billed = self.bedrock.ledger.cost_pico_usd(PRICES)
        served = len(self.bedrock.ledger)
        assert (stored.requests, stored.cost_pico_usd) == (served, billed), self.log.read_text()
        assert served >= at_least

    @staticmethod
    def _today() -> str:
        return datetime.now(UTC).strftime("%Y%m%d")


class Visitors:
    """Threads that ask a server questions of many lengths until it is gone."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self._port = port
        self._numbers = count()
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(VISITORS)]

    def __enter__(self) -> "Visitors":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for thread in self._threads:
            thread.join(END_SECS)
        assert not any(thread.is_alive() for thread in self._threads)

    def _ask_on(self) -> None:
        try:
            while True:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=END_SECS)
                try:
                    connection.request("POST", "/", body=question(next(self._numbers)))
                    answer = connection.getresponse()
                    assert answer.status == 200, answer.read()
                    assert answer.read().startswith(b"the quick brown fox")
                finally:
                    connection.close()
                with self._counting:
                    self.answered += 1
        except (OSError, http.client.HTTPException):
            return  # the server is gone


def question(number: int) -> str:
    return "why? " * (number % 50 + 1)


@pytest.fixture
def site(tmp_path: Path, aws_credentials: None) -> Iterator[Site]:
    with LocalBedrock(latency_secs=0.01) as bedrock:
        yield Site(tmp_path, bedrock)


def serve_until_terminated(site: Site, *arguments: str, exit_code: int = 0) -> None:
    """Start a server on a port (``{fd}``), let visitors in, and end it while they are being served."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port, descriptor = listening.getsockname()[1], listening.fileno()
        command = [each.format(fd=descriptor) for each in arguments]
        with site.running(*command, pass_fds=(descriptor,)) as server:
            listening.close()  # the server has it now, and visitors are told when it is gone
            with Visitors(port) as visitors:
                site.wait_for_requests(server)
                site.terminate(server, exit_code)
    assert visitors.answered >= REQUESTS - VISITORS


# --- gunicorn

GUNICORN = ("-m", "gunicorn", "--no-control-socket", "--bind", "fd://{fd}", "--workers", "4")


@pytest.mark.parametrize("threads", ["1", "4"])
def test_gunicorn_with_workers_forked_from_a_loaded_application(site: Site, threads: str) -> None:
    need("gunicorn")
    site.write("served.py", "from gunicorn_app import app")
    serve_until_terminated(site, *GUNICORN, "--preload", "--threads", threads, "served:app")
    site.check("web")


def test_gunicorn_with_calls_before_the_fork(site: Site) -> None:
    need("gunicorn")
    site.write(
        "served.py",
        """
        import boto3, gunicorn_app
        from bedrock_budget import PriceKeeperClient
        from gunicorn_app import app

        client = boto3.client("bedrock-runtime")
        gunicorn_app.bedrock = PriceKeeperClient(client, org_id="acme", app_id="web")
        for _ in range(5):
            gunicorn_app.bedrock.converse(messages=[{"role": "user", "content": [{"text": "warm up"}]}])
        client.close()  # boto3 would leave its open connection to all the workers at once
        """,
    )
    serve_until_terminated(site, *GUNICORN, "--preload", "served:app")
    site.check("web")


def test_gunicorn_workers_that_are_replaced_after_so_many_requests(site: Site) -> None:
    need("gunicorn")
    site.write("served.py", "from gunicorn_app import app")
    serve_until_terminated(site, *GUNICORN, "--preload", "--max-requests", "40", "served:app")
    site.check("web")


# --- uvicorn


@pytest.mark.parametrize(("workers", "exit_code"), [("4", 0), ("1", -SIGTERM)])
def test_uvicorn_with_the_lifespan_of_the_example(site: Site, workers: str, exit_code: int) -> None:
    need("uvicorn")
    site.write("served.py", "from asgi_app import app")
    command = ("-m", "uvicorn", "--fd", "{fd}", "--workers", workers, "served:app")
    serve_until_terminated(site, *command, exit_code=exit_code)
    site.check("web")


# --- Celery


def test_the_prefork_pool_of_celery(site: Site) -> None:
    need("celery")
    for folder in ("queue", "control"):
        (site.folder / folder).mkdir()
    site.write(
        "served.py",
        """
        from celery_app import app, ask

        folders = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
        app.conf.update(
            broker_url="filesystem://",
            broker_transport_options={**folders, "polling_interval": 0.01},
            worker_prefetch_multiplier=1,
        )
        """,
    )
    site.run("-c", f"from served import ask\nfor n in range({REQUESTS}): ask.delay('why? ' * (n % 50 + 1))")
    with site.running("-m", "celery", "--app", "served", "worker", "--concurrency", "4") as worker:
        site.wait_for_requests(worker, REQUESTS * 2 // 3)  # the rest stays in the queue
        site.terminate(worker, 0)
    site.check("tasks", at_least=REQUESTS * 2 // 3)


# --- multiprocessing

POOL = """
    import multiprocessing, sys
    import boto3
    from bedrock_budget import PriceKeeperClient

    client = boto3.client("bedrock-runtime")
    bedrock = PriceKeeperClient(client, org_id="acme", app_id="web")

    def ask(number):
        bedrock.converse(messages=[{"role": "user", "content": [{"text": "why? " * (number % 50 + 1)}]}])

    if __name__ == "__main__":
        ask(0)
        client.close()
        context = multiprocessing.get_context(sys.argv[1])
        pool = context.Pool(4)
        pool.map(ask, range(100), chunksize=5)
        pool.close()  # and not terminate(), nor the end of a `with` block, which kills
        pool.join()
        children = [context.Process(target=ask, args=(number,)) for number in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(site: Site, method: str) -> None:
    site.write("program.py", POOL)
    site.run("program.py", method)
    site.check("web", at_least=104)


# --- threads, clients


def test_two_clients_never_closed_and_threads_that_die(site: Site) -> None:
    site.write(
        "program.py",
        """
        import threading, boto3
        from bedrock_budget import PriceKeeperClient

        threading.excepthook = lambda arguments: None
        client = boto3.client("bedrock-runtime")
        clients = [PriceKeeperClient(client, org_id="acme", app_id="web") for _ in range(2)]

        def ask(number):
            clients[number % 2].converse(messages=[{"role": "user", "content": [{"text": "why? " * (number + 1)}]}])
            raise ZeroDivisionError

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        """,
    )
    site.run("program.py")
    site.check("web", at_least=40)

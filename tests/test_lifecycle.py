"""How processes end and fork, in real processes: what was metered is written once, by whoever metered it."""

import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from doubles import stored
from programs import environment_of_tests

from bedrock_budget import lifecycle
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.stores import SQLiteStore

KEY = UsageKey("ORG#acme#APP#chat", "premium", "20260115")

PRELUDE = """
    import gc, logging, multiprocessing, os, signal, sys, threading, types
    from bedrock_budget import PriceKeeperClient, lifecycle, meter
    from bedrock_budget.testing import ManualClock

    meter.FLUSH_SECS = float(os.environ.get("FLUSH_SECS", "1000"))  # the background thread writes nothing by itself

    class Bedrock:
        '''As much of a boto3 client as a call needs.'''

        meta = types.SimpleNamespace(region_name="us-east-1")

        def converse(self, **kwargs):
            usage = {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}
            return {"output": {}, "usage": usage, "ResponseMetadata": {}}

        def converse_stream(self, **kwargs):
            return {"stream": Stream(), "ResponseMetadata": {}}

    class Stream:
        def __iter__(self):
            yield {"contentBlockDelta": {"delta": {"text": "hello"}}}

        def close(self):
            pass

    CONFIG = {
        "model_labels": {"premium": {"id": "amazon.nova-micro-v1:0"}},
        "org_defaults": {"timezone": "UTC", "model_ordering": ["premium"], "quotas": {"premium": None}},
    }

    def client(store=os.environ["STORE"], **kwargs):
        return PriceKeeperClient(
            Bedrock(), org_id="acme", app_id="chat", config=CONFIG, store=store, clock=ManualClock(), **kwargs
        )

    def call(bedrock, times=1):
        for _ in range(times):
            bedrock.converse(messages=[])
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "budget.db"


@pytest.fixture
def run(tmp_path: Path, database: Path) -> Run:
    """Run a script to its end in a process of its own."""

    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text(dedent(PRELUDE) + dedent(script))
        traced = "fork" not in script
        return subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", str(path)],
            env={**environment_of_tests(traced=traced), "STORE": f"sqlite:///{database}", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def requests(database: Path) -> int:
    store = SQLiteStore(database)
    try:
        return stored(store, KEY).requests
    finally:
        store.close()


# --- ends


@pytest.mark.parametrize("metering", ["background", "sync"])
def test_a_process_that_closes_nothing_writes_everything(run: Run, database: Path, metering: str) -> None:
    done = run(f"call(client(metering={metering!r}), 7)")
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 7


def test_close_and_the_end_write_once(run: Run, database: Path) -> None:
    done = run("bedrock = client(); call(bedrock, 7); bedrock.close(); call(bedrock, 1); bedrock.close()")
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 8


def test_an_exception_that_ends_the_program_loses_nothing(run: Run, database: Path) -> None:
    done = run("bedrock = client(); call(bedrock, 7); raise ZeroDivisionError")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("ZeroDivisionError")
    assert requests(database) == 7


def test_a_thread_that_exits_loses_nothing(run: Run, database: Path) -> None:
    done = run("""
        bedrock = client()
        def work():
            call(bedrock, 3)
            sys.exit(5)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        call(bedrock)
        sys.exit(3)
    """)
    assert (done.returncode, done.stderr) == (3, "")
    assert requests(database) == 13


def test_daemon_threads_that_call_to_the_end_cannot_disturb_it(run: Run, database: Path) -> None:
    done = run("""
        bedrock = client()
        def work():
            while True:
                call(bedrock)
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        call(bedrock, 200)
    """)
    assert done.returncode == 0
    assert "Error" not in done.stderr
    assert requests(database) >= 200


def test_a_client_that_was_dropped_still_writes_its_usage(run: Run, database: Path) -> None:
    done = run("""
        bedrock = client()
        call(bedrock, 7)
        del bedrock
        gc.collect()
        call(client(), 2)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 9


def test_two_clients_on_one_store_write_both(run: Run, database: Path) -> None:
    done = run("""
        from bedrock_budget.stores import SQLiteStore
        store = SQLiteStore(os.environ["STORE"].removeprefix("sqlite:///"))
        first, second = client(store), client(store)
        call(first, 3)
        call(second, 4)
        assert sum(row.requests for row in first.status()) == 3
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 7


def test_an_open_stream_is_settled_at_the_end(run: Run, database: Path) -> None:
    done = run("bedrock = client(); response = bedrock.converse_stream(messages=[]); next(iter(response['stream']))")
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 1


def test_each_client_says_once_what_a_store_that_stays_away_has_not_got(run: Run) -> None:
    done = run("""
        from bedrock_budget.core.errors import StoreError
        from bedrock_budget.stores import MemoryStore

        lifecycle.EXIT_SECS = 0.2

        class Away(MemoryStore):
            def write_batch(self, batch, *, now_epoch):
                print("tried")
                raise StoreError("away")

        clients = [client(Away()) for _ in range(5)]
        for bedrock in clients:
            call(bedrock)
    """)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("could not be written") == 5
    assert done.stdout.count("tried") >= 5


# --- forks

FORK = """
    bedrock = client()
    call(bedrock, 3)
    stream = bedrock.converse_stream(messages=[])["stream"]
    child = os.fork()
    if child == 0:
        call(bedrock, 2)
        {end}
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    call(bedrock, 1)
    stream.close()
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
def test_a_forked_child_writes_its_own_usage_and_the_parent_its_own(run: Run, database: Path) -> None:
    done = run(FORK.format(end="sys.exit(0)"))
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 3 + 2 + 1 + 1


@needs_fork
def test_children_forked_before_the_first_call_are_writers_of_their_own(run: Run, database: Path) -> None:
    done = run("""
        bedrock = client()
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                call(bedrock, 2)
                sys.exit(0)
            children.append(child)
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        call(bedrock, 1)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 3 * 2 + 1


@needs_fork
def test_a_forked_child_that_ends_abruptly_sends_nothing_of_its_parents(run: Run, database: Path) -> None:
    done = run(FORK.format(end="os._exit(0)"))
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 3 + 1 + 1


@needs_fork
def test_a_forked_child_flushes_by_itself_and_knows_nothing_of_its_parents_usage(run: Run, database: Path) -> None:
    done = run(FORK.format(end="assert bedrock.flush(10); os._exit(0)"))
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 3 + 2 + 1 + 1


@needs_fork
def test_forks_in_the_middle_of_traffic_and_of_writes_hang_nobody(run: Run, database: Path) -> None:
    done = run(
        """
        bedrock = client()
        call(bedrock)
        counted = [0] * 4
        done = threading.Event()
        def work(number):
            while not done.is_set():
                call(bedrock)
                counted[number] += 1
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        children = []
        for _ in range(15):
            child = os.fork()
            if child == 0:
                call(bedrock, 2)
                sys.exit(0)
            children.append(child)
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        done.set()
        for thread in threads:
            thread.join()
        bedrock.close()
        print(1 + sum(counted) + 15 * 2)
        """,
        FLUSH_SECS="0.21",
    )
    assert done.returncode == 0, done.stderr
    assert requests(database) == int(done.stdout)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("metering", ["background", "sync"])
def test_children_of_multiprocessing_write_theirs(run: Run, database: Path, method: str, metering: str) -> None:
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    done = run(f"""
        bedrock = None
        def work(times):
            global bedrock
            bedrock = bedrock or client(metering={metering!r})
            call(bedrock, times)
            bedrock.converse_stream(messages=[])  # and leaves it open

        if __name__ == "__main__":
            if {method!r} == "fork":
                work(5)
            context = multiprocessing.get_context({method!r})
            children = [context.Process(target=work, args=(times,)) for times in (2, 3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
                assert child.exitcode == 0
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == (2 + 1) + (3 + 1) + (6 if method == "fork" else 0)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_that_call_while_they_import_write_all(
    run: Run, database: Path, method: str
) -> None:
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    done = run(f"""
        bedrock = client()
        call(bedrock, 2)  # children that are not forks of this process import this file
        def work():
            call(bedrock)

        if __name__ == "__main__":
            child = multiprocessing.get_context({method!r}).Process(target=work)
            child.start()
            child.join()
            assert child.exitcode == 0
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == (3 if method == "fork" else 5)


@needs_fork
def test_the_workers_of_a_pool_write_theirs(run: Run, database: Path) -> None:
    done = run("""
        from concurrent.futures import ProcessPoolExecutor
        bedrock = client()
        def work(number):
            call(bedrock)
            return os.getpid()

        if __name__ == "__main__":
            call(bedrock)
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
                list(pool.map(work, range(10)))
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 11


# --- the registry itself


def test_one_that_fails_at_the_end_does_not_keep_the_others_from_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    class Mortal:
        def __init__(self, name: str) -> None:
            self.name = name

        def at_exit(self, timeout: float) -> None:
            assert 0 <= timeout <= lifecycle.EXIT_SECS
            told.append(self.name)
            if self.name == "first":
                raise ZeroDivisionError

        def after_fork_in_child(self) -> None:
            told.append(f"child of {self.name}")

    monkeypatch.setattr(lifecycle, "_mortals", weakref.WeakValueDictionary())
    monkeypatch.setattr(lifecycle, "_exit_deadline", None)
    first, second = Mortal("first"), Mortal("second")
    lifecycle.register(first)
    lifecycle.register(second)
    lifecycle.register(first)
    lifecycle._at_exit()
    assert told == ["first", "second"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    lifecycle._after_fork_in_child()
    assert told[2:] == ["child of first", "child of second"]
    assert lifecycle._exit_deadline is None


def test_the_processes_of_a_celery_pool_are_told_of_their_end_by_its_signal(run: Run, database: Path) -> None:
    done = run("""
        class Signal:
            receivers = {}

            def connect(self, receiver, *, weak, dispatch_uid):
                assert not weak
                self.receivers[dispatch_uid] = receiver

        signals = types.ModuleType("celery.signals")
        signals.worker_process_shutdown = Signal()
        sys.modules["celery.signals"] = signals
        first, second = client(), client()
        call(first, 2)
        call(second, 1)
        (receiver,) = Signal.receivers.values()
        receiver(signal=signals.worker_process_shutdown, sender="a host", pid=os.getpid(), exitcode=0)
        os._exit(0)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert requests(database) == 3


def test_the_end_waits_once_for_all_clients_together(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float] = []
    seconds = [100.0]

    class Slow:
        def at_exit(self, timeout: float) -> None:
            timeouts.append(timeout)
            seconds[0] += 4

        def after_fork_in_child(self) -> None: ...

    monkeypatch.setattr(lifecycle, "_mortals", weakref.WeakValueDictionary())
    monkeypatch.setattr(lifecycle, "_exit_deadline", None)
    monkeypatch.setattr(lifecycle, "monotonic", lambda: seconds[0])
    slow = [Slow() for _ in range(4)]
    for each in slow:
        lifecycle.register(each)
    lifecycle._at_exit()
    assert timeouts == [10, 6, 2, 0]
    del each
    slow.pop()  # held weakly
    lifecycle._at_exit()  # by multiprocessing first, then by atexit
    assert timeouts[4:] == [0, 0, 0]

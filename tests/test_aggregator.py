"""The aggregator: daily totals that are right, never go down, and never keep each other waiting."""

import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tenacity
from doubles import AWAY, UnreliableStore, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget import aggregator as aggregator_module
from bedrock_budget.aggregator import Aggregator, aggregator_for, lambda_handler, main
from bedrock_budget.clock import SystemClock
from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.errors import ConfigError, StoreError
from bedrock_budget.core.keys import UsageKey, utc_hour
from bedrock_budget.core.refresh import Intervals, total_is_stale
from bedrock_budget.core.usage import Usage
from bedrock_budget.passes import text_of
from bedrock_budget.stores import DailyTotal, SQLiteStore, Store
from bedrock_budget.summing import FAILURES_IN_A_ROW, KEYS_AT_ONCE
from bedrock_budget.testing import ManualClock
from bedrock_budget.writers import new_writer_id

KEY = UsageKey("ORG#acme#APP#chat", "premium", "20260115")


def key(number: int) -> UsageKey:
    return KEY._replace(label=f"label{number:03}")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def aggregator(store: UnreliableStore, clock: ManualClock) -> Aggregator:
    return Aggregator(store, clock, shard_count_of=lambda org_id: 8)


class Writer:
    """A process that meters: one writer id, one shard."""

    def __init__(self, store: Store, clock: ManualClock, shard: int = 0) -> None:
        self._store = store.inner if isinstance(store, UnreliableStore) else store
        self._clock = clock
        self._shard = shard
        self._id = new_writer_id()
        self._sequence = 0

    def write(self, cost: int, key: UsageKey = KEY, shard_count: int = 8) -> None:
        self._sequence += 1
        amounts = Amounts(cost, Usage(cost), 1)
        batch = Batch(key, self._id, self._sequence, self._shard, shard_count, amounts)
        self._store.write_batch(batch, now_epoch=self._clock.now().timestamp())


@pytest.fixture
def writer(store: UnreliableStore, clock: ManualClock) -> Writer:
    return Writer(store, clock)


def total(store: UnreliableStore, key: UsageKey = KEY) -> DailyTotal | None:
    return store.inner.read_totals([key]).get(key)


def cost(store: UnreliableStore, key: UsageKey = KEY) -> int | None:
    found = total(store, key)
    return None if found is None else found.amounts.cost_pico_usd


def hours_listed(store: UnreliableStore) -> list[int]:
    return [len(hours) for name, hours in store.calls if name == "active_keys"]


# --- one pass


def test_a_pass_sums_all_shards_of_all_writers_and_says_when_it_began(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock
) -> None:
    for shard in range(8):
        Writer(store, clock, shard).write(10**shard)
    done = aggregator.run_pass()
    assert total(store) == DailyTotal(Amounts(11111111, Usage(11111111), 8), int(clock.now().timestamp()))
    assert (done.keys, done.totals_written) == (1, 1)
    assert aggregator.last_pass is done


def test_a_total_carries_the_time_before_its_reading_began(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock, writer: Writer
) -> None:
    writer.write(5)
    began = clock.now().timestamp()

    def slow(name: str, subject: object) -> None:
        if name == "read_shards":
            clock.advance(30)

    store.fails = slow
    aggregator.run_pass()
    found = total(store)
    assert found is not None
    assert found.updated_at_epoch <= began


def test_more_shards_than_configured_are_summed_as_well(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock
) -> None:
    Writer(store, clock, 0).write(1)
    Writer(store, clock, 15).write(10, shard_count=16)
    aggregator.run_pass()
    assert cost(store) == 11


def test_keys_of_any_day_are_summed_if_they_were_written_lately(
    aggregator: Aggregator, store: UnreliableStore, writer: Writer
) -> None:
    aggregator.run_pass()
    for day in ("20260114", "20260115", "20260116", "20251224"):
        writer.write(7, KEY._replace(day=day))
    aggregator.run_pass()
    assert [cost(store, KEY._replace(day=day)) for day in ("20260114", "20260116", "20251224")] == [7, 7, 7]


def test_the_first_pass_lists_48_hours_and_later_ones_two(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock, writer: Writer
) -> None:
    start = clock.now()
    clock.set(start - timedelta(hours=47))
    writer.write(7, key(1))
    clock.set(start - timedelta(hours=48))
    writer.write(7, key(2))
    clock.set(start)
    aggregator.run_pass()
    aggregator.run_pass()
    assert hours_listed(store) == [48, 2]
    assert (cost(store, key(1)), cost(store, key(2))) == (7, None)
    listed = [hours for name, hours in store.calls if name == "active_keys"]
    assert listed[1] == [utc_hour(start.timestamp()), utc_hour(start.timestamp() - 3600)]


def test_a_first_pass_that_failed_is_still_the_first(aggregator: Aggregator, store: UnreliableStore) -> None:
    store.go_away()
    with pytest.raises(StoreError):
        aggregator.run_pass()
    store.come_back()
    aggregator.run_pass()
    assert hours_listed(store) == [48, 48]


def test_hours_without_a_pass_are_listed_by_the_next_one(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock, writer: Writer
) -> None:
    aggregator.run_pass()
    clock.advance(1800)
    writer.write(7)
    store.reads_fail = AWAY  # nothing but the aggregator notices
    for _ in range(5):
        clock.advance(3600)
        with pytest.raises(StoreError):
            aggregator.run_pass()
    store.come_back()
    aggregator.run_pass()
    assert cost(store) == 7
    clock.advance(300 * 3600)
    aggregator.run_pass()
    assert hours_listed(store)[-1] == 48
    clock.set(clock.now() - timedelta(hours=5))
    aggregator.run_pass()
    assert hours_listed(store)[-1] == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3 * 3600), st.booleans(), st.booleans()), max_size=25))
def test_no_write_is_missed_whenever_passes_come_and_fail(steps: list[tuple[int, bool, bool]]) -> None:
    store, clock = UnreliableStore(), ManualClock()
    aggregator = Aggregator(store, clock, shard_count_of=lambda org_id: 8)
    writer = Writer(store, clock)
    elapsed = written = 0
    for wait, writes, fails in steps:
        if elapsed + wait > 40 * 3600:
            break
        elapsed += wait
        clock.advance(wait)
        if writes:
            writer.write(1)
            written += 1
        store.reads_fail = AWAY if fails else None
        try:
            aggregator.run_pass()
        except StoreError:
            assert fails
        else:
            assert cost(store) == (written or None)


def test_totals_never_go_down(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock, writer: Writer
) -> None:
    writer.write(5)
    higher = DailyTotal(Amounts(9, Usage(9), 3), 1)
    store.inner.write_total(KEY, higher)
    done = aggregator.run_pass()
    assert total(store) == higher
    assert done.totals_written == 0
    writer.write(5)
    aggregator.run_pass()
    assert cost(store) == 10


# --- lag


def test_the_lag_is_the_time_since_the_last_complete_pass_began(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock, writer: Writer
) -> None:
    def slow(name: str, subject: object) -> None:
        if name == "read_shards":
            clock.advance(7)

    store.fails = slow
    writer.write(5)
    first = aggregator.run_pass()
    assert (first.lag_secs, first.longest_lag_secs) == (7, None)
    clock.advance(53)
    assert aggregator.health()[1]["lag_secs"] == 60
    store.reads_fail = AWAY
    with pytest.raises(StoreError):
        aggregator.run_pass()
    clock.advance(100)
    assert aggregator.health()[1]["lag_secs"] == 160  # a pass that failed has not made it shorter
    store.come_back()
    second = aggregator.run_pass()
    assert (second.lag_secs, second.longest_lag_secs) == (7, 167)
    assert aggregator.health()[1]["lag_secs"] == 7
    clock.advance(53)
    third = aggregator.run_pass()
    assert (third.lag_secs, third.longest_lag_secs) == (7, 67)
    assert text_of(third) == "1 keys, 0 totals written, 7.000 s, lag up to 67.0 s"


# --- unchanged totals


def test_unchanged_totals_are_written_every_second_interval_and_never_grow_stale(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock, writer: Writer
) -> None:
    writer.write(5)
    oldest = 0.0
    written: list[int] = []
    for _ in range(20):
        written.append(aggregator.run_pass().totals_written)
        clock.advance(60)
        found = total(store)
        assert found is not None
        oldest = max(oldest, clock.now().timestamp() - found.updated_at_epoch)
    assert written == [1, 0] * 10
    assert oldest <= 120


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.9, 5), min_size=3, max_size=20), st.floats(0, 0.999))
def test_passes_that_come_a_little_early_or_late_leave_no_total_stale(jitter: list[float], fraction: float) -> None:
    store, clock = UnreliableStore(), ManualClock()
    clock.advance(fraction)
    aggregator = Aggregator(store, clock, shard_count_of=lambda org_id: 8)
    Writer(store, clock).write(5)
    intervals = Intervals("adaptive", 300, 60, 60)
    for late in jitter:
        aggregator.run_pass()
        clock.advance(60 + late)
        found = total(store)
        assert found is not None
        assert not total_is_stale(intervals, now_epoch=clock.now().timestamp(), updated_at_epoch=found.updated_at_epoch)


def test_a_changed_total_is_written_at_once(aggregator: Aggregator, store: UnreliableStore, writer: Writer) -> None:
    for number in range(1, 4):
        writer.write(5)
        assert aggregator.run_pass().totals_written == 1
        assert cost(store) == 5 * number


def test_usage_that_costs_nothing_changes_a_total_too(
    aggregator: Aggregator, store: UnreliableStore, writer: Writer
) -> None:
    for number in range(1, 3):
        writer.write(0)
        aggregator.run_pass()
        found = total(store)
        assert found is not None
        assert found.amounts.requests == number


def test_keys_that_are_no_longer_written_are_not_remembered(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock, writer: Writer
) -> None:
    writer.write(5)
    aggregator.run_pass()
    assert set(aggregator.summing.written) == {KEY}
    clock.advance(3 * 3600)
    aggregator.run_pass()
    clock.advance(60)
    aggregator.run_pass()
    assert aggregator.summing.written == {}


# --- failures


Fails = Callable[[str, Any], Exception | None]


def poisoned(which: set[UsageKey], method: str) -> Fails:
    """Requests of this method that touch one of these keys fail."""

    def fails(name: str, subject: Any) -> Exception | None:
        if name != method:
            return None
        return AWAY if which.intersection(subject if isinstance(subject, Mapping) else [subject]) else None

    return fails


@pytest.mark.parametrize("method", ["read_shards", "write_total"])
@pytest.mark.parametrize("bad", [0, 30, KEYS_AT_ONCE - 1, KEYS_AT_ONCE, 2 * KEYS_AT_ONCE + 4])
def test_a_key_that_fails_does_not_keep_the_others_from_their_totals(
    aggregator: Aggregator, store: UnreliableStore, writer: Writer, method: str, bad: int
) -> None:
    keys = [key(number) for number in range(2 * KEYS_AT_ONCE + 5)]
    for each in keys:
        writer.write(5, each)
    store.fails = poisoned({key(bad)}, method)
    with pytest.raises(StoreError):
        aggregator.run_pass()
    assert [each for each in keys if cost(store, each) != 5] == [key(bad)]
    assert aggregator.last_error == str(AWAY)
    assert aggregator.last_pass is None
    store.fails = lambda name, subject: None
    aggregator.run_pass()
    assert cost(store, key(bad)) == 5
    assert aggregator.last_error is None


def test_a_pass_over_a_store_that_is_away_ends_early(
    aggregator: Aggregator, store: UnreliableStore, writer: Writer
) -> None:
    for number in range(10 * KEYS_AT_ONCE):
        writer.write(5, key(number))
    for fails in (
        poisoned({key(number) for number in range(1000)}, method) for method in ("read_shards", "write_total")
    ):
        store.fails = fails
        store.calls.clear()
        with pytest.raises(StoreError):
            aggregator.run_pass()
        assert store.count("read_shards") + store.count("write_total") <= FAILURES_IN_A_ROW + 1


def test_any_number_at_once_leave_the_right_totals(store: UnreliableStore, clock: ManualClock) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def aggregate() -> None:
        aggregator = Aggregator(store, clock, shard_count_of=lambda org_id: 8)
        highest = 0
        try:
            while not stop.is_set():
                aggregator.run_pass()
                seen = cost(store) or 0
                assert seen >= highest
                highest = seen
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=aggregate) for _ in range(4)]
    for thread in threads:
        thread.start()
    writers = [Writer(store, clock, shard) for shard in range(8)]
    for _ in range(50):
        for each in writers:
            each.write(1)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert failures == []
    Aggregator(store, clock, shard_count_of=lambda org_id: 8).run_pass()
    assert cost(store) == 400


# --- pass after pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: tenacity.wait_fixed(0.001))


def test_it_runs_until_it_is_stopped_through_errors_and_recovery(
    store: UnreliableStore, clock: ManualClock, writer: Writer, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    aggregator = Aggregator(store, clock, shard_count_of=lambda org_id: 8, interval_secs=0.001)
    writer.write(5)
    stop = threading.Event()
    thread = threading.Thread(target=aggregator.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: cost(store) == 5)
        store.go_away()
        wait_until(lambda: aggregator.last_error is not None and "no daily totals since 3 tries" in caplog.text)
        writer.write(5)
        store.come_back()
        wait_until(lambda: cost(store) == 10 and aggregator.last_error is None)
        assert "1 keys, 1 totals written" in caplog.text
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_it_stops_while_the_store_is_away(
    store: UnreliableStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    aggregator = Aggregator(store, clock, shard_count_of=lambda org_id: 8, interval_secs=1000)
    store.go_away()
    stop = threading.Event()
    thread = threading.Thread(target=aggregator.run, args=(stop,))
    thread.start()
    wait_until(lambda: store.count("active_keys") >= 1)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert "stopping with a pass undone: the store is away" in caplog.text


def test_a_pass_is_waited_for_only_for_what_is_left_of_the_interval(store: UnreliableStore, clock: ManualClock) -> None:
    waits: list[float | None] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            if len(waits) == 2:
                self.set()
            return self.is_set()

    slowness = [20, 90]

    def slow(name: str, subject: object) -> None:
        if name == "active_keys":
            clock.advance(slowness.pop(0))

    store.fails = slow
    Aggregator(store, clock, shard_count_of=lambda org_id: 8, interval_secs=60).run(Stop())
    assert waits == [40, 0]


def test_health_is_a_pass_within_three_intervals(
    aggregator: Aggregator, store: UnreliableStore, clock: ManualClock
) -> None:
    healthy, figures = aggregator.health()
    assert not healthy
    assert figures == {
        "status": "failing",
        "lag_secs": None,
        "partition": "1/1",
        "last_pass": None,
        "age_secs": None,
        "last_error": None,
    }
    aggregator.run_pass()
    clock.advance(180)
    healthy, figures = aggregator.health()
    assert healthy
    assert figures["status"] == "ok"
    assert figures["age_secs"] == 180
    store.go_away()
    with pytest.raises(StoreError):
        aggregator.run_pass()
    clock.advance(1)
    healthy, figures = aggregator.health()
    assert not healthy
    assert figures["last_error"] == "the store is away"
    json.dumps(figures)


# --- making one, and AWS Lambda


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "budget.db"


@pytest.fixture
def budget(tmp_path: Path) -> Path:
    path = tmp_path / "budget.yaml"
    path.write_text(
        """
        model_labels: {premium: {id: amazon.nova-micro-v1:0}}
        metering: {usage_agg_shard_count: 4, aggregator_interval_secs: 7}
        org_defaults: {timezone: UTC, model_ordering: [premium], quotas: {premium: null}}
        orgs: {acme: {agg_shard_count: 16}}
        """
    )
    return path


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BEDROCK_BUDGET_STORE", "BEDROCK_BUDGET_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_the_interval_and_the_shard_counts_come_from_the_configuration(
    no_environment: None, database: Path, budget: Path
) -> None:
    url = f"sqlite:///{database}"
    made = aggregator_for(url, str(budget))
    assert made.interval_secs == 7
    assert made.summing.shards(KEY) == 16
    assert made.summing.shards(KEY._replace(scope="ORG#other")) == 4
    assert aggregator_for(url, str(budget), 3.5).interval_secs == 3.5
    plain = aggregator_for(url, None)
    assert plain.interval_secs == 60
    assert plain.summing.shards(KEY) == 8
    with pytest.raises(ConfigError):
        aggregator_for(url, "no/such/file.yaml")


def test_a_lambda_container_keeps_its_aggregator(
    no_environment: None, database: Path, budget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEDROCK_BUDGET_STORE", f"sqlite:///{database}")
    monkeypatch.setenv("BEDROCK_BUDGET_CONFIG", str(budget))
    monkeypatch.setattr(aggregator_module, "_in_lambda", None)
    store = SQLiteStore(database)
    Writer(store, ManualClock(SystemClock().now())).write(5)
    first = lambda_handler({}, None)
    kept = aggregator_module._in_lambda
    second = lambda_handler({}, None)
    assert aggregator_module._in_lambda is kept
    assert (first["keys"], first["totals_written"]) == (1, 1)
    assert (second["keys"], second["totals_written"]) == (1, 0)
    json.dumps(second)
    assert store.read_totals([KEY])[KEY].amounts.cost_pico_usd == 5
    store.close()
    database.unlink()
    database.mkdir()  # no file any more
    monkeypatch.setattr(aggregator_module, "_in_lambda", None)
    with pytest.raises(StoreError):
        lambda_handler({}, None)


# --- the command, in this process


def test_once_does_one_pass(no_environment: None, database: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert main(["--store", f"sqlite:///{database}", "--once"]) == 0
    assert "0 keys, 0 totals written" in caplog.text


def test_a_store_that_fails_is_exit_code_1_and_a_mistake_2(
    no_environment: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", f"sqlite:///{tmp_path}/no/such/folder/budget.db", "--once"]) == 1
    assert "error: " in capsys.readouterr().err
    assert main(["--store", "ftp://nowhere", "--once"]) == 2
    assert "ftp" in capsys.readouterr().err
    assert main(["--store", "memory://", "--once"]) == 2
    assert "private to one client" in capsys.readouterr().err
    assert main(["--store", f"sqlite:///{tmp_path}/budget.db", "--config", "no/such/file.yaml"]) == 2
    assert "no/such/file.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--interval", "0"],
        ["--interval", "nan"],
        ["--interval", "inf"],
        ["--interval", "soon"],
        ["--health-port", "65536"],
        ["--health-port", "-1"],
        ["--nonsense"],
        ["more"],
    ],
)
def test_bad_arguments_are_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--store", "memory://", *arguments])
    assert ended.value.code == 2
    assert arguments[0].lstrip("-") in capsys.readouterr().err


def test_a_port_that_is_taken_is_an_error_and_no_traceback(
    no_environment: None, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        try:
            assert main(["--store", f"sqlite:///{database}", "--health-port", str(port)]) == 1
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    assert f"port {port}" in capsys.readouterr().err


# --- the command, as a process


@pytest.fixture
def start(database: Path, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "bedrock_budget.aggregator", "--store", f"sqlite:///{database}", *arguments],
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                env={name: value for name, value in os.environ.items() if not name.startswith("BEDROCK_BUDGET")},
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


Start = Callable[..., "subprocess.Popen[str]"]


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """The first line of the log that has this text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without saying {text!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start: Start, number: signal.Signals) -> None:
    process = start("--interval", "1000")
    read_until(process, "totals written")
    process.send_signal(number)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "stopped" in log
    assert "Traceback" not in log


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_its_health_can_be_asked_for_on_loopback(start: Start, database: Path) -> None:
    store = SQLiteStore(database)
    Writer(store, ManualClock(SystemClock().now())).write(5)
    store.close()
    process = start("--interval", "0.5", "--health-port", "0")
    found = re.search(r"http://127\.0\.0\.1:(\d+)/healthz", read_until(process, "/healthz"))
    assert found is not None
    port = int(found[1])
    read_until(process, "totals written")
    status, body = ask(port, "/healthz")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    assert ask(port, "/other")[0] == 404
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # nobody else can write
        wait_until(lambda: ask(port, "/healthz")[0] == 503, timeout=20)
        status, body = ask(port, "/healthz")
        assert json.loads(body)["status"] == "failing"
    wait_until(lambda: ask(port, "/healthz")[0] == 200, timeout=20)
    process.terminate()
    assert process.wait(20) == 0

"""Store outages through the whole client, over HTTP: calls go on, and once it is over usage is there exactly once."""

import itertools
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any

import pytest
import tenacity
from botocore.config import Config
from doubles import stored, wait_until
from engines import proxy
from engines.fixtures import REGION
from metered import PRICES, metered, record_of, served

from bedrock_budget import PriceKeeperClient
from bedrock_budget import keeper as keeper_module
from bedrock_budget import meter as meter_module
from bedrock_budget.core.account import ZERO, Amounts
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.money import usd_text
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DynamoDBStore, StoreSetupError, dynamodb_calls
from bedrock_budget.stores.tables import create_tables, delete_tables
from bedrock_budget.testing import LocalBedrock, ManualClock

DAY = "20260115"  # of the manual clock
APPS = ("chat", "search")
TRUNCATED = proxy.Answer(b'{"Attributes": {"v"')
THROTTLED = proxy.answer_error("ProvisionedThroughputExceededException")
HTML = b"<html><body>busy</body></html>"

#: What the store answers to everything while it is out.
ANSWERS: dict[str, proxy.Answer | str] = {
    "connection lost": proxy.DROP_REQUEST,
    "reply lost": proxy.DROP_REPLY,
    "throughput exceeded": THROTTLED,
    "throttled": proxy.answer_error("ThrottlingException"),
    "request limit exceeded": proxy.answer_error("RequestLimitExceeded"),
    "500 html": proxy.Answer(HTML, 500, "text/html"),
    "503 html": proxy.Answer(HTML, 503, "text/html"),
    "200 truncated": TRUNCATED,
    "token expired": proxy.answer_error("ExpiredTokenException"),
}
every_answer = pytest.mark.parametrize("answer", list(ANSWERS.values()), ids=list(ANSWERS))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Background writes many times a second, short time-outs, and no waiting between botocore's attempts."""
    monkeypatch.setattr(meter_module, "FLUSH_SECS", 0.02)
    monkeypatch.setattr(meter_module, "HURRY_SECS", 0.01)
    monkeypatch.setattr(keeper_module, "CLOSE_SECS", 0.2)
    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: tenacity.wait_fixed(0.01))
    monkeypatch.setattr("botocore.retries.standard.RetryPolicy.compute_retry_delay", lambda *_: 0)
    config = Config(connect_timeout=1, read_timeout=0.2, retries={"total_max_attempts": 2, "mode": "standard"})
    monkeypatch.setattr(dynamodb_calls, "_CONFIG", config)


class Program:
    """A program of two apps whose store is behind a proxy. It adds up what its calls were told."""

    def __init__(self, server: LocalBedrock, between: proxy.Proxy, prefix: str, engine: DynamoDBStore) -> None:
        self.server = server
        self.between = between
        self.engine = engine  # the same tables, not through the proxy
        self.clock = ManualClock()
        self.told = dict.fromkeys(APPS, ZERO)
        self.bedrock: PriceKeeperClient
        self._url = f"dynamodb://?region={REGION}&prefix={prefix}&endpoint_url={between.url}"
        self._client = server.client()
        self._number = itertools.count(1)
        self._views: dict[str, PriceKeeperClient] = {}

    def start(self, on_store_error: int | str = "open") -> None:
        self.bedrock = metered(
            self.server, client=self._client, clock=self.clock, store=self._url, on_store_error=on_store_error
        )
        self._views = {app: self.bedrock.for_app(app) for app in APPS}

    def start_well(self) -> None:
        """Start while the store is up, with a call of each app written."""
        self.start()
        assert self.degraded() == {False}
        assert self.bedrock.flush(timeout=10)

    def call(self, app: str = APPS[0]) -> dict[str, Any]:
        """One call, of another cost than the one before. Returns its record."""
        text = "word" * (1 + next(self._number) % 7)
        answer = self._views[app].converse(messages=[{"role": "user", "content": [{"text": text}]}])
        record = record_of(answer)
        told = Amounts(record["cost_pico_usd"], Usage(**record["usage"]), 1)
        self.told[app] = self.told[app].plus(told)
        return record

    def degraded(self) -> set[bool]:
        """One call of each app: what they say of the store."""
        return {self.call(app)["degraded"] for app in APPS}

    def run_into_outage(self, operations: Collection[str] = ("UpdateItem", "BatchGetItem")) -> None:
        """Call until both apps know, then until the store has been asked again: calls go on, and say so."""
        wait_until(lambda: self.degraded_as_looks_become_due() == {True})
        self.between.requests.clear()

        def asked_again() -> bool:
            assert self.degraded_as_looks_become_due() == {True}
            return all(self.between.count(operation) >= 3 for operation in operations)

        wait_until(asked_again)

    def recover(self) -> None:
        """Call until both apps know that the store is back, and then some more."""
        wait_until(lambda: not any(self.is_refused(app) for app in APPS))
        wait_until(lambda: self.degraded_as_looks_become_due() == {False})
        for _ in range(5):
            assert self.degraded() == {False}

    def degraded_as_looks_become_due(self) -> set[bool]:
        self.clock.advance(1)
        return self.degraded()

    def is_refused(self, app: str = APPS[0]) -> bool:
        """Whether the store's absence keeps a call of this app from being made."""
        self.clock.advance(1)
        sent = len(self.server.ledger)
        try:
            self.call(app)
        except StoreError:
            assert len(self.server.ledger) == sent
            return True
        return False

    def recover_and_check(self) -> None:
        """The store comes back: all agree on every call, once each."""
        self.between.rule = lambda _: proxy.FORWARD
        self.recover()
        self.check_nothing_is_lost_or_doubled()

    def shards(self) -> dict[str, Amounts]:
        return {app: stored(self.engine, UsageKey(f"ORG#acme#APP#{app}", "premium", DAY)) for app in APPS}

    def check_nothing_is_lost_or_doubled(self) -> None:
        assert self.bedrock.flush(timeout=10)
        assert self.shards() == self.told
        billed = sum(told.cost_pico_usd for told in self.told.values())
        assert self.server.ledger.cost_pico_usd(PRICES) == billed > 0
        assert len(served(self.server)) == sum(told.requests for told in self.told.values())

    def end(self) -> None:
        if self._views:
            self.bedrock.close()
            self.bedrock._keeper.store.close()
        self._client.close()


@pytest.fixture
def between(dynamodb_endpoint: str) -> Iterator[proxy.Proxy]:
    """A proxy before the engine, as yet without faults."""
    with proxy.running(dynamodb_endpoint) as running:
        yield running


@pytest.fixture
def program(
    local_bedrock: LocalBedrock, between: proxy.Proxy, table_prefix: str, dynamodb_store: DynamoDBStore
) -> Iterator[Program]:
    """A program that has not started yet."""
    program = Program(local_bedrock, between, table_prefix, dynamodb_store)
    yield program
    between.rule = lambda _: proxy.FORWARD
    program.end()


# --- away and back


@every_answer
def test_a_store_that_is_away_at_the_start(program: Program, answer: proxy.Answer | str) -> None:
    program.between.rule = lambda _: answer
    program.start()
    assert program.degraded() == {True}  # from the first call on
    program.run_into_outage()
    program.recover_and_check()


@every_answer
def test_a_store_that_goes_away_in_the_middle(program: Program, answer: proxy.Answer | str) -> None:
    program.start_well()
    program.between.rule = lambda _: answer
    program.run_into_outage()
    program.recover_and_check()


@pytest.mark.parametrize("ending", ["flush", "close"])
@pytest.mark.parametrize("name", ["connection lost", "reply lost", "throughput exceeded"])
def test_a_store_that_is_away_at_the_end(
    program: Program, name: str, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    program.start_well()
    written = sum(told.cost_pico_usd for told in program.told.values())
    program.between.rule = lambda _: ANSWERS[name]
    for app in APPS:
        program.call(app)
    with caplog.at_level(logging.ERROR, "bedrock_budget"):
        program.bedrock.close()
    left = usd_text(sum(told.cost_pico_usd for told in program.told.values()) - written)
    (message,) = [each.getMessage() for each in caplog.records if "could not be written" in each.getMessage()]
    assert message.startswith(f"usage of {left} for 2 (scope, label, day) could not be written in time: ")
    program.between.rule = lambda _: proxy.FORWARD
    for _ in range(2):  # the second time there is nothing to write
        program.bedrock.close() if ending == "close" else program.bedrock.flush(timeout=10)
        assert program.shards() == program.told
    program.call()  # a client that is closed writes at once
    assert program.shards() == program.told
    program.check_nothing_is_lost_or_doubled()


# --- a part of it


@pytest.mark.parametrize("operations", [{"UpdateItem"}, {"BatchGetItem"}], ids=["writes", "reads"])
def test_a_store_of_which_only_a_part_is_throttled(program: Program, operations: set[str]) -> None:
    program.start_well()
    program.between.rule = lambda request: THROTTLED if request.operation in operations else proxy.FORWARD
    program.run_into_outage(operations)
    program.recover_and_check()


def test_an_answer_cut_off_after_the_write_was_applied(program: Program, dynamodb_client: Any) -> None:
    program.start_well()
    applied = 0

    def rule(request: proxy.Request) -> proxy.Answer | str:
        nonlocal applied
        if request.operation != "UpdateItem":
            return proxy.FORWARD
        with suppress(dynamodb_client.exceptions.ConditionalCheckFailedException):  # raised for a repetition
            dynamodb_client.update_item(**request.parameters)
            applied += 1
        return TRUNCATED

    program.between.rule = rule
    program.run_into_outage()
    assert applied == len(APPS)  # one batch of each stays in flight, whatever came after it
    program.recover_and_check()


# --- late


def test_a_store_that_never_answers_until_it_applies_everything_late(program: Program) -> None:
    program.start_well()
    opened = threading.Event()

    def rule(_: proxy.Request) -> str:
        opened.wait(20)
        return proxy.FORWARD

    program.between.rule = rule
    program.run_into_outage()
    opened.set()  # the same batches have come in more than once
    program.recover_and_check()


def test_calls_neither_wait_for_a_slow_store_nor_call_it_away(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamodb_calls, "_CONFIG", Config(read_timeout=30, retries={"total_max_attempts": 1}))
    program.start_well()
    before = program.shards()
    opened = threading.Event()
    program.between.rule = lambda _: proxy.FORWARD if opened.wait(20) else proxy.DROP_REQUEST
    program.between.requests.clear()
    program.call()
    wait_until(lambda: program.between.count("UpdateItem"))
    for _ in range(20):
        assert program.degraded() == {False}
    assert program.shards() == before  # all of these returned while the store kept its first answer back
    opened.set()
    program.check_nothing_is_lost_or_doubled()
    assert program.degraded() == {False}


# --- on_store_error


def test_a_closed_client_refuses_calls_for_as_long_as_the_store_is_away(program: Program) -> None:
    program.start(on_store_error="closed")
    program.call()
    program.between.rule = lambda _: THROTTLED
    wait_until(program.is_refused)
    with pytest.raises(StoreError, match="on_store_error is 'closed'"):
        program.call()
    program.recover_and_check()


def test_an_amount_is_spent_blind_in_each_scope_and_no_more(program: Program) -> None:
    allowed = 2_000  # USD micros: several calls
    program.between.rule = lambda _: proxy.DROP_REQUEST
    program.start(on_store_error=allowed)
    for app in APPS:
        spent = 0
        while spent < allowed * 10**6:
            spent += program.call(app)["cost_pico_usd"]
        with pytest.raises(StoreError, match=r"on_store_error allows \$0\.002"):
            program.call(app)
    program.recover_and_check()


# --- tables that are not there


@pytest.mark.parametrize("which", ["usage", "all"])
def test_tables_deleted_in_the_middle_and_created_again(
    program: Program, dynamodb_client: Any, table_prefix: str, which: str
) -> None:
    program.start_well()
    delete: dict[str, Callable[[], object]] = {
        "usage": lambda: dynamodb_client.delete_table(TableName=f"{table_prefix}UsageAggSharded"),
        "all": lambda: delete_tables(dynamodb_client, table_prefix),
    }
    delete[which]()
    gone = dict(program.told)
    program.run_into_outage()
    create_tables(dynamodb_client, table_prefix)
    program.recover()
    assert program.bedrock.flush(timeout=10)
    # What the deleted table held is gone with it; all that came later is there.
    assert {app: gone[app].plus(found) for app, found in program.shards().items()} == program.told


def test_tables_missing_from_the_start_stop_every_call_until_they_are_created(
    program: Program, dynamodb_client: Any, table_prefix: str
) -> None:
    delete_tables(dynamodb_client, table_prefix)
    program.start()
    for app in APPS:
        with pytest.raises(StoreSetupError, match="bedrock-budget tables create"):
            program.call(app)
    assert served(program.server) == []
    create_tables(dynamodb_client, table_prefix)
    program.recover_and_check()

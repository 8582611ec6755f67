"""The boto3 clients of the DynamoDB store: given or made, per process, one for all threads."""

import os
import signal
from typing import Any

import boto3
import pytest
from engines.fixtures import REGION
from stores.batches import DAY, NOW, amounts, batch, new_writer, times
from stores.threads import in_threads

from bedrock_budget.core.keys import UsageKey
from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.stores.dynamodb_calls import DynamoDBCalls

KEY = UsageKey("ORG#acme#APP#chat", "premium", DAY)


def test_a_given_client_is_used_and_stays_open(dynamodb_client: Any, dynamodb_endpoint: str, table_prefix: str) -> None:
    store = DynamoDBStore(dynamodb_client, prefix=table_prefix)
    assert store.url == f"dynamodb://?region=us-east-1&prefix={table_prefix}&endpoint_url={dynamodb_endpoint}"
    store.write_batch(batch(KEY, new_writer(), 1), now_epoch=NOW)
    store.close()
    assert store.read_shards({KEY: 8})[KEY].amounts == amounts()


def test_the_url_of_an_aws_client_needs_no_endpoint(aws_credentials: None) -> None:
    client = boto3.client("dynamodb", region_name="eu-west-1")
    assert DynamoDBStore(client).url == "dynamodb://?region=eu-west-1&prefix=bedrock-budget-"
    client.close()


def test_a_client_made_from_a_url_is_impatient(aws_credentials: None) -> None:
    store = DynamoDBStore(region="eu-west-1")
    config: Any = store._calls._client().meta.config
    assert (config.connect_timeout, config.read_timeout) == (1, 2)
    assert (config.retries["mode"], config.retries["total_max_attempts"]) == ("standard", 2)
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("given", [True, False])
def test_a_child_opens_connections_of_its_own(
    dynamodb_client: Any, dynamodb_endpoint: str, table_prefix: str, given: bool
) -> None:
    if given:
        store = DynamoDBStore(dynamodb_client, prefix=table_prefix)
    else:
        store = DynamoDBStore(region="us-east-1", prefix=table_prefix, endpoint_url=dynamodb_endpoint)
    store.write_batch(batch(KEY, new_writer(), 1), now_epoch=NOW)
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(30)
            for _ in range(20):
                store.write_batch(batch(KEY, new_writer(), 1), now_epoch=NOW)
            status = 0
        finally:
            os._exit(status)
    for _ in range(20):
        store.write_batch(batch(KEY, new_writer(), 1), now_epoch=NOW)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read_shards({KEY: 8})[KEY].amounts == times(amounts(), 41)
    store.close()


def test_a_given_clients_connections_are_dropped_in_a_child(
    dynamodb_endpoint: str, table_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=dynamodb_endpoint)
    store = DynamoDBStore(client, prefix=table_prefix)
    store.write_batch(batch(KEY, new_writer(), 1), now_epoch=NOW)
    closed: list[bool] = []
    real_close, real_pid = client.close, os.getpid()

    def close() -> None:
        closed.append(True)
        real_close()

    monkeypatch.setattr(client, "close", close)
    monkeypatch.setattr(os, "getpid", lambda: real_pid + 1)  # as in a child
    for _ in range(2):
        store.write_batch(batch(KEY, new_writer(), 1), now_epoch=NOW)
    assert closed == [True]
    monkeypatch.undo()
    client.close()


def test_threads_make_one_client_between_them(aws_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    store = DynamoDBStore(region=REGION)
    real = DynamoDBCalls._make_client

    def make(calls: DynamoDBCalls) -> Any:
        made.append(calls)
        return real(calls)

    monkeypatch.setattr(DynamoDBCalls, "_make_client", make)
    in_threads(8, lambda _: store._calls._client())
    assert len(made) == 1
    store.close()

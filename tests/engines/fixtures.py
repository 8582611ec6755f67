"""Fixtures: a DynamoDB engine for the session and stores with tables of their own in it."""

import itertools
import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from engines import dynoxide

from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.stores.tables import create_tables

REGION = "us-east-1"

#: No test may find the credentials or settings of whoever runs it.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anything",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")

_prefixes = itertools.count(1)


@pytest.fixture(scope="session")
def aws_credentials() -> Iterator[None]:
    """Credentials that the engine takes and AWS does not."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        for name in _UNSET:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def dynamodb_endpoint(aws_credentials: None) -> Iterator[str]:
    """The URL of a DynamoDB engine. Skips where there is none, but fails in CI."""
    try:
        with dynoxide.running() as url:
            yield url
    except dynoxide.EngineUnavailable as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no DynamoDB engine: {exc}")
        pytest.skip(f"no DynamoDB engine: {exc}")


@pytest.fixture(scope="session")
def dynamodb_client(dynamodb_endpoint: str) -> Iterator[Any]:
    """A plain boto3 client of the engine."""
    client = boto3.client("dynamodb", region_name=REGION, endpoint_url=dynamodb_endpoint)
    yield client
    client.close()


@pytest.fixture
def table_prefix(dynamodb_client: Any) -> str:
    """The prefix of tables of this test's own, created and empty."""
    prefix = f"test{os.getpid()}-{next(_prefixes)}-"
    create_tables(dynamodb_client, prefix)
    return prefix


@pytest.fixture
def dynamodb_store(dynamodb_endpoint: str, table_prefix: str) -> Iterator[DynamoDBStore]:
    """A store on tables of its own."""
    store = DynamoDBStore(region=REGION, prefix=table_prefix, endpoint_url=dynamodb_endpoint)
    yield store
    store.close()

"""Creating, describing and deleting the DynamoDB tables."""

import itertools
import os
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from engines import proxy
from stores.threads import in_threads

from bedrock_budget.core.errors import ConfigError, StoreError
from bedrock_budget.stores import StoreSetupError, tables
from bedrock_budget.stores.tables import TABLES, USAGE, create_tables, delete_tables, describe_tables

NAMES = ("Config", "StickyState", "UsageAggSharded", "DailyTotal", "Leases", "PricingCache")

_prefixes = itertools.count(1)


@pytest.fixture
def prefix() -> str:
    """A prefix without tables."""
    return f"tables{os.getpid()}-{next(_prefixes)}-"


def physical(prefix: str) -> tuple[str, ...]:
    return tuple(prefix + name for name in NAMES)


def test_tables_have_the_specified_keys(dynamodb_client: Any, prefix: str) -> None:
    create_tables(dynamodb_client, prefix)
    keys = {}
    for name in NAMES:
        found = dynamodb_client.describe_table(TableName=prefix + name)["Table"]
        keys[name] = [(entry["AttributeName"], entry["KeyType"]) for entry in found["KeySchema"]]
        assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert keys == {
        "Config": [("org_key", "HASH"), ("resource_key", "RANGE")],
        "StickyState": [("scope_key", "HASH"), ("date_key", "RANGE")],
        "UsageAggSharded": [("shard_key", "HASH"), ("date_key", "RANGE")],
        "DailyTotal": [("usage_key", "HASH"), ("date_key", "RANGE")],
        "Leases": [("lease_key", "HASH"), ("date_key", "RANGE")],
        "PricingCache": [("model_id", "HASH"), ("price_key", "RANGE")],
    }
    (index,) = dynamodb_client.describe_table(TableName=f"{prefix}UsageAggSharded")["Table"]["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "active_hour-index"
    assert index["KeySchema"] == [{"AttributeName": "active_hour", "KeyType": "HASH"}]
    assert index["Projection"]["ProjectionType"] == "KEYS_ONLY"
    for name in ("Config", "StickyState", "Leases", "PricingCache"):
        ttl = dynamodb_client.describe_time_to_live(TableName=prefix + name)["TimeToLiveDescription"]
        assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires_at_epoch")


def test_creating_and_deleting_are_idempotent_and_say_what_they_did(dynamodb_client: Any, prefix: str) -> None:
    assert create_tables(dynamodb_client, prefix) == (physical(prefix), (), ())
    assert create_tables(dynamodb_client, prefix) == ((), physical(prefix), ())
    dynamodb_client.delete_table(TableName=f"{prefix}DailyTotal")
    created, existed, _ = create_tables(dynamodb_client, prefix)
    assert created == (f"{prefix}DailyTotal",)
    assert len(existed) == 5
    assert delete_tables(dynamodb_client, prefix) == physical(prefix)
    assert delete_tables(dynamodb_client, prefix) == ()


def test_several_may_create_the_tables_at_once(dynamodb_client: Any, prefix: str) -> None:
    in_threads(4, lambda _: create_tables(dynamodb_client, prefix))
    assert all(state.problem is None for state in describe_tables(dynamodb_client, prefix))


def test_a_table_with_other_keys_is_an_error_that_names_the_difference(dynamodb_client: Any, prefix: str) -> None:
    dynamodb_client.create_table(
        TableName=f"{prefix}DailyTotal",
        AttributeDefinitions=[{"AttributeName": "usage_key", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "usage_key", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    told = (
        rf"table {prefix}DailyTotal has the key usage_key \(partition\), "
        r"not usage_key \(partition\) \+ date_key \(sort\)"
    )
    with pytest.raises(StoreSetupError, match=told):
        create_tables(dynamodb_client, prefix)
    with pytest.raises(ClientError):  # nothing was created
        dynamodb_client.describe_table(TableName=f"{prefix}Config")
    states = {state.name: state for state in describe_tables(dynamodb_client, prefix)}
    assert "has the key" in str(states[f"{prefix}DailyTotal"].problem)
    assert delete_tables(dynamodb_client, prefix) == ()
    dynamodb_client.describe_table(TableName=f"{prefix}DailyTotal")  # another program's: left alone


def test_a_key_of_another_type_is_an_error(dynamodb_client: Any, prefix: str) -> None:
    dynamodb_client.create_table(
        TableName=f"{prefix}DailyTotal",
        AttributeDefinitions=[
            {"AttributeName": "usage_key", "AttributeType": "S"},
            {"AttributeName": "date_key", "AttributeType": "N"},
        ],
        KeySchema=tables.DAILY_TOTAL.key.schema,
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(StoreSetupError, match="date_key of type N, not S"):
        create_tables(dynamodb_client, prefix)


def test_what_a_table_lacks_is_added(dynamodb_client: Any, prefix: str) -> None:
    for table in (USAGE, tables.STICKY_STATE):
        dynamodb_client.create_table(
            TableName=prefix + table.name,
            AttributeDefinitions=[entry for entry in table.attributes if entry["AttributeName"] != "active_hour"],
            KeySchema=table.key.schema,
            BillingMode="PAY_PER_REQUEST",
        )
    problems = {state.name.removeprefix(prefix): state.problem for state in describe_tables(dynamodb_client, prefix)}
    assert "lacks the index active_hour-index" in str(problems["UsageAggSharded"])
    assert "does not expire" in str(problems["StickyState"])
    assert "does not exist; run: bedrock-budget tables create" in str(problems["Config"])
    completed = create_tables(dynamodb_client, prefix).completed
    assert completed == (f"expiry of {prefix}StickyState", f"index active_hour-index of {prefix}UsageAggSharded")
    assert {state.problem for state in describe_tables(dynamodb_client, prefix)} == {None}


def test_an_index_with_another_key_is_an_error(dynamodb_client: Any, prefix: str) -> None:
    dynamodb_client.create_table(
        TableName=f"{prefix}UsageAggSharded",
        AttributeDefinitions=USAGE.attributes[:2],
        KeySchema=USAGE.key.schema,
        BillingMode="PAY_PER_REQUEST",
        GlobalSecondaryIndexes=[
            {
                "IndexName": "active_hour-index",
                "KeySchema": [{"AttributeName": "date_key", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )
    with pytest.raises(StoreSetupError, match=r"index active_hour-index .* has the key date_key"):
        create_tables(dynamodb_client, prefix)


def test_describing_shows_each_table(dynamodb_client: Any, table_prefix: str) -> None:
    states = describe_tables(dynamodb_client, table_prefix)
    assert tuple(state.name for state in states) == physical(table_prefix)
    assert {(state.status, state.item_count, state.problem) for state in states} == {("ACTIVE", 0, None)}


def test_a_table_that_is_not_ready_is_waited_for_within_bounds(
    dynamodb_endpoint: str, dynamodb_client: Any, table_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "READY_TIMEOUT_SECS", 0.0)
    description = dynamodb_client.describe_table(TableName=f"{table_prefix}Config")["Table"]
    description = {**description, "TableStatus": "UPDATING", "CreationDateTime": 1}

    def updating(request: proxy.Request) -> proxy.Answer | str:
        if request.operation == "DescribeTable" and request.parameters["TableName"].endswith("Config"):
            return proxy.answer_json({"Table": description})
        return proxy.FORWARD

    with proxy.running(dynamodb_endpoint, updating) as slow:
        client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=slow.url)
        assert describe_tables(client, table_prefix)[0].problem == "is not ready yet; wait"
        with pytest.raises(StoreError, match="not ready after"):
            create_tables(client, table_prefix)
        with pytest.raises(StoreError, match="not deleted after"):
            delete_tables(client, table_prefix)
        client.close()


def test_refusals_name_the_action_and_the_table(aws_credentials: None, prefix: str) -> None:
    with proxy.running(rule=lambda _: proxy.answer_error("AccessDeniedException")) as denying:
        client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=denying.url)
        with pytest.raises(StoreSetupError, match=rf"allow dynamodb:DescribeTable on {prefix}Config in IAM"):
            create_tables(client, prefix)
        client.close()


def test_a_prefix_that_no_table_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="letters"):
        create_tables(None, "a b")  # type: ignore[arg-type]
    assert len(TABLES) == 6


def test_a_table_made_by_another_program_in_the_meantime_is_checked(
    dynamodb_endpoint: str, dynamodb_client: Any, prefix: str
) -> None:
    def create_another(request: proxy.Request) -> proxy.Answer | str:
        if request.operation == "CreateTable" and request.parameters["TableName"].endswith("Config"):
            dynamodb_client.create_table(
                TableName=f"{prefix}Config",
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        return proxy.FORWARD

    with proxy.running(dynamodb_endpoint, create_another) as racing:
        client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=racing.url)
        with pytest.raises(StoreSetupError, match=r"Config has the key id \(partition\), not org_key"):
            create_tables(client, prefix)
        client.close()


# --- the stream


def stream(client: Any, prefix: str) -> Any:
    return client.describe_table(TableName=f"{prefix}UsageAggSharded")["Table"].get("StreamSpecification")


def test_the_usage_table_gets_a_stream_once_and_only_if_asked_for(dynamodb_client: Any, prefix: str) -> None:
    create_tables(dynamodb_client, prefix)
    assert not (stream(dynamodb_client, prefix) or {}).get("StreamEnabled")
    assert create_tables(dynamodb_client, prefix, stream=True).completed == (f"stream of {prefix}UsageAggSharded",)
    wanted = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    assert stream(dynamodb_client, prefix) == wanted
    for again in (True, False):
        assert create_tables(dynamodb_client, prefix, stream=again) == ((), physical(prefix), ())
        assert stream(dynamodb_client, prefix) == wanted
    delete_tables(dynamodb_client, prefix)
    assert create_tables(dynamodb_client, prefix, stream=True) == (physical(prefix), (), ())
    assert stream(dynamodb_client, prefix) == wanted


def test_another_programs_stream_stays_as_it_is(dynamodb_client: Any, prefix: str) -> None:
    create_tables(dynamodb_client, prefix)
    keys_only = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    dynamodb_client.update_table(TableName=f"{prefix}UsageAggSharded", StreamSpecification=keys_only)
    assert create_tables(dynamodb_client, prefix, stream=True).completed == ()
    assert stream(dynamodb_client, prefix) == keys_only


def test_a_missing_index_and_a_missing_stream_are_added_in_one_go(dynamodb_client: Any, prefix: str) -> None:
    dynamodb_client.create_table(
        TableName=f"{prefix}UsageAggSharded",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("shard_key", "date_key")],
        KeySchema=USAGE.key.schema,
        BillingMode="PAY_PER_REQUEST",
    )
    name = f"{prefix}UsageAggSharded"
    done = create_tables(dynamodb_client, prefix, stream=True).completed
    assert done == (f"index active_hour-index of {name}", f"stream of {name}")

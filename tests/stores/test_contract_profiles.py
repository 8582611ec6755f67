"""One suite for all stores: what `stores/contract.py` promises of registered inference profiles."""

from datetime import UTC, datetime
from typing import Any

import pytest
from stores.batches import NOW

from bedrock_budget.core.errors import ConfigError
from bedrock_budget.stores import DynamoDBStore, MemoryStore, Profile, Store, StoreSetupError, UnreadableItem

AT = int(NOW)
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr"
OTHER = ARN[:-1] + "x"
OF_ORG = Profile(None, "premium", ARN, "", AT, AT)
OF_CHAT = Profile("chat", "premium", OTHER, "for tenant A, ünïcode", AT, AT + 1)


def test_profiles_are_the_orgs_and_the_apps(store: Store) -> None:
    assert store.profiles("acme", "chat") == []
    store.put_profile("acme", OF_CHAT)
    store.put_profile("acme", OF_ORG)
    first = Profile("chat", "a-label", ARN, "", AT, AT)
    store.put_profile("acme", first)
    assert store.profiles("acme", "chat") == [OF_ORG, first, OF_CHAT]
    assert store.profiles("acme", "other") == [OF_ORG]
    assert store.profiles("acme", None) == [OF_ORG]
    assert store.profiles("emca", "chat") == []


def test_a_profile_takes_the_place_of_an_earlier_one_and_keeps_its_age(store: Store) -> None:
    store.put_profile("acme", OF_CHAT)
    changed = Profile("chat", "premium", ARN, "", AT + 500, AT + 500)
    for _ in range(2):
        store.put_profile("acme", changed)
        assert store.profiles("acme", "chat") == [changed._replace(created_at_epoch=AT)]


def test_a_removed_profile_is_gone(store: Store) -> None:
    store.put_profile("acme", OF_ORG)
    store.put_profile("acme", OF_CHAT)
    assert store.remove_profile("acme", "chat", "premium")
    assert not store.remove_profile("acme", "chat", "premium")
    assert store.profiles("acme", "chat") == [OF_ORG]
    assert not store.remove_profile("acme", None, "economy")
    assert store.remove_profile("acme", None, "premium")
    assert store.profiles("acme", "chat") == []


def test_profiles_are_no_apps_and_no_controls(store: Store) -> None:
    store.put_profile("acme", OF_ORG)
    store.put_profile("acme", OF_CHAT)
    assert store.app_ids("acme") == []
    assert store.stops("acme", now_epoch=NOW) == []
    controls = store.read_controls("acme", "chat", scope="ORG#acme#APP#chat", day="20260123", now_epoch=NOW)
    assert not any(controls)


def test_no_app_is_called_what_stands_for_all_of_them(store: Store) -> None:
    with pytest.raises(ConfigError, match="stands for all apps"):
        store.put_profile("acme", OF_CHAT._replace(app_id="*"))
    with pytest.raises(ConfigError, match="stands for all apps"):
        store.remove_profile("acme", "*", "premium")


def test_a_store_that_keeps_none_has_none() -> None:
    bare = MemoryStore()
    bare.put_profile("acme", OF_ORG)
    assert Store.profiles(bare, "acme", "chat") == []
    assert not Store.remove_profile(bare, "acme", "chat", "premium")
    with pytest.raises(StoreSetupError, match="no put_profile, so no inference profile can be registered"):
        Store.put_profile(bare, "acme", OF_ORG)


# -- the items of DynamoDB, which another program may write and read


SPECIFIED = {
    "org_key": {"S": "ORG#acme#APP#chat"},
    "resource_key": {"S": "PROFILE#tenant-a-premium"},
    "profile_label": {"S": "tenant-a-premium"},
    "inference_profile_arn": {"S": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/tenant-a"},
    "description": {"S": "Premium profile for Tenant A"},
    "created_at": {"S": "2026-01-23T15:30:45Z"},
    "updated_at_epoch": {"N": "1737640245"},
}
AS_SPECIFIED = Profile(
    "chat",
    "tenant-a-premium",
    SPECIFIED["inference_profile_arn"]["S"],
    "Premium profile for Tenant A",
    int(datetime(2026, 1, 23, 15, 30, 45, tzinfo=UTC).timestamp()),
    1737640245,
)


def test_an_item_as_specified_is_read_and_written(
    dynamodb_store: DynamoDBStore, dynamodb_client: Any, table_prefix: str
) -> None:
    table = table_prefix + "Config"
    dynamodb_client.put_item(TableName=table, Item=SPECIFIED)
    assert dynamodb_store.profiles("acme", "chat") == [AS_SPECIFIED]
    assert dynamodb_store.remove_profile("acme", "chat", "tenant-a-premium")
    dynamodb_store.put_profile("acme", AS_SPECIFIED)
    assert dynamodb_client.scan(TableName=table)["Items"] == [SPECIFIED]


def test_an_item_that_says_little_is_read_and_one_without_an_arn_named(
    dynamodb_store: DynamoDBStore, dynamodb_client: Any, table_prefix: str
) -> None:
    table = table_prefix + "Config"
    keys = {name: SPECIFIED[name] for name in ("org_key", "resource_key")}
    arn = {"inference_profile_arn": SPECIFIED["inference_profile_arn"]}
    dynamodb_client.put_item(TableName=table, Item=keys | arn)
    assert dynamodb_store.profiles("acme", "chat") == [
        AS_SPECIFIED._replace(description="", created_at_epoch=0, updated_at_epoch=0)
    ]
    dynamodb_client.put_item(TableName=table, Item=keys | arn | {"created_at": {"S": "2026-01-23T15:30:45"}})
    assert dynamodb_store.profiles("acme", "chat")[0].created_at_epoch == AS_SPECIFIED.created_at_epoch
    for broken in (keys, keys | arn | {"created_at": {"S": "yesterday"}}):
        dynamodb_client.put_item(TableName=table, Item=broken)
        with pytest.raises(UnreadableItem, match="PROFILE#tenant-a-premium"):
            dynamodb_store.profiles("acme", "chat")


def test_reading_them_costs_a_read_unit(dynamodb_store: DynamoDBStore) -> None:
    dynamodb_store.put_profile("acme", AS_SPECIFIED)
    dynamodb_store.consumed.reset()
    dynamodb_store.profiles("acme", "chat")
    assert dynamodb_store.consumed.units().read_units == 1

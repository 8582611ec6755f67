"""What is particular to the DynamoDB store: its items, its bill, and the tables shared with other programs."""

from collections.abc import Callable
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from stores.batches import DAY, NOW, amounts, batch, new_key, new_writer, times

from bedrock_budget.core.account import Amounts
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.keys import UsageKey, shard_of
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DailyTotal, DynamoDBStore, Override, Sticky
from bedrock_budget.stores.dynamodb_items import whole

ORG = "550e8400-e29b-41d4-a716-446655440000"
SCOPE = f"ORG#{ORG}#APP#app-production-api20"
KEY = UsageKey(SCOPE, "premium", DAY)


@pytest.fixture
def items(dynamodb_client: Any, table_prefix: str) -> Any:
    """Reads all items of a table, as DynamoDB holds them."""

    def read(table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = dynamodb_client.scan(TableName=table_prefix + table)["Items"]
        return found

    return read


def item_size(item: dict[str, Any]) -> int:
    """An item's size as DynamoDB bills it: names, text in UTF-8, numbers at half a byte a digit plus one."""
    size = 0
    for name, value in item.items():
        size += len(name.encode())
        for kind, content in value.items():
            texts = content if isinstance(content, list) else [content]
            size += 3 * isinstance(content, list)
            size += sum(len(text.encode()) if kind == "S" else (len(text) + 1) // 2 + 1 for text in texts)
    return size


# --- items


def test_a_shard_item_is_as_specified(dynamodb_store: DynamoDBStore, items: Any) -> None:
    writer, other = "wAAAAAAAA-_", "wBBBBBBBB-_"
    shard = shard_of(writer, 8)
    dynamodb_store.write_batch(batch(KEY, writer, 7, Amounts(1_400_001, Usage(20, 5), 1)), now_epoch=NOW)
    dynamodb_store.write_batch(batch(KEY, other, 1, amounts(), shard=shard), now_epoch=NOW + 0.9)
    (item,) = items("UsageAggSharded")
    assert item.pop("active_hour")["S"].startswith("ACTIVE#2026012315#")
    assert item == {
        "shard_key": {"S": f"{SCOPE}#LABEL#premium#SH#{shard}"},
        "date_key": {"S": "DAY#20260123"},
        "cost_usd_micros": {"N": "2.800001"},
        "input_tokens": {"N": "40"},
        "output_tokens": {"N": "10"},
        "cache_read_tokens": {"N": "3"},
        "cache_write_5m_tokens": {"N": "2"},
        "cache_write_1h_tokens": {"N": "1"},
        "requests": {"N": "2"},
        "updated_at_epoch": {"N": "1769180400"},
        "shard_count": {"N": "8"},
        writer: {"N": "7"},
        other: {"N": "1"},
    }


def test_every_counter_is_in_an_item_from_its_first_write_on(dynamodb_store: DynamoDBStore, items: Any) -> None:
    dynamodb_store.write_batch(batch(KEY, new_writer(), 1, Amounts(0, Usage(0, 3), 0)), now_epoch=NOW)
    (item,) = items("UsageAggSharded")
    assert {name: item[name] for name in Usage._fields} == {
        name: {"N": "3" if name == "output_tokens" else "0"} for name in Usage._fields
    }
    assert (item["cost_usd_micros"], item["requests"]) == ({"N": "0"}, {"N": "0"})


def test_a_total_item_is_as_specified(dynamodb_store: DynamoDBStore, items: Any) -> None:
    dynamodb_store.write_total(KEY, DailyTotal(amounts(9_500_000_000_000), 1737640800))
    assert items("DailyTotal") == [
        {
            "usage_key": {"S": f"{SCOPE}#LABEL#premium"},
            "date_key": {"S": "DAY#20260123"},
            "cost_usd_micros": {"N": "9500000"},
            "input_tokens": {"N": "20"},
            "output_tokens": {"N": "5"},
            "cache_read_tokens": {"N": "3"},
            "cache_write_5m_tokens": {"N": "2"},
            "cache_write_1h_tokens": {"N": "1"},
            "requests": {"N": "1"},
            "updated_at_epoch": {"N": "1737640800"},
        }
    ]


def test_a_sticky_item_is_as_specified(dynamodb_store: DynamoDBStore, items: Any) -> None:
    sticky = Sticky("standard", 1, "QUOTA_EXCEEDED", "premium", 1737640800, 1737676800)
    dynamodb_store.advance_sticky(SCOPE, DAY, sticky)
    assert items("StickyState") == [
        {
            "scope_key": {"S": SCOPE},
            "date_key": {"S": "DAY#20260123"},
            "active_model_label": {"S": "standard"},
            "active_model_index": {"N": "1"},
            "reason": {"S": "QUOTA_EXCEEDED"},
            "previous_model_label": {"S": "premium"},
            "activated_at_epoch": {"N": "1737640800"},
            "expires_at_epoch": {"N": "1737676800"},
        }
    ]


def test_config_and_override_items_are_as_specified(dynamodb_store: DynamoDBStore, items: Any) -> None:
    dynamodb_store.put_config(ORG, None, {"quotas": {"premium": 10_000_000}, "pct": 1.5})
    dynamodb_store.put_config(ORG, "chat", {"app_name": "Chat"})
    override = Override("economy", "incident", "ann", 5, 10)
    dynamodb_store.put_override(ORG, None, override)
    dynamodb_store.put_override(ORG, "chat", override)
    pinned = {
        "org_key": {"S": f"ORG#{ORG}"},
        "model_label": {"S": "economy"},
        "reason": {"S": "incident"},
        "created_by": {"S": "ann"},
        "created_at_epoch": {"N": "5"},
        "expires_at_epoch": {"N": "10"},
    }
    assert sorted(items("Config"), key=lambda item: item["resource_key"]["S"]) == [
        {
            "org_key": {"S": f"ORG#{ORG}"},
            "resource_key": {"S": "#"},
            "quotas": {"M": {"premium": {"N": "10000000"}}},
            "pct": {"N": "1.5"},
        },
        {"org_key": {"S": f"ORG#{ORG}"}, "resource_key": {"S": "APP#chat"}, "app_name": {"S": "Chat"}},
        {**pinned, "resource_key": {"S": "OVERRIDE#*"}},
        {**pinned, "resource_key": {"S": "OVERRIDE#chat"}},
    ]


def test_items_of_another_program_are_read(
    dynamodb_store: DynamoDBStore, dynamodb_client: Any, table_prefix: str
) -> None:
    def put(table: str, **item: Any) -> None:
        dynamodb_client.put_item(TableName=table_prefix + table, Item=item)

    day = {"S": f"DAY#{DAY}"}
    counters = {"cost_usd_micros": {"N": "1.25E+6"}, "input_tokens": {"N": "1.5E5"}, "requests": {"N": "42"}}
    shard_key = {"S": f"{SCOPE}#LABEL#premium#SH#0"}
    put("UsageAggSharded", shard_key=shard_key, date_key=day, request_ids={"SS": ["a", "b"]}, **counters)
    put("DailyTotal", usage_key={"S": f"{SCOPE}#LABEL#premium"}, date_key=day, **counters)
    put("StickyState", scope_key={"S": SCOPE}, date_key=day, active_model_label={"S": "standard"},
        active_model_index={"N": "1"}, expires_at_epoch={"N": "1769184000"})  # fmt: skip
    put("Config", org_key={"S": f"ORG#{ORG}"}, resource_key={"S": "#"}, tags={"SS": ["b", "a"]}, n={"N": "2.5"},
        blob={"B": b"x"})  # fmt: skip
    put("Config", org_key={"S": f"ORG#{ORG}"}, resource_key={"S": "APP#old"}, expires_at_epoch={"N": "5"})
    put("Config", org_key={"S": f"ORG#{ORG}"}, resource_key={"S": "OVERRIDE#old"}, model_label={"S": "economy"},
        expires_at_epoch={"N": "1769184000"})  # fmt: skip
    expected = Amounts(1_250_000_000_000, Usage(150_000), 42)
    assert dynamodb_store.read_shards({KEY: 8}, writer_id=new_writer())[KEY] == (expected, 0, 8)
    assert dynamodb_store.read_totals([KEY]) == {KEY: DailyTotal(expected, 0)}
    found = dynamodb_store.read_controls(ORG, "old", scope=SCOPE, day=DAY, now_epoch=NOW)
    assert found.sticky == Sticky("standard", 1, "", "", 0, 1769184000)
    assert found.override == Override("economy", "", "", 0, 1769184000)
    assert found.org_item is not None
    assert {**found.org_item, "blob": None} == {"tags": ["a", "b"], "n": 2.5, "blob": None}
    assert found.app_item is None  # expired
    assert dynamodb_store.write_total(KEY, DailyTotal(times(expected, 2), 9))


@pytest.mark.parametrize(
    ("table", "item"),
    [
        ("UsageAggSharded", {"shard_key": f"{SCOPE}#LABEL#premium#SH#0", "requests": 1}),
        ("UsageAggSharded", {"shard_key": f"{SCOPE}#LABEL#premium#SH#0", "cost_usd_micros": "1e-9"}),
        ("UsageAggSharded", {"shard_key": f"{SCOPE}#LABEL#premium#SH#0", "cost_usd_micros": 1, "requests": "0.5"}),
        ("UsageAggSharded", {"shard_key": f"{SCOPE}#LABEL#x", "active_hour": "ACTIVE#2026012315#0"}),
        ("DailyTotal", {"usage_key": f"{SCOPE}#LABEL#premium"}),
        ("StickyState", {"scope_key": SCOPE, "active_model_index": 1}),
        ("Config", {"org_key": f"ORG#{ORG}", "resource_key": "OVERRIDE#*", "expires_at_epoch": 1}),
    ],
)
def test_an_item_that_cannot_be_read_is_an_error_and_never_zero(
    dynamodb_store: DynamoDBStore, dynamodb_client: Any, table_prefix: str, table: str, item: dict[str, Any]
) -> None:
    numeric = {"requests", "cost_usd_micros", "active_model_index", "expires_at_epoch"}
    attributes = {name: {"N" if name in numeric else "S": str(value)} for name, value in item.items()}
    if table != "Config":
        attributes["date_key"] = {"S": f"DAY#{DAY}"}
    dynamodb_client.put_item(TableName=table_prefix + table, Item=attributes)
    reads: dict[str, Callable[[], object]] = {
        "UsageAggSharded": lambda: dynamodb_store.read_shards({KEY: 8}),
        "DailyTotal": lambda: dynamodb_store.read_totals([KEY]),
        "StickyState": lambda: dynamodb_store.read_controls(ORG, "chat", scope=SCOPE, day=DAY, now_epoch=NOW),
        "active_hour": lambda: dynamodb_store.active_keys(["2026012315"]),
    }
    reads["Config"] = reads["StickyState"]
    with pytest.raises(StoreError, match=r"item .*_key.* cannot be read .*; correct or delete it"):
        reads["active_hour" if "active_hour" in item else table]()


def test_lists_longer_than_a_page_are_read_to_the_end(dynamodb_store: DynamoDBStore) -> None:
    # a page ends at 1 MB: items of 390 KB make three
    for number in range(7):
        dynamodb_store.put_config(ORG, f"app{number}", {"text": "x" * 390_000})
    dynamodb_store.consumed.reset()
    assert dynamodb_store.app_ids(ORG) == [f"app{number}" for number in range(7)]
    assert dynamodb_store.consumed.units().requests > 1


# --- the bill


def test_a_write_costs_one_unit_with_a_hundred_writers_on_eight_shards(
    dynamodb_store: DynamoDBStore, items: Any
) -> None:
    writers = [new_writer() for _ in range(100)]
    # the day's costs and tokens are large already, and so are sequence numbers: one a second for a day
    grown = Amounts(9_999_999_123_456, Usage(10**9, 10**9, 10**9, 10**9, 10**9), 10**6)
    for sequence in (86_398, 86_399):
        for writer in writers:
            dynamodb_store.consumed.reset()
            dynamodb_store.write_batch(batch(KEY, writer, sequence, grown), now_epoch=NOW)
            units = dynamodb_store.consumed.units()
            assert units.table_write_units == 1
            assert units.index_write_units <= 1  # the first write of a shard puts it into the hour's list
    shards = items("UsageAggSharded")
    assert len(shards) == 8
    assert max(item_size(shard) for shard in shards) < 1024


def test_an_unchanged_hour_costs_no_index_write_and_a_new_one_two(dynamodb_store: DynamoDBStore) -> None:
    writer = new_writer()
    spent = []
    for sequence, now in enumerate((NOW, NOW + 1, NOW + 3600), start=1):
        dynamodb_store.consumed.reset()
        dynamodb_store.write_batch(batch(KEY, writer, sequence), now_epoch=now)
        units = dynamodb_store.consumed.units()
        spent.append((units.table_write_units, units.index_write_units, units.write_units))
    assert spent == [(1, 1, 2), (1, 0, 1), (1, 2, 3)]


def test_what_was_consumed_is_counted_by_kind_and_operation(dynamodb_store: DynamoDBStore) -> None:
    key, writer = new_key(), new_writer()
    dynamodb_store.write_batch(batch(key, writer, 1), now_epoch=NOW)
    dynamodb_store.write_batch(batch(key, writer, 1), now_epoch=NOW)
    dynamodb_store.read_shards({key: 8})
    dynamodb_store.read_totals([key])
    dynamodb_store.read_controls(ORG, "chat", scope=SCOPE, day=DAY, now_epoch=NOW)
    units = dynamodb_store.consumed.units()
    assert units.by_operation == {"UpdateItem": 2, "BatchGetItem": 8 + 0.5 + 3.5}
    assert (units.read_units, units.table_write_units, units.index_write_units) == (12, 1, 1)
    assert (units.requests, units.refused_writes) == (5, 1)
    dynamodb_store.consumed.reset()
    assert dynamodb_store.consumed.units() == (0, 0, 0, 0, 0, {})


# --- numbers


@pytest.mark.parametrize(("digits", "value"), [("12", 12), ("1.5E5", 150_000), ("-3", -3), ("2.0", 2)])
def test_whole_numbers_are_read_however_they_are_written(digits: str, value: int) -> None:
    assert whole({"n": {"N": digits}}, "n") == value


def test_the_sizes_computed_here_are_those_of_the_documentation() -> None:
    item: dict[str, Any] = {"a": {"S": "ü"}, "bb": {"N": "123"}, "c": {"NS": ["8"]}}
    assert item_size(item) == (1 + 2) + (2 + 3) + (1 + 3 + 2)
    assert TypeDeserializer().deserialize(item["c"]) == {8}


def test_the_largest_shard_count_stays_in_the_item(dynamodb_store: DynamoDBStore) -> None:
    key, wide, narrow = new_key(), new_writer(), new_writer()
    for shard in range(8):  # so that the two meet in every item
        dynamodb_store.write_batch(batch(key, wide, 1, shard=shard, shard_count=16), now_epoch=NOW)
        dynamodb_store.write_batch(batch(key, narrow, 1, shard=shard, shard_count=8), now_epoch=NOW)
        dynamodb_store.write_batch(batch(key, narrow, 1, shard=shard, shard_count=8), now_epoch=NOW)
    found = dynamodb_store.read_shards({key: 8})[key]
    assert found.shard_count == 16
    assert found.amounts.requests == 16

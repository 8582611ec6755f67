"""The index of what was written lately, in DynamoDB: keys only, on ``active_hour``. Its partitions: `core.keys`."""

from collections.abc import Sequence
from functools import partial

from ..core.keys import UsageKey, parse_shard_key
from . import dynamodb_items as items
from .dynamodb_calls import DynamoDBCalls
from .parallel import in_parallel
from .tables import USAGE


def listed(calls: DynamoDBCalls, partitions: Sequence[str], parallel_requests: int) -> dict[UsageKey, int]:
    """The keys of the shards that partitions list, each with the highest shard number seen plus one."""
    active: dict[UsageKey, int] = {}
    for found in in_parallel(partial(_in_partition, calls), partitions, parallel_requests):
        for key, shard in found:
            active[key] = max(active.get(key, 0), shard + 1)
    return active


def _in_partition(calls: DynamoDBCalls, partition: str) -> list[tuple[UsageKey, int]]:
    assert USAGE.index is not None
    shards: list[tuple[UsageKey, int]] = []
    for item in calls.query(
        USAGE,
        IndexName=USAGE.index.name,
        KeyConditionExpression="active_hour = :hour",
        ExpressionAttributeValues={":hour": items.text(partition)},
    ):
        try:
            shards.append(parse_shard_key(item["shard_key"]["S"], item["date_key"]["S"]))
        except (KeyError, ValueError) as exc:
            raise items.unreadable(item, exc) from exc
    return shards

"""A store in DynamoDB: for a fleet. Tables: `tables.py`; attributes: `dynamodb_items.py`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.account import ZERO, Batch
from ..core.errors import StoreError
from ..core.holds import Grant, Granted
from ..core.keys import (
    UsageKey,
    active_partition,
    active_partitions,
    date_key,
    parse_shard_key,
    shard_key,
    usage_key,
)
from ..core.usage import Usage
from . import dynamodb_config as config
from . import dynamodb_items as items
from . import dynamodb_stops as stops
from .contract import Controls, DailyTotal, Override, Profile, SequenceConflict, ShardSum, Sticky, Stop
from .dynamodb_calls import ConditionFailed, DynamoDBCalls, Item
from .dynamodb_capacity import Consumed
from .dynamodb_index import listed
from .dynamodb_leases import DynamoDBLeases
from .dynamodb_prices import PricesInDynamoDB
from .rules import MismatchLog, check_app, check_batch, expired, plain_item, stop_in_force
from .tables import CONFIG, DAILY_TOTAL, DEFAULT_PREFIX, STICKY_STATE, USAGE, Table

if TYPE_CHECKING:
    from botocore.client import BaseClient

_MAX_SHARD_COUNTS = 1024
_CLOCKS_APART_SECS = 120


class DynamoDBStore(PricesInDynamoDB):
    """See `Store`. Any number of machines in one region may share the tables.

    ``client``: a boto3 DynamoDB client, used as it is and never closed; or one is made on first use for ``region``
    (default: as boto3 finds it) and ``endpoint_url``, with time-outs of 1 s to connect and 2 s to read. ``prefix``
    comes before the names of the tables.
    """

    parallel_requests = 8

    def __init__(
        self,
        client: "BaseClient | None" = None,
        *,
        region: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        endpoint_url: str | None = None,
    ) -> None:
        self._calls = DynamoDBCalls(client, region, prefix, endpoint_url)
        self._leases = DynamoDBLeases(self._calls)
        self._mismatches = MismatchLog()
        self._shard_counts: dict[UsageKey, int] = {}  # where an item says more than its batches

    def __repr__(self) -> str:
        return f"<DynamoDBStore {self.url}>"

    @property
    def url(self) -> str:
        """The store URL of this store."""
        return self._calls.url

    @property
    def consumed(self) -> Consumed:
        """The capacity units that this object's requests consumed in this process."""
        return self._calls.consumed

    def write_batch(self, batch: Batch, *, now_epoch: float) -> None:
        check_batch(batch)
        known = max(batch.shard_count, self._shard_counts.get(batch.key, 0))
        while True:
            try:
                self._calls.call("UpdateItem", USAGE, **self._addition(batch, now_epoch, known, numbered=True))
                return
            except ConditionFailed as exc:
                if self._was_applied(batch, exc):
                    return
                known = self._larger_shard_count(batch, exc, known)

    def write_once(self, batch: Batch, *, now_epoch: float) -> None:
        check_batch(batch)
        known = max(batch.shard_count, self._shard_counts.get(batch.key, 0))
        while True:
            # A token stands for one set of parameters. A refused transaction has changed nothing, so the next one,
            # which says another shard count, may have a token of its own.
            token = f"{batch.writer_id}-{batch.sequence}-{known}"
            update = self._addition(batch, now_epoch, known, numbered=False)
            try:
                self._calls.transact(USAGE, [{"Update": update}], token)
                return
            except ConditionFailed as exc:
                known = self._larger_shard_count(batch, exc, known)

    def _larger_shard_count(self, batch: Batch, refusal: ConditionFailed, known: int) -> int:
        # Written under more shards before: say so again, for readers go by the largest number they find.
        found = items.shard_count(refusal.item)
        if found <= known:
            raise _does_not_say(batch) from refusal
        if len(self._shard_counts) >= _MAX_SHARD_COUNTS:
            self._shard_counts.clear()
        self._shard_counts[batch.key] = found
        return found

    def _addition(self, batch: Batch, now_epoch: float, shard_count: int, *, numbered: bool) -> dict[str, Any]:
        """The update that adds a batch to its shard; ``numbered``: on the condition that it has not been."""
        key, amounts = batch.key, batch.amounts
        shard = shard_key(key.scope, key.label, batch.shard)
        values: dict[str, Mapping[str, Any]] = {
            ":cost": items.cost(amounts.cost_pico_usd),
            ":requests": items.number(amounts.requests),
            ":shard_count": items.number(shard_count),
            ":updated": items.number(int(now_epoch)),
            ":hour": items.text(active_partition(now_epoch, shard)),
        }
        add = "cost_usd_micros :cost, requests :requests"
        for name, count in zip(Usage._fields, amounts.usage, strict=True):
            values[f":{name}"] = items.number(count)
            add += f", {name} :{name}"
        changes = f"ADD {add} SET updated_at_epoch = :updated, active_hour = :hour, shard_count = :shard_count"
        condition = "(attribute_not_exists(shard_count) OR shard_count <= :shard_count)"
        addition: dict[str, Any] = {
            "TableName": self._calls.physical(USAGE),
            "Key": items.day_item_key("shard_key", shard, key.day),
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if numbered:
            values[":sequence"] = items.number(batch.sequence)
            addition["ExpressionAttributeNames"] = {"#w": batch.writer_id}
            changes += ", #w = :sequence"
            condition = f"(attribute_not_exists(#w) OR #w < :sequence) AND {condition}"
        return {**addition, "UpdateExpression": changes, "ConditionExpression": condition}

    @staticmethod
    def _was_applied(batch: Batch, refusal: ConditionFailed) -> bool:
        """Whether a refused write was applied before. Raises SequenceConflict if a later one was, StoreError if the
        answer does not tell."""
        try:
            if not refusal.item:
                raise ValueError("no item")
            applied = items.whole(refusal.item, batch.writer_id, 0)
        except (ValueError, ArithmeticError, KeyError) as exc:
            raise _does_not_say(batch) from exc
        if applied > batch.sequence:
            raise SequenceConflict(
                f"batch {batch.sequence} of writer {batch.writer_id} for {batch.key} came after batch {applied}"
            ) from refusal
        return applied == batch.sequence

    def read_shards(self, keys: Mapping[UsageKey, int], *, writer_id: str | None = None) -> Mapping[UsageKey, ShardSum]:
        sums = {key: ShardSum(ZERO, 0, asked) for key, asked in keys.items()}
        unread = [(key, shard) for key, asked in keys.items() for shard in range(asked)]
        while unread:
            before = {key: sums[key].shard_count for key, _ in unread}
            wanted = [
                items.day_item_key("shard_key", shard_key(key.scope, key.label, shard), key.day)
                for key, shard in unread
            ]
            for _, item in self._calls.batch_get({USAGE: wanted}, consistent=True):
                self._add_shard(sums, item, writer_id)
            unread = [(key, shard) for key, known in before.items() for shard in range(known, sums[key].shard_count)]
        for key, asked in keys.items():
            self._mismatches.note(key, asked, sums[key].shard_count)
        return sums

    @staticmethod
    def _add_shard(sums: dict[UsageKey, ShardSum], item: Item, writer_id: str | None) -> None:
        try:
            key, _ = parse_shard_key(item["shard_key"]["S"], item["date_key"]["S"])
            amounts, sequence, count = sums[key]
            sums[key] = ShardSum(
                amounts.plus(items.counters(item)),
                max(sequence, items.whole(item, writer_id, 0) if writer_id else 0),
                max(count, items.shard_count(item)),
            )
        except (KeyError, ValueError, ArithmeticError) as exc:
            raise items.unreadable(item, exc) from exc

    def read_totals(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, DailyTotal]:
        by_item = {(usage_key(key.scope, key.label), date_key(key.day)): key for key in keys}
        wanted = [items.day_item_key("usage_key", usage_key(key.scope, key.label), key.day) for key in by_item.values()]
        totals: dict[UsageKey, DailyTotal] = {}
        for _, item in self._calls.batch_get({DAILY_TOTAL: wanted}, consistent=False):
            try:
                key = by_item[item["usage_key"]["S"], item["date_key"]["S"]]
                totals[key] = DailyTotal(items.counters(item), items.whole(item, "updated_at_epoch", 0))
            except (KeyError, ValueError, ArithmeticError) as exc:
                raise items.unreadable(item, exc) from exc
        return totals

    def write_total(self, key: UsageKey, total: DailyTotal) -> bool:
        try:
            self._calls.call(
                "PutItem",
                DAILY_TOTAL,
                TableName=self._calls.physical(DAILY_TOTAL),
                Item=items.total_item(key, total),
                # As `rules.takes_place_of`; another program's item may lack `requests`.
                ConditionExpression="attribute_not_exists(cost_usd_micros) OR cost_usd_micros < :cost "
                "OR (cost_usd_micros = :cost AND NOT requests > :requests)",
                ExpressionAttributeValues={
                    ":cost": items.cost(total.amounts.cost_pico_usd),
                    ":requests": items.number(total.amounts.requests),
                },
            )
        except ConditionFailed:
            return False
        return True

    def active_keys(self, hours: Iterable[str]) -> Mapping[UsageKey, int]:
        return listed(
            self._calls,
            [partition for hour in set(hours) for partition in active_partitions(hour)],
            self.parallel_requests,
        )

    def active_keys_since(
        self, hours: Sequence[str], *, since_epoch: float, now_epoch: float
    ) -> Mapping[UsageKey, int]:
        until = now_epoch + _CLOCKS_APART_SECS
        partitions = [each for hour in hours for each in active_partitions(hour, since_epoch, until)]
        return listed(self._calls, partitions, self.parallel_requests)

    def read_controls(
        self, org_id: str, app_id: str | None, *, scope: str, day: str, now_epoch: float, consistent: bool = False
    ) -> Controls:
        apps = list(dict.fromkeys((app_id, None)))  # the app's before the org's
        kinds = (items.config_key, items.override_key, stops.stop_key)
        by_resource = {items.resource(key): key for key in (kind(org_id, app) for kind in kinds for app in apps)}
        sticky_key = items.day_item_key("scope_key", scope, day)
        found: dict[str, Item] = {}
        sticky: Sticky | None = None
        wanted = {CONFIG: list(by_resource.values()), STICKY_STATE: [sticky_key]}
        for table, item in self._calls.batch_get(wanted, consistent=consistent):
            if table is STICKY_STATE:
                sticky = items.sticky_from(item)
            else:
                found[items.resource(item)] = item
        configs = [found.get(items.resource(items.config_key(org_id, app))) for app in (None, app_id)]
        pins = [found.get(items.resource(items.override_key(org_id, app))) for app in apps]
        overrides = [items.override_from(pin) for pin in pins if pin is not None]
        standing = [stops.stop_from(found.get(items.resource(stops.stop_key(org_id, app)))) for app in reversed(apps)]
        return Controls(
            items.config_from(configs[0], now_epoch),
            items.config_from(configs[1], now_epoch) if app_id is not None else None,
            next((pin for pin in overrides if not expired(pin.expires_at_epoch, now_epoch)), None),
            sticky if sticky and not expired(sticky.expires_at_epoch, now_epoch) else None,
            stop_in_force([stop for stop in standing if stop], now_epoch),
        )

    def advance_sticky(self, scope: str, day: str, sticky: Sticky) -> Sticky:
        try:
            self._calls.call(
                "PutItem",
                STICKY_STATE,
                TableName=self._calls.physical(STICKY_STATE),
                Item=items.sticky_item(scope, day, sticky),
                # As `rules.moves_forward`; DynamoDB deletes expired items late.
                ConditionExpression="attribute_not_exists(active_model_label) OR active_model_index < :new_index "
                "OR expires_at_epoch <= :now",
                ExpressionAttributeValues={
                    ":new_index": items.number(sticky.position),
                    ":now": items.number(sticky.activated_at_epoch),
                },
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ConditionFailed as exc:
            # The item that stood there when the condition was evaluated: as good as a consistent read after it.
            if not exc.item:
                raise StoreError(f"the sticky state of {scope} was not moved, and the answer does not say why") from exc
            return items.sticky_from(exc.item)
        return sticky

    def clear_sticky(self, scope: str, day: str) -> None:
        self._delete(STICKY_STATE, items.day_item_key("scope_key", scope, day))

    def put_override(self, org_id: str, app_id: str | None, override: Override) -> None:
        check_app(app_id)
        self._put(CONFIG, items.override_item(org_id, app_id, override))

    def clear_override(self, org_id: str, app_id: str | None) -> bool:
        check_app(app_id)
        return self._delete(CONFIG, items.override_key(org_id, app_id))

    def put_stop(self, org_id: str, stop: Stop) -> None:
        stops.put_stop(self._calls, org_id, stop)

    def put_automatic_stop(self, org_id: str, stop: Stop, *, day: str) -> Stop | None:
        return stops.put_automatic_stop(self._calls, org_id, stop, day=day)

    def lift_stop(self, org_id: str, app_id: str | None, *, lifted_by: str, now_epoch: int) -> Stop | None:
        return stops.lift_stop(self._calls, org_id, app_id, lifted_by=lifted_by, now_epoch=now_epoch)

    def stops(self, org_id: str, *, now_epoch: float) -> list[Stop]:
        return stops.stops(self._calls, org_id, now_epoch=now_epoch)

    def put_config(self, org_id: str, app_id: str | None, item: Mapping[str, Any]) -> None:
        self._put(CONFIG, items.config_item(org_id, app_id, plain_item(item)))

    def write_grant(self, grant: Grant, *, once: bool = False) -> Granted:
        return self._leases.write(grant, once=once)

    def read_granted(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, int]:
        return self._leases.read(keys)

    def put_profile(self, org_id: str, profile: Profile) -> None:
        config.put_profile(self._calls, org_id, profile)

    def remove_profile(self, org_id: str, app_id: str | None, label: str) -> bool:
        return config.remove_profile(self._calls, org_id, app_id, label)

    def profiles(self, org_id: str, app_id: str | None) -> list[Profile]:
        return config.profiles(self._calls, org_id, app_id)

    def app_ids(self, org_id: str) -> list[str]:
        return config.app_ids(self._calls, org_id)

    def close(self) -> None:
        self._calls.close()

    def _put(self, table: Table, item: Item) -> None:
        self._calls.call("PutItem", table, TableName=self._calls.physical(table), Item=item)

    def _delete(self, table: Table, key: Item) -> bool:
        """Delete an item. Whether there was one."""
        response = self._calls.call(
            "DeleteItem", table, TableName=self._calls.physical(table), Key=key, ReturnValues="ALL_OLD"
        )
        return bool(response.get("Attributes"))


def _does_not_say(batch: Batch) -> StoreError:
    return StoreError(
        f"batch {batch.sequence} of writer {batch.writer_id} for {batch.key} was refused, and the answer does not say "
        "which was applied last"
    )

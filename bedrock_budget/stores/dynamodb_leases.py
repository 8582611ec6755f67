"""What strict enforcement has granted, in DynamoDB: one item of the table ``Leases`` per pool and day.

``lease_key`` (``ORG#...#LABEL#{label}``) + ``date_key``; ``granted_usd_micros`` with up to six decimals;
``expires_at_epoch``; and an attribute per holder, whose name is its id and whose value its last sequence number.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ..core.errors import StoreError
from ..core.holds import Grant, Granted
from ..core.keys import UsageKey, date_key, usage_key
from . import dynamodb_items as items
from .dynamodb_calls import ConditionFailed, DynamoDBCalls, Item
from .rules import check_grant, judge
from .tables import LEASES


class DynamoDBLeases:
    """The `Store` methods of strict enforcement."""

    def __init__(self, calls: DynamoDBCalls) -> None:
        self._calls = calls

    def write(self, grant: Grant, *, once: bool) -> Granted:
        """See `Store.write_grant`."""
        check_grant(grant)
        update = self._update(grant, numbered=not once)
        try:
            if once:
                self._calls.transact(LEASES, [{"Update": update}], f"{grant.holder_id}-{grant.sequence}")
                return Granted(True, self._granted_after(grant))
            answer = self._calls.call("UpdateItem", LEASES, **update, ReturnValues="UPDATED_NEW")
        except ConditionFailed as exc:
            return self._refused(grant, exc.item)
        try:
            granted = items.granted(answer["Attributes"])
            if granted is None:
                raise ValueError("no amount")
            return Granted(True, granted)
        except (KeyError, ValueError, ArithmeticError) as exc:
            raise StoreError(f"the answer does not say what is granted of {grant.key}") from exc

    def read(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, int]:
        """See `Store.read_granted`."""
        by_item = {(usage_key(key.scope, key.label), date_key(key.day)): key for key in keys}
        wanted = [items.day_item_key("lease_key", usage_key(key.scope, key.label), key.day) for key in by_item.values()]
        found: dict[UsageKey, int] = {}
        for _, item in self._calls.batch_get({LEASES: wanted}, consistent=True):
            try:
                granted = items.granted(item)
                if granted is not None:
                    found[by_item[item["lease_key"]["S"], item["date_key"]["S"]]] = granted
            except (KeyError, ValueError, ArithmeticError) as exc:
                raise items.unreadable(item, exc) from exc
        return found

    def _update(self, grant: Grant, *, numbered: bool) -> dict[str, Any]:
        key, change = grant.key, grant.change_pico_usd
        values: dict[str, Mapping[str, Any]] = {":change": items.cost(change)}
        granted = "granted_usd_micros"
        changes = f"SET {granted} = {granted} + :change"
        conditions = [f"attribute_exists({granted})"]
        if grant.quota_pico_usd is not None:
            values[":room"] = items.cost(grant.quota_pico_usd - change)
            conditions = [f"{granted} <= :room"]
        if change > 0:  # it may open the pool
            values[":spent"] = items.cost(grant.spent_pico_usd)
            values[":expires"] = items.number(grant.expires_at_epoch)
            changes = f"SET {granted} = if_not_exists({granted}, :spent) + :change, expires_at_epoch = :expires"
            if grant.fits(grant.spent_pico_usd):
                conditions = [f"({conditions[0]} OR attribute_not_exists({granted}))"]
        update: dict[str, Any] = {
            "TableName": self._calls.physical(LEASES),
            "Key": items.day_item_key("lease_key", usage_key(key.scope, key.label), key.day),
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if numbered:
            update["ExpressionAttributeNames"] = {"#holder": grant.holder_id}
            values[":sequence"] = items.number(grant.sequence)
            changes += ", #holder = :sequence"
            conditions.append("(attribute_not_exists(#holder) OR #holder < :sequence)")
        return {**update, "UpdateExpression": changes, "ConditionExpression": " AND ".join(conditions)}

    @staticmethod
    def _refused(grant: Grant, item: Item | None) -> Granted:
        try:
            sequence = items.whole(item or {}, grant.holder_id, 0)
            outcome = judge(grant, items.granted(item) if item else None, sequence)
        except (KeyError, ValueError, ArithmeticError) as exc:
            raise items.unreadable(item or {}, exc) from exc
        if outcome.applied and sequence != grant.sequence:
            # What stands there does not explain the refusal: nothing is known.
            raise StoreError(
                f"grant {grant.sequence} of holder {grant.holder_id} for {grant.key} was refused for no reason"
            )
        return outcome

    def _granted_after(self, grant: Grant) -> int:
        # A transaction's answer says nothing of the item.
        return self.read([grant.key]).get(grant.key, 0)

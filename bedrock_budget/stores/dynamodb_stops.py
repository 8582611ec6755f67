"""Stops in DynamoDB: the ``STOP#{app or *}`` items of the Config table.

They carry no ``expires_at_epoch``, so DynamoDB never deletes one: who has lifted today's automatic stop must not be
forgotten. ``stopped_until_epoch`` (missing: until it is lifted) says how long a stop lasts, ``lifted_at_epoch`` that it
was lifted, ``automatic_day`` the last org day that an automatic one was made for.
"""

from typing import Any

from ..core.errors import StoreError
from ..core.keys import scope_key
from . import dynamodb_items as items
from .contract import Stop
from .dynamodb_calls import ConditionFailed, DynamoDBCalls, Item
from .rules import ALL_APPS, check_app, stop_is_over
from .tables import CONFIG

STOP_RESOURCE = "STOP#"


def stop_key(org_id: str, app_id: str | None) -> Item:
    """The key of the stop of an app, or of all of the org's (``app_id`` None)."""
    resource = f"{STOP_RESOURCE}{ALL_APPS if app_id is None else app_id}"
    return {"org_key": items.text(scope_key(org_id, None)), "resource_key": items.text(resource)}


def stop_from(item: Item | None) -> Stop | None:
    """The stop of an item; None if there is no item or its stop was lifted. Raises StoreError if it is none."""
    return None if item is None or "lifted_at_epoch" in item else _stop(item)


def put_stop(calls: DynamoDBCalls, org_id: str, stop: Stop) -> None:
    """See `Store.put_stop`."""
    check_app(stop.app_id)
    calls.call("UpdateItem", CONFIG, **_update(calls, org_id, stop))


def put_automatic_stop(calls: DynamoDBCalls, org_id: str, stop: Stop, *, day: str) -> Stop | None:
    """See `Store.put_automatic_stop`."""
    check_app(stop.app_id)
    update = _update(calls, org_id, stop)
    update["UpdateExpression"] = update["UpdateExpression"].replace(" REMOVE", ", automatic_day = :day REMOVE")
    update["ExpressionAttributeValues"] |= {":day": items.text(day), ":now": items.number(stop.stopped_at_epoch)}
    try:
        calls.call(
            "UpdateItem",
            CONFIG,
            **update,
            ConditionExpression="attribute_not_exists(stopped_by) "
            "OR ((attribute_exists(lifted_at_epoch) OR stopped_until_epoch <= :now) "
            "AND (attribute_not_exists(automatic_day) OR automatic_day < :day))",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ConditionFailed as exc:
        if not exc.item:
            raise StoreError(f"no automatic stop of {org_id} was made, and the answer does not say why") from exc
        standing = stop_from(exc.item)
        return None if standing is None or stop_is_over(standing, stop.stopped_at_epoch) else standing
    return stop


def lift_stop(calls: DynamoDBCalls, org_id: str, app_id: str | None, *, lifted_by: str, now_epoch: int) -> Stop | None:
    """See `Store.lift_stop`."""
    check_app(app_id)
    lifted = {"lifted_by": items.text(lifted_by), "lifted_at_epoch": items.number(now_epoch)}
    try:
        response = calls.call(
            "UpdateItem",
            CONFIG,
            TableName=calls.physical(CONFIG),
            Key=stop_key(org_id, app_id),
            UpdateExpression="SET lifted_by = :by, lifted_at_epoch = :now",
            ConditionExpression="attribute_exists(stopped_by) AND attribute_not_exists(lifted_at_epoch) "
            "AND (attribute_not_exists(stopped_until_epoch) OR stopped_until_epoch > :now)",
            ExpressionAttributeValues={":by": lifted["lifted_by"], ":now": lifted["lifted_at_epoch"]},
            ReturnValues="ALL_OLD",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ConditionFailed as exc:
        # A repeated request, whose first reply was lost, finds what it has done itself.
        ours = exc.item is not None and all(exc.item.get(name) == value for name, value in lifted.items())
        return _stop(exc.item) if exc.item is not None and ours else None
    return _stop(response.get("Attributes") or {})


def stops(calls: DynamoDBCalls, org_id: str, *, now_epoch: float) -> list[Stop]:
    """See `Store.stops`."""
    found = calls.query(
        CONFIG,
        KeyConditionExpression="org_key = :org AND begins_with(resource_key, :stop)",
        ExpressionAttributeValues={
            ":org": items.text(scope_key(org_id, None)),
            ":stop": items.text(STOP_RESOURCE),
        },
        ConsistentRead=True,
    )
    standing = [stop for item in found if (stop := stop_from(item)) and not stop_is_over(stop, now_epoch)]
    return sorted(standing, key=lambda stop: stop.app_id or "")


def _update(calls: DynamoDBCalls, org_id: str, stop: Stop) -> dict[str, Any]:
    """The update that puts a stop and leaves what is remembered of automatic ones."""
    values = {
        ":by": items.text(stop.stopped_by),
        ":reason": items.text(stop.reason),
        ":at": items.number(stop.stopped_at_epoch),
    }
    changes = "SET stopped_by = :by, #reason = :reason, stopped_at_epoch = :at"
    removed = "lifted_by, lifted_at_epoch"
    if stop.expires_at_epoch is None:
        removed += ", stopped_until_epoch"
    else:
        changes += ", stopped_until_epoch = :until"
        values[":until"] = items.number(stop.expires_at_epoch)
    return {
        "TableName": calls.physical(CONFIG),
        "Key": stop_key(org_id, stop.app_id),
        "UpdateExpression": f"{changes} REMOVE {removed}",
        "ExpressionAttributeNames": {"#reason": "reason"},
        "ExpressionAttributeValues": values,
    }


def _stop(item: Item) -> Stop:
    try:
        app_id = items.resource(item).removeprefix(STOP_RESOURCE)
        return Stop(
            app_id=None if app_id == ALL_APPS else app_id,
            stopped_by=item["stopped_by"]["S"],
            reason=item.get("reason", {}).get("S", ""),
            stopped_at_epoch=items.whole(item, "stopped_at_epoch", 0),
            expires_at_epoch=items.whole(item, "stopped_until_epoch") if "stopped_until_epoch" in item else None,
        )
    except (KeyError, ValueError, ArithmeticError) as exc:
        raise items.unreadable(item, exc) from exc

"""An org's apps and registered inference profiles in DynamoDB's Config table.

``PROFILE#{label}`` items stand under the key of the org, or of the app as the Price Keeper schema specification has it
(``ORG#{org_id}#APP#{app_id}``).
"""

from datetime import UTC, datetime

from ..core.keys import scope_key
from . import dynamodb_items as items
from .contract import Profile
from .dynamodb_calls import DynamoDBCalls, Item
from .rules import check_app
from .tables import CONFIG

PROFILE_RESOURCE = "PROFILE#"


def app_ids(calls: DynamoDBCalls, org_id: str) -> list[str]:
    """See `Store.app_ids`."""
    found = calls.query(
        CONFIG,
        KeyConditionExpression="org_key = :org AND begins_with(resource_key, :app)",
        ExpressionAttributeValues={
            ":org": items.text(scope_key(org_id, None)),
            ":app": items.text(items.APP_RESOURCE),
        },
        ProjectionExpression="resource_key",
        ConsistentRead=True,
    )
    return sorted(items.resource(item).removeprefix(items.APP_RESOURCE) for item in found)


def put_profile(calls: DynamoDBCalls, org_id: str, profile: Profile) -> None:
    """See `Store.put_profile`."""
    check_app(profile.app_id)
    created_at = datetime.fromtimestamp(profile.created_at_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    calls.call(
        "UpdateItem",
        CONFIG,
        TableName=calls.physical(CONFIG),
        Key=_profile_key(org_id, profile.app_id, profile.label),
        UpdateExpression="SET profile_label = :label, inference_profile_arn = :arn, description = :description, "
        "created_at = if_not_exists(created_at, :created), updated_at_epoch = :updated",
        ExpressionAttributeValues={
            ":label": items.text(profile.label),
            ":arn": items.text(profile.arn),
            ":description": items.text(profile.description),
            ":created": items.text(created_at),
            ":updated": items.number(profile.updated_at_epoch),
        },
    )


def remove_profile(calls: DynamoDBCalls, org_id: str, app_id: str | None, label: str) -> bool:
    """See `Store.remove_profile`."""
    check_app(app_id)
    response = calls.call(
        "DeleteItem",
        CONFIG,
        TableName=calls.physical(CONFIG),
        Key=_profile_key(org_id, app_id, label),
        ReturnValues="ALL_OLD",
    )
    return bool(response.get("Attributes"))


def profiles(calls: DynamoDBCalls, org_id: str, app_id: str | None) -> list[Profile]:
    """See `Store.profiles`. Half a read unit for the org and another for the app, as long as they are within 4 KB."""
    found: list[Profile] = []
    for app in dict.fromkeys((None, app_id)):
        of_app = calls.query(
            CONFIG,
            KeyConditionExpression="org_key = :org AND begins_with(resource_key, :profile)",
            ExpressionAttributeValues={
                ":org": items.text(scope_key(org_id, app)),
                ":profile": items.text(PROFILE_RESOURCE),
            },
        )
        found += sorted((_profile(item, app) for item in of_app), key=lambda profile: profile.label)
    return found


def _profile_key(org_id: str, app_id: str | None, label: str) -> Item:
    return {"org_key": items.text(scope_key(org_id, app_id)), "resource_key": items.text(f"{PROFILE_RESOURCE}{label}")}


def _profile(item: Item, app_id: str | None) -> Profile:
    """The profile of an item. Raises StoreError if it is none."""
    try:
        created_at = item.get("created_at", {}).get("S")
        created = datetime.fromisoformat(created_at) if created_at else None
        if created is not None and created.tzinfo is None:
            created = created.replace(tzinfo=UTC)
        return Profile(
            app_id=app_id,
            label=items.resource(item).removeprefix(PROFILE_RESOURCE),
            arn=item["inference_profile_arn"]["S"],
            description=item.get("description", {}).get("S", ""),
            created_at_epoch=int(created.timestamp()) if created else 0,
            updated_at_epoch=items.whole(item, "updated_at_epoch", 0),
        )
    except (KeyError, ValueError, ArithmeticError) as exc:
        raise items.unreadable(item, exc) from exc

"""Items of the DynamoDB tables and the values they stand for. Attributes: the Price Keeper schema specification."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from ..core.account import Amounts
from ..core.keys import UsageKey, date_key, scope_key, usage_key
from ..core.money import micros_text, pico_from_micros
from ..core.usage import Usage
from .contract import DailyTotal, Override, Sticky, UnreadableItem
from .dynamodb_calls import Item
from .rules import ALL_APPS, RESERVED, expired

_TO_ITEM = TypeSerializer()
# Any: its stubs want one dict type per DynamoDB type
_FROM_ITEM: Any = TypeDeserializer()

ORG_RESOURCE = "#"
APP_RESOURCE = "APP#"


def text(value: str) -> dict[str, str]:
    return {"S": value}


def number(value: int | str) -> dict[str, str]:
    return {"N": str(value)}


def cost(pico_usd: int) -> dict[str, str]:
    """``cost_usd_micros``, with as many decimals (up to six) as it takes to be exact."""
    return {"N": micros_text(pico_usd)}


def day_item_key(name: str, key: str, day: str) -> Item:
    """The key of an item kept per day, whose partition key attribute is ``name``."""
    return {name: text(key), "date_key": text(date_key(day))}


def config_key(org_id: str, app_id: str | None) -> Item:
    """The key of an org's (``app_id`` None) or app's Config item."""
    resource = ORG_RESOURCE if app_id is None else f"{APP_RESOURCE}{app_id}"
    return {"org_key": text(scope_key(org_id, None)), "resource_key": text(resource)}


def override_key(org_id: str, app_id: str | None) -> Item:
    """The key of the override for an app, or for all of the org's (``app_id`` None)."""
    resource = f"OVERRIDE#{ALL_APPS if app_id is None else app_id}"
    return {"org_key": text(scope_key(org_id, None)), "resource_key": text(resource)}


def resource(item: Item) -> str:
    """The sort key of an item of the Config table."""
    key: str = item["resource_key"]["S"]
    return key


def unreadable(item: Item, exc: Exception) -> UnreadableItem:
    """The error for an item that is not what the specification says. Shows its keys, none of its values."""
    keys = {name: value.get("S") for name, value in item.items() if name.endswith("_key")}
    return UnreadableItem(f"DynamoDB item {keys} cannot be read ({type(exc).__name__}: {exc}); correct or delete it")


def whole(item: Item, name: str, default: int | None = None) -> int:
    """A whole number. Raises KeyError or ValueError without one."""
    if name not in item and default is not None:
        return default
    digits: str = item[name]["N"]
    if digits.isdigit():
        return int(digits)
    value = Decimal(digits)
    if value != int(value):
        raise ValueError(f"{name} must be a whole number, got {digits}")
    return int(value)


def counters(item: Item) -> Amounts:
    """The amounts of a shard or daily total; what is missing was never added to. Raises ValueError or KeyError."""
    return Amounts(
        pico_from_micros(item["cost_usd_micros"]["N"]),
        Usage(*(whole(item, name, 0) for name in Usage._fields)),
        whole(item, "requests", 0),
    )


def shard_count(item: Item | None) -> int:
    """The largest shard count that an item was written under; 0 where it does not say (another program's)."""
    return whole(item or {}, "shard_count", 0)


def granted(item: Item) -> int | None:
    """What a Leases item says is granted, in pico-USD; None if it does not say. Raises ValueError."""
    if "granted_usd_micros" not in item:
        return None
    return pico_from_micros(item["granted_usd_micros"]["N"])


def total_item(key: UsageKey, total: DailyTotal) -> Item:
    """The DailyTotal item."""
    return {
        **day_item_key("usage_key", usage_key(key.scope, key.label), key.day),
        "cost_usd_micros": cost(total.amounts.cost_pico_usd),
        **{name: number(count) for name, count in zip(Usage._fields, total.amounts.usage, strict=True)},
        "requests": number(total.amounts.requests),
        "updated_at_epoch": number(total.updated_at_epoch),
    }


def sticky_item(scope: str, day: str, sticky: Sticky) -> Item:
    """The StickyState item."""
    return {
        **day_item_key("scope_key", scope, day),
        "active_model_label": text(sticky.label),
        "active_model_index": number(sticky.position),
        "reason": text(sticky.reason),
        "previous_model_label": text(sticky.previous_label),
        "activated_at_epoch": number(sticky.activated_at_epoch),
        "expires_at_epoch": number(sticky.expires_at_epoch),
    }


def sticky_from(item: Item) -> Sticky:
    """The sticky state of an item. Raises StoreError if it is none."""
    try:
        return Sticky(
            label=item["active_model_label"]["S"],
            position=whole(item, "active_model_index"),
            reason=item.get("reason", {}).get("S", ""),
            previous_label=item.get("previous_model_label", {}).get("S", ""),
            activated_at_epoch=whole(item, "activated_at_epoch", 0),
            expires_at_epoch=whole(item, "expires_at_epoch"),
        )
    except (KeyError, ValueError, ArithmeticError) as exc:
        raise unreadable(item, exc) from exc


def override_item(org_id: str, app_id: str | None, override: Override) -> Item:
    """The Config item of an override."""
    return {
        **override_key(org_id, app_id),
        "model_label": text(override.label),
        "reason": text(override.reason),
        "created_by": text(override.created_by),
        "created_at_epoch": number(override.created_at_epoch),
        "expires_at_epoch": number(override.expires_at_epoch),
    }


def override_from(item: Item) -> Override:
    """The override of an item. Raises StoreError if it is none."""
    try:
        return Override(
            label=item["model_label"]["S"],
            reason=item.get("reason", {}).get("S", ""),
            created_by=item.get("created_by", {}).get("S", ""),
            created_at_epoch=whole(item, "created_at_epoch", 0),
            expires_at_epoch=whole(item, "expires_at_epoch"),
        )
    except (KeyError, ValueError, ArithmeticError) as exc:
        raise unreadable(item, exc) from exc


def config_item(org_id: str, app_id: str | None, plain: Mapping[str, Any]) -> Item:
    """The Config item of plain values (see `rules.plain_item`)."""
    return {
        **config_key(org_id, app_id),
        **{name: _TO_ITEM.serialize(_with_decimals(value)) for name, value in plain.items()},
    }


def config_from(item: Item | None, now_epoch: float) -> dict[str, Any] | None:
    """The plain values of a Config item, without its keys; None for an expired one."""
    if item is None:
        return None
    values = {name: _plain(_FROM_ITEM.deserialize(dict(value))) for name, value in item.items()}
    until = values.get("expires_at_epoch")
    if isinstance(until, int | float) and expired(until, now_epoch):
        return None
    return {name: value for name, value in values.items() if name not in RESERVED}


def _with_decimals(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, dict):
        return {name: _with_decimals(inner) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_with_decimals(inner) for inner in cast("list[object]", value)]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in cast("list[object]", value)]
    if isinstance(value, set):  # another program's
        return sorted(_plain(inner) for inner in cast("set[object]", value))
    return value

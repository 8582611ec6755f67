"""The layers of a configuration: the last word on each key, and how ``quotas`` and orderings add up over them."""

from collections.abc import Mapping
from typing import Any, cast

from . import budget_values as values
from .budget import ModelLabel

Layer = tuple[str, Mapping[str, Any]]  # a path for messages, and what stands there

KEYWORD = "keyword"  # the path of constructor keywords


def section(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key; an empty one if there is none."""
    found = data.get(key)
    return cast(Mapping[str, Any], found) if isinstance(found, Mapping) else {}


def path_of(layers: list[Layer], key: str) -> str:
    """Where the last word on a key stands, as a key path."""
    return joined(next((path for path, layer in reversed(layers) if key in layer), "org_defaults"), key)


def joined(path: str, key: str) -> str:
    if path == KEYWORD:
        return f"{path} {key}"
    if path == "metering" and key == "agg_shard_count":
        key = "usage_agg_shard_count"
    return f"{path}.{key}" if path else key


def pick(layers: list[Layer], key: str, check: values.Check, problems: list[str], *, optional: bool = False) -> Any:
    """The checked value of the last layer that has a key; None (and a problem) if none has, or it is wrong."""
    given = [(path, layer[key]) for path, layer in layers if key in layer]
    if not given and not optional and key not in values.SETTINGS:
        problems.append(f"org_defaults.{key}: missing; set it there or for the org")
    result: Any = None
    for path, value in given:  # a mistake is named even where a later layer would hide it
        result = check(value, joined(path, key), problems)
    return result


def merge_quotas(
    layers: list[Layer], labels: Mapping[str, ModelLabel] | None, problems: list[str]
) -> dict[str, int | None]:
    merged: dict[str, int | None] = {}
    mapped: Mapping[str, Any] = {}  # by the layers so far: a later one may replace labels that have a quota here
    for path, layer in layers:
        mapped = section(layer, "model_labels") or mapped
        if "quotas" not in layer:
            continue
        where = f"{path}.quotas"
        for label, quota in values.quotas(layer["quotas"], where, problems).items():
            if labels is None or label in labels:
                merged[label] = quota
            elif label not in mapped:
                problems.append(
                    f"{where}.{label}: no such label; map it in model_labels or use one of {', '.join(labels)}"
                )
    return merged


def check_hidden_orderings(layers: list[Layer], labels: Mapping[str, ModelLabel], problems: list[str]) -> None:
    """Orderings that a later layer replaces may name its labels or those mapped so far, and no others."""
    mapped: Mapping[str, Any] = {}
    for path, layer in layers:
        mapped = section(layer, "model_labels") or mapped
        ordering = layer.get("model_ordering")
        if not isinstance(ordering, list | tuple):
            continue
        for label in cast("list[Any]", ordering):
            if label not in labels and label not in mapped:
                problems.append(_no_mapping(joined(path, "model_ordering"), label, labels))


def _no_mapping(path: str, label: object, labels: Mapping[str, ModelLabel]) -> str:
    return (
        f"{path}: label {label!r} has no mapping; add model_labels.{label}: {{id: ...}} "
        f"or use one of {', '.join(labels)}"
    )


def check_ordering(
    ordering: list[str],
    labels: Mapping[str, ModelLabel],
    quotas: Mapping[str, int | None],
    path: str,
    problems: list[str],
) -> None:
    for label in ordering:
        if label not in labels:
            problems.append(_no_mapping(path, label, labels))
        elif label not in quotas:
            problems.append(
                f"{path}: label {label!r} has no quota anywhere; add org_defaults.quotas.{label} "
                "(USD micros a day, null for unlimited)"
            )

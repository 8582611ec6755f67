"""From plain data (a YAML file, a mapping, Config items) to a `ScopeBudget`, with every mistake named.

Layers, each over the one before: built-in defaults, ``metering``, ``org_defaults``, the org's section, the org's
Config item, the app's section, the app's Config item, constructor keywords. ``quotas`` merge per label; every other
key is replaced whole. ``quota_scope``, ``timezone`` and ``agg_shard_count`` are the org's alone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import tzinfo
from typing import Any, cast

from . import budget_values as values
from .budget import ModelLabel, ScopeBudget, Settings
from .errors import ConfigError
from .keys import app_id_problem, id_problem, scope_key

_METERING = {
    "usage_agg_shard_count": "agg_shard_count",
    "tight_mode_threshold_pct": "tight_mode_threshold_pct",
    "refresh_interval_normal_secs": "refresh_interval_normal_secs",
    "refresh_interval_tight_secs": "refresh_interval_tight_secs",
    "sticky_fallback_enabled": "sticky_fallback_enabled",
    "aggregator_interval_secs": "aggregator_interval_secs",
}
_SETTINGS = tuple(setting.name for setting in fields(Settings))
_NOT_YET = ("enforcement", "max_cost_usd_micros")
_APP_KEYS = {
    "model_ordering",
    "quotas",
    "tight_mode_threshold_pct",
    "refresh_interval_normal_secs",
    "refresh_interval_tight_secs",
    "sticky_fallback_enabled",
    "stop_at_pct",
    "app_name",
    *_SETTINGS,
    *_NOT_YET,
}
_KEYWORD = "keyword"
_ORG_ALONE = {"timezone", "quota_scope", "agg_shard_count"}
_ORG_KEYS = (_APP_KEYS - {"app_name"}) | _ORG_ALONE | {"model_labels", "org_name"}
_TOP_KEYS = {"model_labels", "metering", "org_defaults", "orgs"}

_BUILT_IN: dict[str, Any] = {
    "agg_shard_count": 8,
    "tight_mode_threshold_pct": 95,
    "refresh_interval_normal_secs": 300,
    "refresh_interval_tight_secs": 60,
    "sticky_fallback_enabled": True,
    "aggregator_interval_secs": 60,
    "quota_scope": "APP",
}

ZoneOf = Callable[[str], tzinfo]
Layer = tuple[str, Mapping[str, Any]]  # a path for messages, and what stands there


@dataclass(frozen=True, slots=True)
class Budgets:
    """A whole configuration, checked; `scope` gives the budget of one org and app."""

    source: str
    data: Mapping[str, Any]
    zone_of: ZoneOf

    def org_ids(self) -> list[str]:
        """The orgs that are listed."""
        return list(_section(self.data, "orgs"))

    def app_ids(self, org_id: str) -> list[str]:
        """The apps that are listed for an org."""
        return list(_section(_section(_section(self.data, "orgs"), org_id), "apps"))

    def aggregator_interval_secs(self) -> int:
        return int(_section(self.data, "metering").get("aggregator_interval_secs", 60))

    def shard_count(self, org_id: str) -> int:
        """The shard count that the file gives an org; its Config item may say otherwise."""
        org = {**_section(self.data, "org_defaults"), **_section(_section(self.data, "orgs"), org_id)}
        default = _section(self.data, "metering").get("usage_agg_shard_count", _BUILT_IN["agg_shard_count"])
        return int(org.get("agg_shard_count", default))

    def scope(
        self,
        org_id: str,
        app_id: str | None,
        *,
        org_item: Mapping[str, Any] | None = None,
        app_item: Mapping[str, Any] | None = None,
        keywords: Mapping[str, Any] | None = None,
    ) -> ScopeBudget:
        """The budget of an org and app; an org or app that is not listed takes the defaults.

        Raises ConfigError naming each mistake's key path, value and remedy.
        """
        problems: list[str] = []
        if problem := id_problem(org_id):
            problems.append(f"org_id: {problem}")
        if app_id is not None and (problem := app_id_problem(app_id)):
            problems.append(f"app_id: {problem}")
        if not problems:
            budget = _resolve(self, org_id, app_id, org_item, app_item, keywords or {}, problems)
            if budget is not None and not problems:
                return budget
        raise _error(self.source, problems)


def check(data: object, *, source: str, zone_of: ZoneOf) -> Budgets:
    """Check a whole configuration: every org and app in it, and the defaults.

    ``zone_of`` gives the zone of an IANA name and raises ValueError or KeyError for an unknown one.
    Raises ConfigError with all the mistakes found.
    """
    problems: list[str] = []
    if data is None or data == {}:
        raise _error(source, ["is empty; it needs at least model_labels and org_defaults"])
    if not isinstance(data, Mapping):
        raise _error(source, [f"must be a mapping, got {type(data).__name__}"])
    top = cast(Mapping[str, Any], data)
    _unknown_keys(top, _TOP_KEYS, "", problems)
    for key in _TOP_KEYS & set(top):
        values.mapping(top[key], key, problems)
    _check_keys(top, problems)
    if problems:
        raise _error(source, problems)
    budgets = Budgets(source, top, zone_of)
    for org_id, app_id in _listed(top):
        _resolve(budgets, org_id, app_id, None, None, {}, problems)
    if problems:
        raise _error(source, problems)
    return budgets


def _error(source: str, problems: Iterable[str]) -> ConfigError:
    unique = dict.fromkeys(_one_line(problem) for problem in problems)
    return ConfigError(f"{source}: " + ("\n" + " " * (len(source) + 2)).join(unique))


def _one_line(problem: str) -> str:
    # A key may hold anything, line breaks too.
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in problem)


def _section(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = data.get(key)
    return cast(Mapping[str, Any], section) if isinstance(section, Mapping) else {}


def _listed(top: Mapping[str, Any]) -> Iterable[tuple[str, str | None]]:
    """Every org and app to check; where none is listed, one that takes the defaults."""
    orgs = _section(top, "orgs")
    for org_id in orgs or (values.UNLISTED,):
        for app_id in _section(_section(orgs, org_id), "apps") or (values.UNLISTED,):
            yield org_id, app_id


def _unknown_keys(section: Mapping[Any, Any], known: Iterable[str], path: str, problems: list[str]) -> None:
    for key in section:
        if key not in known:
            where = f"{path}.{key}" if path else str(key)
            problems.append(f"{where}: unknown key; known here: {', '.join(sorted(known))}")


def _check_keys(top: Mapping[str, Any], problems: list[str]) -> None:
    """Which keys may stand where, and whether ids are ids. Values are checked where layers are resolved."""
    _unknown_keys(_section(top, "metering"), _METERING, "metering", problems)
    _unknown_keys(_section(top, "org_defaults"), _ORG_KEYS - {"org_name"}, "org_defaults", problems)
    for org_id, org in _section(top, "orgs").items():
        path = f"orgs.{org_id}"
        if problem := id_problem(org_id):
            problems.append(f"{path}: an org id {problem}")
        if org is None or not values.mapping(org, path, problems):
            continue
        _unknown_keys(org, _ORG_KEYS | {"apps"}, path, problems)
        if "apps" in org and not values.mapping(org["apps"], f"{path}.apps", problems):
            continue
        for app_id, app in _section(org, "apps").items():
            app_path = f"{path}.apps.{app_id}"
            if problem := app_id_problem(app_id):
                problems.append(f"{app_path}: an app id {problem}")
            if app is None or not values.mapping(app, app_path, problems):
                continue
            for key in _ORG_ALONE & set(app):
                problems.append(f"{app_path}.{key}: belongs to the org alone; set it in {path}")
            _unknown_keys({key: app[key] for key in app if key not in _ORG_ALONE}, _APP_KEYS, app_path, problems)


def _item_layer(path: str, item: Mapping[str, Any] | None, known: Iterable[str]) -> Layer:
    """A Config item as a layer. Another program may keep attributes of its own there, so unknown ones are left."""
    return path, {key: value for key, value in (item or {}).items() if key in known}


def _resolve(
    budgets: Budgets,
    org_id: str,
    app_id: str | None,
    org_item: Mapping[str, Any] | None,
    app_item: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
    problems: list[str],
) -> ScopeBudget | None:
    top = budgets.data
    org = _section(_section(top, "orgs"), org_id)
    metering = {_METERING[key]: value for key, value in _section(top, "metering").items()}
    org_layers: list[Layer] = [
        ("the built-in default", _BUILT_IN),
        ("metering", metering),
        ("", {"model_labels": top["model_labels"]} if "model_labels" in top else {}),
        ("org_defaults", _section(top, "org_defaults")),
        (f"orgs.{org_id}", {key: value for key, value in org.items() if key != "apps"}),
        _item_layer(f"the org's Config item ORG#{org_id}", org_item, _ORG_KEYS),
    ]
    app_layers: list[Layer] = []
    if app_id is not None:
        app_layers = [
            (f"orgs.{org_id}.apps.{app_id}", _section(_section(org, "apps"), app_id)),
            _item_layer(f"the app's Config item ORG#{org_id} APP#{app_id}", app_item, _APP_KEYS),
        ]
    scope_kind = _pick(org_layers, "quota_scope", values.quota_scope, problems)
    if scope_kind == "ORG":
        for path, layer in app_layers:
            for key in {"quotas", "model_ordering", "stop_at_pct"} & set(layer):
                problems.append(
                    f"{path}.{key}: not possible under quota_scope: ORG, where all apps share one budget; "
                    "set it for the org, or use quota_scope: APP"
                )
    elif app_id is None:
        problems.append(f"app_id: left out, but org {org_id!r} has quota_scope: APP; name an app")
    layers = [*org_layers, *app_layers, (_KEYWORD, keywords)]
    labels = _pick(org_layers, "model_labels", values.model_labels, problems)
    ordering = _pick(layers, "model_ordering", values.model_ordering, problems)
    zone = _pick(org_layers, "timezone", values.timezone(budgets.zone_of), problems)
    quotas = _merge_quotas(layers, labels, problems)
    numbers = {key: _pick(layers, key, check, problems) for key, check in values.NUMBERS.items()}
    sticky = _pick(layers, "sticky_fallback_enabled", values.boolean, problems)
    settings = {key: _pick(layers, key, check, problems) for key, check in values.SETTINGS.items()}
    for key, check in values.NOT_YET.items():
        _pick(layers, key, check, problems, optional=True)
    stop_at_pct = _pick(layers, "stop_at_pct", values.stop_at_pct, problems, optional=True)
    if labels is not None and ordering is not None:
        values.check_total(stop_at_pct, ordering, quotas, _path(layers, "stop_at_pct"), problems)
        _check_ordering(ordering, labels, quotas, _path(layers, "model_ordering"), problems)
        _check_hidden_orderings(layers, labels, problems)
    if problems or zone is None or ordering is None:
        return None
    return ScopeBudget(
        org_id=org_id,
        app_id=app_id,
        scope=scope_key(org_id, None if scope_kind == "ORG" else app_id),
        timezone_name=zone[0],
        timezone=zone[1],
        ordering=tuple(ordering),
        labels=cast(dict[str, ModelLabel], labels),
        quotas=quotas,
        shard_count=numbers["agg_shard_count"],
        tight_mode_threshold_pct=numbers["tight_mode_threshold_pct"],
        refresh_interval_normal_secs=numbers["refresh_interval_normal_secs"],
        refresh_interval_tight_secs=numbers["refresh_interval_tight_secs"],
        sticky_fallback_enabled=sticky,
        aggregator_interval_secs=numbers["aggregator_interval_secs"],
        settings=Settings(**{key: value for key, value in settings.items() if value is not None}),
        stop_at_pct=stop_at_pct,
    )


def _path(layers: list[Layer], key: str) -> str:
    """Where the last word on a key stands, as a key path."""
    return _joined(next((path for path, layer in reversed(layers) if key in layer), "org_defaults"), key)


def _joined(path: str, key: str) -> str:
    if path == _KEYWORD:
        return f"{path} {key}"
    if path == "metering" and key == "agg_shard_count":
        key = "usage_agg_shard_count"
    return f"{path}.{key}" if path else key


def _pick(layers: list[Layer], key: str, check: values.Check, problems: list[str], *, optional: bool = False) -> Any:
    """The checked value of the last layer that has a key; None (and a problem) if none has, or it is wrong."""
    given = [(path, layer[key]) for path, layer in layers if key in layer]
    if not given and not optional and key not in values.SETTINGS:
        problems.append(f"org_defaults.{key}: missing; set it there or for the org")
    result: Any = None
    for path, value in given:  # a mistake is named even where a later layer would hide it
        result = check(value, _joined(path, key), problems)
    return result


def _merge_quotas(
    layers: list[Layer], labels: Mapping[str, ModelLabel] | None, problems: list[str]
) -> dict[str, int | None]:
    merged: dict[str, int | None] = {}
    mapped: Mapping[str, Any] = {}  # by the layers so far: a later one may replace labels that have a quota here
    for path, layer in layers:
        mapped = _section(layer, "model_labels") or mapped
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


def _check_hidden_orderings(layers: list[Layer], labels: Mapping[str, ModelLabel], problems: list[str]) -> None:
    """Orderings that a later layer replaces may name its labels or those mapped so far, and no others."""
    mapped: Mapping[str, Any] = {}
    for path, layer in layers:
        mapped = _section(layer, "model_labels") or mapped
        ordering = layer.get("model_ordering")
        if not isinstance(ordering, list | tuple):
            continue
        for label in cast("list[Any]", ordering):
            if label not in labels and label not in mapped:
                problems.append(_no_mapping(_joined(path, "model_ordering"), label, labels))


def _no_mapping(path: str, label: object, labels: Mapping[str, ModelLabel]) -> str:
    return (
        f"{path}: label {label!r} has no mapping; add model_labels.{label}: {{id: ...}} "
        f"or use one of {', '.join(labels)}"
    )


def _check_ordering(
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

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
from .budget_layers import (
    KEYWORD,
    Layer,
    check_hidden_orderings,
    check_ordering,
    merge_quotas,
    path_of,
    pick,
    section,
)
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
_APP_KEYS = {
    "model_ordering",
    "quotas",
    "tight_mode_threshold_pct",
    "refresh_interval_normal_secs",
    "refresh_interval_tight_secs",
    "sticky_fallback_enabled",
    "stop_at_pct",
    "app_name",
    "daily_total_usd_micros",
    *_SETTINGS,
}
_ORG_ALONE = {"timezone", "quota_scope", "agg_shard_count", "org_daily_total_usd_micros"}
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


@dataclass(frozen=True, slots=True)
class Budgets:
    """A whole configuration, checked; `scope` gives the budget of one org and app."""

    source: str
    data: Mapping[str, Any]
    zone_of: ZoneOf

    def org_ids(self) -> list[str]:
        """The orgs that are listed."""
        return list(section(self.data, "orgs"))

    def app_ids(self, org_id: str) -> list[str]:
        """The apps that are listed for an org."""
        return list(section(section(section(self.data, "orgs"), org_id), "apps"))

    def aggregator_interval_secs(self) -> int:
        return int(section(self.data, "metering").get("aggregator_interval_secs", 60))

    def shard_count(self, org_id: str) -> int:
        """The shard count that the file gives an org; its Config item may say otherwise."""
        org = {**section(self.data, "org_defaults"), **section(section(self.data, "orgs"), org_id)}
        default = section(self.data, "metering").get("usage_agg_shard_count", _BUILT_IN["agg_shard_count"])
        return int(org.get("agg_shard_count", default))

    def scope(
        self,
        org_id: str,
        app_id: str | None,
        *,
        org_item: Mapping[str, Any] | None = None,
        app_item: Mapping[str, Any] | None = None,
        keywords: Mapping[str, Any] | None = None,
        profiles: Mapping[str, str] | None = None,
    ) -> ScopeBudget:
        """The budget of an org and app; an org or app that is not listed takes the defaults.

        ``profiles``: the ARN of each label that is registered as an inference profile, which takes the place of its
        mapping.
        Raises ConfigError naming each mistake's key path, value and remedy.
        """
        problems: list[str] = []
        if problem := id_problem(org_id):
            problems.append(f"org_id: {problem}")
        if app_id is not None and (problem := app_id_problem(app_id)):
            problems.append(f"app_id: {problem}")
        if not problems:
            budget = _resolve(self, org_id, app_id, org_item, app_item, keywords or {}, problems, profiles or {})
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


def _listed(top: Mapping[str, Any]) -> Iterable[tuple[str, str | None]]:
    """Every org and app to check; where none is listed, one that takes the defaults."""
    orgs = section(top, "orgs")
    for org_id in orgs or (values.UNLISTED,):
        for app_id in section(section(orgs, org_id), "apps") or (values.UNLISTED,):
            yield org_id, app_id


def _unknown_keys(section: Mapping[Any, Any], known: Iterable[str], path: str, problems: list[str]) -> None:
    for key in section:
        if key not in known:
            where = f"{path}.{key}" if path else str(key)
            problems.append(f"{where}: unknown key; known here: {', '.join(sorted(known))}")


def _check_keys(top: Mapping[str, Any], problems: list[str]) -> None:
    """Which keys may stand where, and whether ids are ids. Values are checked where layers are resolved."""
    _unknown_keys(section(top, "metering"), _METERING, "metering", problems)
    _unknown_keys(section(top, "org_defaults"), _ORG_KEYS - {"org_name"}, "org_defaults", problems)
    for org_id, org in section(top, "orgs").items():
        path = f"orgs.{org_id}"
        if problem := id_problem(org_id):
            problems.append(f"{path}: an org id {problem}")
        if org is None or not values.mapping(org, path, problems):
            continue
        _unknown_keys(org, _ORG_KEYS | {"apps"}, path, problems)
        if "apps" in org and not values.mapping(org["apps"], f"{path}.apps", problems):
            continue
        for app_id, app in section(org, "apps").items():
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
    profiles: Mapping[str, str] | None = None,
) -> ScopeBudget | None:
    top = budgets.data
    org = section(section(top, "orgs"), org_id)
    metering = {_METERING[key]: value for key, value in section(top, "metering").items()}
    org_layers: list[Layer] = [
        ("the built-in default", _BUILT_IN),
        ("metering", metering),
        ("", {"model_labels": top["model_labels"]} if "model_labels" in top else {}),
        ("org_defaults", section(top, "org_defaults")),
        (f"orgs.{org_id}", {key: value for key, value in org.items() if key != "apps"}),
        _item_layer(f"the org's Config item ORG#{org_id}", org_item, _ORG_KEYS),
    ]
    app_layers: list[Layer] = []
    if app_id is not None:
        app_layers = [
            (f"orgs.{org_id}.apps.{app_id}", section(section(org, "apps"), app_id)),
            _item_layer(f"the app's Config item ORG#{org_id} APP#{app_id}", app_item, _APP_KEYS),
        ]
    scope_kind = pick(org_layers, "quota_scope", values.quota_scope, problems)
    if scope_kind == "ORG":
        for path, layer in app_layers:
            for key in {"quotas", "model_ordering", "daily_total_usd_micros", "stop_at_pct"} & set(layer):
                problems.append(
                    f"{path}.{key}: not possible under quota_scope: ORG, where all apps share one budget; "
                    "set it for the org, or use quota_scope: APP"
                )
    elif app_id is None:
        problems.append(f"app_id: left out, but org {org_id!r} has quota_scope: APP; name an app")
    layers = [*org_layers, *app_layers, (KEYWORD, keywords)]
    labels = pick(org_layers, "model_labels", values.model_labels, problems, optional=bool(profiles))
    if profiles:
        registered = {label: ModelLabel(label, arn, registered=True) for label, arn in profiles.items()}
        labels = {**cast(dict[str, ModelLabel], labels or {}), **registered}
    ordering = pick(layers, "model_ordering", values.model_ordering, problems)
    zone = pick(org_layers, "timezone", values.timezone(budgets.zone_of), problems)
    quotas = merge_quotas(layers, labels, problems)
    numbers = {key: pick(layers, key, check, problems) for key, check in values.NUMBERS.items()}
    sticky = pick(layers, "sticky_fallback_enabled", values.boolean, problems)
    settings = {key: pick(layers, key, check, problems) for key, check in values.SETTINGS.items()}
    caps = {key: pick(layers, key, check, problems, optional=True) for key, check in values.CAPS.items()}
    stop_at_pct = pick(layers, "stop_at_pct", values.stop_at_pct, problems, optional=True)
    if labels is not None and ordering is not None:
        if caps["daily_total_usd_micros"] is None:
            values.check_total(stop_at_pct, ordering, quotas, path_of(layers, "stop_at_pct"), problems)
        check_ordering(ordering, labels, quotas, path_of(layers, "model_ordering"), problems)
        check_hidden_orderings(layers, labels, problems)
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
        **caps,
        settings=Settings(**{key: value for key, value in settings.items() if value is not None}),
        stop_at_pct=stop_at_pct,
    )

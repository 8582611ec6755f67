"""Configurations: what they mean layer by layer, and every mistake named with its place, its value and a remedy."""

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, tzinfo
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget.core.budget import HandPrice, ModelLabel, ScopeBudget, Settings
from bedrock_budget.core.budget_rules import Budgets, check
from bedrock_budget.core.errors import BudgetError, ConfigError
from bedrock_budget.core.pricing import Price

#: The example of the documentation, as it stands there.
EXAMPLE = """
model_labels:
  premium:  {id: us.anthropic.claude-sonnet-4-5-20250929-v1:0}            # priced by the price table
  standard: {id: amazon.nova-pro-v1:0, input_price_usd_micros_per_1m: 800000, output_price_usd_micros_per_1m: 3200000}   # or by hand
  economy:  {id: amazon.nova-micro-v1:0}
metering: {usage_agg_shard_count: 8, tight_mode_threshold_pct: 95, refresh_interval_normal_secs: 300, refresh_interval_tight_secs: 60, sticky_fallback_enabled: true}
org_defaults: {timezone: America/New_York, quota_scope: APP, model_ordering: [premium, standard, economy], quotas: {premium: 10000000, standard: 5000000, economy: 2000000}}
orgs:
  acme:
    timezone: Europe/Berlin
    apps:
      chat: {quotas: {premium: 50000000}, tight_mode_threshold_pct: 90}
"""  # noqa: E501


class Missing:
    """Stands for a key that is left out."""

    def __repr__(self) -> str:  # in the names of tests, which are the same in every process
        return "MISSING"


MISSING = Missing()


def config(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The example with values put at key paths (a dot in a key is written ``:``), or taken away (`MISSING`)."""
    data: dict[str, Any] = yaml.safe_load(EXAMPLE)
    for path, value in changes:
        *parents, last = path.split(".")
        section = data
        for key in parents:
            section = section.setdefault(key, {})
        if value is MISSING:
            del section[last]
        else:
            section[last] = value
    return data


def checked(*changes: tuple[str, Any]) -> Budgets:
    return check(config(*changes), source="budget.yaml", zone_of=ZoneInfo)


def problems(data: object) -> list[str]:
    """The mistakes found in a configuration, one a line."""
    with pytest.raises(ConfigError) as caught:
        check(data, source="budget.yaml", zone_of=ZoneInfo)
    assert isinstance(caught.value, BudgetError)
    first, *others = str(caught.value).split("\n")
    assert first.startswith("budget.yaml: ")
    indent = " " * len("budget.yaml: ")
    assert all(line.startswith(indent) for line in others)
    found = [line[len(indent) :] for line in (first, *others)]
    assert len(set(found)) == len(found)  # each mistake once, though every app inherits it
    return found


def scope_problems(budgets: Budgets, org_id: Any, app_id: Any, **layers: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        budgets.scope(org_id, app_id, **layers)
    return str(caught.value)


# -- the example


def test_the_example_means_what_the_documentation_says() -> None:
    budget = checked().scope("acme", "chat")
    assert budget == ScopeBudget(
        org_id="acme",
        app_id="chat",
        scope="ORG#acme#APP#chat",
        timezone_name="Europe/Berlin",
        timezone=ZoneInfo("Europe/Berlin"),
        ordering=("premium", "standard", "economy"),
        labels={
            "premium": ModelLabel("premium", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
            "standard": ModelLabel("standard", "amazon.nova-pro-v1:0", HandPrice(800_000, 3_200_000)),
            "economy": ModelLabel("economy", "amazon.nova-micro-v1:0"),
        },
        quotas={"premium": 50_000_000, "standard": 5_000_000, "economy": 2_000_000},
        shard_count=8,
        tight_mode_threshold_pct=90,
        refresh_interval_normal_secs=300,
        refresh_interval_tight_secs=60,
        sticky_fallback_enabled=True,
        aggregator_interval_secs=60,
        settings=Settings(),
    )
    assert budget.timezone == ZoneInfo("Europe/Berlin")  # not compared above


def test_an_app_that_is_not_listed_takes_its_orgs_settings() -> None:
    budget = checked().scope("acme", "search")
    assert budget.scope == "ORG#acme#APP#search"
    assert budget.timezone_name == "Europe/Berlin"
    assert budget.quotas == {"premium": 10_000_000, "standard": 5_000_000, "economy": 2_000_000}
    assert budget.tight_mode_threshold_pct == 95


def test_an_org_that_is_not_listed_takes_the_defaults() -> None:
    budget = checked().scope("globex", "chat")
    assert budget.scope == "ORG#globex#APP#chat"
    assert budget.timezone_name == "America/New_York"
    assert budget.quotas["premium"] == 10_000_000


def test_what_is_listed() -> None:
    budgets = checked(("orgs.globex", None), ("orgs.acme.apps.search", None))
    assert budgets.org_ids() == ["acme", "globex"]
    assert budgets.app_ids("acme") == ["chat", "search"]
    assert budgets.app_ids("globex") == budgets.app_ids("initech") == []


def test_a_section_of_nothing_takes_all_from_the_layers_before() -> None:
    budgets = checked(("orgs.globex", None), ("orgs.acme.apps.search", None))
    assert budgets.scope("globex", "chat").timezone_name == "America/New_York"
    assert budgets.scope("acme", "search").timezone_name == "Europe/Berlin"


def test_the_least_configuration() -> None:
    data = {
        "model_labels": {"only": {"id": "amazon.nova-micro-v1:0"}},
        "org_defaults": {"timezone": "UTC", "model_ordering": ["only"], "quotas": {"only": None}},
    }
    budgets = check(data, source="config", zone_of=ZoneInfo)
    budget = budgets.scope("acme", "chat")
    assert budget.scope == "ORG#acme#APP#chat"
    assert budget.quota_usd_micros("only") is None
    assert (budget.shard_count, budget.tight_mode_threshold_pct) == (8, 95)
    assert (budget.refresh_interval_normal_secs, budget.refresh_interval_tight_secs) == (300, 60)
    assert budget.sticky_fallback_enabled is True
    assert budgets.aggregator_interval_secs() == budget.aggregator_interval_secs == 60
    assert budgets.shard_count("acme") == 8
    assert budgets.org_ids() == []


def test_any_mapping_will_do_and_stays_as_it_was() -> None:
    data = config()
    frozen = MappingProxyType({key: MappingProxyType(value) for key, value in data.items()})
    before = deepcopy(data)
    assert check(frozen, source="config", zone_of=ZoneInfo).scope("acme", "chat") == checked().scope("acme", "chat")
    assert data == before


def test_names_for_people_are_allowed() -> None:
    budgets = checked(("orgs.acme.org_name", "Acme Corp."), ("orgs.acme.apps.chat.app_name", "Chat"))
    assert budgets.scope("acme", "chat") == checked().scope("acme", "chat")


# -- layers

ALL_LAYERS = ["metering", "org_defaults", "org", "org item", "app", "app item", "keyword"]


def layered(key: str, values_by_layer: Mapping[str, Any]) -> ScopeBudget:
    """The budget where each of some layers sets a key."""
    paths = {"org_defaults": f"org_defaults.{key}", "org": f"orgs.acme.{key}", "app": f"orgs.acme.apps.chat.{key}"}
    paths["metering"] = "metering." + ("usage_agg_shard_count" if key == "agg_shard_count" else key)
    changes = [(paths[layer], value) for layer, value in values_by_layer.items() if layer in paths]
    elsewhere = {layer: {key: value} for layer, value in values_by_layer.items() if layer not in paths}
    base: list[tuple[str, Any]] = [("orgs.acme", {"apps": {"chat": {}}}), ("metering", {})]
    return checked(*base, *changes).scope(
        "acme",
        "chat",
        org_item=elsewhere.get("org item"),
        app_item=elsewhere.get("app item"),
        keywords=elsewhere.get("keyword"),
    )


@pytest.mark.parametrize(
    ("key", "built_in", "layers", "values"),
    [
        ("tight_mode_threshold_pct", 95, ALL_LAYERS[:-1], [11, 12, 13, 14, 15, 16]),
        ("refresh_interval_normal_secs", 300, ALL_LAYERS[:-1], [11, 12, 13, 14, 15, 16]),
        ("refresh_interval_tight_secs", 60, ALL_LAYERS[:-1], [11, 12, 13, 14, 15, 16]),
        ("sticky_fallback_enabled", True, ALL_LAYERS[:-1], [False, True, False, True, False, True]),
        ("agg_shard_count", 8, ALL_LAYERS[:4], [11, 12, 13, 14]),
        ("timezone", None, ["org_defaults", "org", "org item"], ["UTC", "Asia/Kolkata", "Asia/Tokyo"]),
        ("on_store_error", 1_000_000, ALL_LAYERS[1:], ["open", 0, "closed", 1, 2, 3]),
        ("on_exhausted", "raise", ALL_LAYERS[1:], ["last", "raise", "last", "raise", "last", "raise"]),
        ("on_unknown_model", "reject", ALL_LAYERS[1:], ["pass", "reject", "pass", "reject", "pass", "reject"]),
        ("on_unknown_price", "reject", ALL_LAYERS[1:], ["track", "reject", "track", "reject", "track", "reject"]),
        ("refresh", "adaptive", ALL_LAYERS[1:], ["fixed", "adaptive", "fixed", "adaptive", "fixed", "adaptive"]),
    ],
)
def test_each_layer_wins_over_the_ones_before(key: str, built_in: Any, layers: list[str], values: list[Any]) -> None:
    field = {"agg_shard_count": "shard_count", "timezone": "timezone_name"}.get(key, key)

    def value_of(budget: ScopeBudget) -> Any:
        return getattr(budget, field) if hasattr(budget, field) else getattr(budget.settings, field)

    if built_in is not None:
        assert value_of(layered(key, {})) == built_in
    for count in range(1, len(layers) + 1):
        given_ = dict(zip(layers[:count], values[:count], strict=True))
        assert value_of(layered(key, given_)) == values[count - 1]


def test_quotas_merge_label_by_label_through_all_layers() -> None:
    budget = checked(
        ("org_defaults.quotas", {"premium": 1, "standard": 1, "economy": 1}),
        ("orgs.acme.quotas", {"standard": 2, "economy": 2}),
        ("orgs.acme.apps.chat.quotas", {"economy": 4}),
    ).scope("acme", "chat", org_item={"quotas": {"standard": Decimal(3)}}, app_item={"quotas": {"premium": 5}})
    assert budget.quotas == {"premium": 5, "standard": 3, "economy": 4}


def test_null_makes_a_quota_unlimited_and_a_later_layer_limits_it_again() -> None:
    changes = [("org_defaults.quotas.premium", 1), ("orgs.acme.quotas", {"premium": None})]
    changes.append(("orgs.acme.apps.chat", {}))
    assert checked(*changes).scope("acme", "chat").quota_usd_micros("premium") is None
    again = checked(*changes, ("orgs.acme.apps.chat.quotas", {"premium": 0})).scope("acme", "chat")
    assert again.quota_usd_micros("premium") == 0
    assert again.quota_usd_micros("standard") == 5_000_000


def test_every_key_but_quotas_is_replaced_whole() -> None:
    labels = {"cheap": {"id": "amazon.nova-micro-v1:0"}}
    changes = [("orgs.acme.model_labels", labels), ("orgs.acme.model_ordering", ["cheap"])]
    changes += [("orgs.acme.quotas", {"cheap": 7}), ("orgs.acme.apps", {})]
    budgets = checked(*changes)
    budget = budgets.scope("acme", "chat")
    assert set(budget.labels) == {"cheap"}
    assert budget.ordering == ("cheap",)
    assert budget.quotas == {"cheap": 7}  # those of replaced labels have gone with them
    assert set(budgets.scope("globex", "chat").labels) == {"premium", "standard", "economy"}


def test_a_config_item_may_replace_the_labels_of_a_file() -> None:
    item = {"model_labels": {"x": {"id": "m"}}, "model_ordering": ["x"], "quotas": {"x": 7}}
    budget = checked().scope("globex", "chat", org_item=item)
    assert (budget.ordering, budget.quotas) == (("x",), {"x": 7})


def test_an_app_may_have_an_ordering_of_its_own() -> None:
    budgets = checked(("orgs.acme.apps.chat.model_ordering", ["economy", "premium"]))
    assert budgets.scope("acme", "chat").ordering == ("economy", "premium")
    assert budgets.scope("acme", "search").ordering == ("premium", "standard", "economy")


def test_a_label_outside_the_ordering_needs_no_quota_and_is_unlimited() -> None:
    budget = checked(("model_labels.search", {"id": "amazon.titan-embed-text-v2:0"})).scope("acme", "chat")
    assert budget.quota_usd_micros("search") is None
    assert budget.label_of("amazon.titan-embed-text-v2:0") == "search"


def test_a_label_outside_the_ordering_may_have_a_quota() -> None:
    budget = checked(
        ("model_labels.search", {"id": "amazon.titan-embed-text-v2:0"}), ("org_defaults.quotas.search", 9)
    ).scope("acme", "chat")
    assert budget.quota_usd_micros("search") == 9


def test_a_program_may_have_no_file_at_all() -> None:
    item = {
        "model_labels": {"only": {"id": "amazon.nova-micro-v1:0", "input_price_usd_micros_per_1m": Decimal(35_000)}},
        "model_ordering": ["only"],
        "quotas": {"only": Decimal("1E+6")},
        "timezone": "UTC",
        "agg_shard_count": Decimal(16),
    }
    item["model_labels"]["only"]["output_price_usd_micros_per_1m"] = Decimal("140000.0")  # type: ignore[index]
    budgets = Budgets("the Config table", {}, ZoneInfo)
    budget = budgets.scope("acme", "chat", org_item=item)
    assert budget.quotas == {"only": 1_000_000}
    assert budget.shard_count == 16
    assert budget.labels["only"].price == HandPrice(35_000, 140_000)
    assert (budgets.org_ids(), budgets.app_ids("acme"), budgets.shard_count("acme")) == ([], [], 8)
    assert budgets.aggregator_interval_secs() == 60


def test_attributes_of_other_programs_in_a_config_item_are_left_alone() -> None:
    org_item = {"pk": "ORG#acme", "sk": "CONFIG", "owner": 5, "apps": 7, "tight_mode_threshold_pct": 80}
    app_item = {"pk": "ORG#acme", "sk": "APP#chat", "app_name": "Chat", "timezone": "nowhere", "model_labels": 5}
    budget = checked(("orgs.acme.apps", {})).scope("acme", "chat", org_item=org_item, app_item=app_item)
    assert budget.tight_mode_threshold_pct == 80
    assert budget.timezone_name == "Europe/Berlin"


def test_a_mistake_in_a_config_item_is_named_with_the_item() -> None:
    text = scope_problems(checked(), "acme", "chat", org_item={"quotas": {"premium": Decimal("1.5")}})
    assert "the org's Config item ORG#acme.quotas.premium: Decimal('1.5') is not a quota" in text
    text = scope_problems(checked(), "acme", "chat", app_item={"refresh": 5})
    assert "the app's Config item ORG#acme APP#chat.refresh: must be 'adaptive' or 'fixed', got 5" in text


def test_a_mistake_in_a_keyword_is_named_with_the_keyword() -> None:
    text = scope_problems(checked(), "acme", "chat", keywords={"on_exhausted": "lst"})
    assert text == "budget.yaml: keyword on_exhausted: must be 'raise' or 'last', got 'lst'"


def test_a_later_layer_does_not_hide_a_mistake() -> None:
    found = problems(
        config(
            ("org_defaults.timezone", "Mars/Olympus"),
            ("org_defaults.tight_mode_threshold_pct", 0),
            ("org_defaults.quotas.premium", "ten"),
            ("metering.tight_mode_threshold_pct", 900),
            ("orgs.acme.quotas", {"premium": 1}),
        )
    )
    assert any(line.startswith("org_defaults.timezone: unknown time zone 'Mars/Olympus'") for line in found)
    assert "org_defaults.tight_mode_threshold_pct: must be a whole number from 1 to 100, got 0" in found
    assert "metering.tight_mode_threshold_pct: must be a whole number from 1 to 100, got 900" in found
    assert any(line.startswith("org_defaults.quotas.premium: 'ten' is not a quota") for line in found)
    assert len(found) == 4


def test_the_shard_count_that_a_file_gives_an_org() -> None:
    assert checked(("metering.usage_agg_shard_count", 3)).shard_count("acme") == 3
    assert checked(("org_defaults.agg_shard_count", 4)).shard_count("acme") == 4
    budgets = checked(("org_defaults.agg_shard_count", 4), ("orgs.acme.agg_shard_count", 5))
    assert (budgets.shard_count("acme"), budgets.shard_count("globex")) == (5, 4)
    assert checked(("metering.aggregator_interval_secs", 30)).aggregator_interval_secs() == 30


@pytest.mark.parametrize("org_id", ["acme", "globex", "initech"])
def test_the_shard_count_of_a_file_is_the_one_of_its_scopes(org_id: str) -> None:
    budgets = checked(("org_defaults.agg_shard_count", 4), ("orgs.acme.agg_shard_count", 5), ("orgs.globex", None))
    assert budgets.shard_count(org_id) == budgets.scope(org_id, "chat").shard_count


# -- one scope for a whole org


def test_under_quota_scope_org_all_apps_share_one_scope() -> None:
    budgets = checked(("orgs.acme.quota_scope", "ORG"), ("orgs.acme.apps.chat.quotas", MISSING))
    assert budgets.scope("acme", "chat").scope == budgets.scope("acme", "x").scope == "ORG#acme"
    alone = budgets.scope("acme", None)
    assert (alone.scope, alone.app_id) == ("ORG#acme", None)
    assert budgets.scope("acme", "chat").tight_mode_threshold_pct == 90  # an app may still be watched more closely


def test_under_quota_scope_org_an_app_has_no_quotas_and_no_ordering() -> None:
    found = problems(config(("orgs.acme.quota_scope", "ORG"), ("orgs.acme.apps.chat.model_ordering", ["economy"])))
    for key in ("quotas", "model_ordering"):
        line = next(line for line in found if line.startswith(f"orgs.acme.apps.chat.{key}: "))
        assert "not possible under quota_scope: ORG" in line
        assert "set it for the org, or use quota_scope: APP" in line


def test_under_quota_scope_org_an_apps_item_may_set_neither() -> None:
    budgets = checked(("orgs.acme.quota_scope", "ORG"), ("orgs.acme.apps", {}))
    text = scope_problems(budgets, "acme", "chat", app_item={"quotas": {"premium": 1}})
    assert "the app's Config item ORG#acme APP#chat.quotas: not possible under quota_scope: ORG" in text


def test_under_quota_scope_app_an_app_must_be_named() -> None:
    text = scope_problems(checked(), "acme", None)
    assert text == "budget.yaml: app_id: left out, but org 'acme' has quota_scope: APP; name an app"


@pytest.mark.parametrize(
    ("org_id", "app_id", "problem"),
    [
        ("", "chat", "org_id: must not be empty"),
        ("a#b", "chat", "org_id: must not contain '#' or control characters, got 'a#b'"),
        ("acme", "a#b", "app_id: must not contain '#' or control characters, got 'a#b'"),
        ("acme", "x" * 129, "app_id: must have at most 128 characters, got 129: 'xxxxxxxxxxxxxxxxxxxx'..."),
        (None, "chat", "org_id: must be text, got NoneType None; put it in quotes"),
        (5, 6, "org_id: must be text, got int 5; put it in quotes\n             app_id: must be text, got int 6"),
    ],
)
def test_ids_of_a_call_are_checked(org_id: Any, app_id: Any, problem: str) -> None:
    assert scope_problems(checked(), org_id, app_id).startswith(f"budget.yaml: {problem}")


# -- mistakes

WHOLE = "must be a whole number"
MISTAKES: list[tuple[str, Any, str]] = [
    # unknown keys, at every level
    ("modellabels", {}, "unknown key; known here: metering, model_labels, org_defaults, orgs"),
    ("metering.shards", 8, "unknown key; known here: aggregator_interval_secs, refresh_interval_normal_secs"),
    ("metering.agg_shard_count", 8, "unknown key; known here: aggregator_interval_secs"),
    ("org_defaults.quota", 8, "unknown key; known here: agg_shard_count, daily_total_usd_micros, enforcement"),
    ("org_defaults.org_name", "x", "unknown key"),
    ("org_defaults.app_name", "x", "unknown key"),
    ("orgs.acme.time_zone", "UTC", "unknown key; known here: agg_shard_count, apps, "),
    ("orgs.acme.app", {}, "unknown key"),
    ("orgs.acme.metering", {}, "unknown key"),
    ("orgs.acme.apps.chat.quota", 8, "unknown key; known here: app_name, daily_total_usd_micros, "),
    ("orgs.acme.apps.chat.apps", {}, "unknown key"),
    ("orgs.acme.apps.chat.model_labels", {}, "unknown key"),
    ("model_labels.premium.price", 5, "unknown key; known here: id, input_price_usd_micros_per_1m"),
    # what belongs to the org alone
    ("orgs.acme.apps.chat.timezone", "UTC", "belongs to the org alone; set it in orgs.acme"),
    ("orgs.acme.apps.chat.quota_scope", "APP", "belongs to the org alone; set it in orgs.acme"),
    ("orgs.acme.apps.chat.agg_shard_count", 8, "belongs to the org alone; set it in orgs.acme"),
    # lists, text and nothing where a mapping belongs
    ("model_labels", ["premium"], "must be a mapping, got list ['premium']"),
    ("model_labels", None, "must be a mapping, got NoneType None"),
    ("model_labels", {}, "is empty; map at least one label to a model id"),
    ("metering", [], "must be a mapping, got list []"),
    ("metering", None, "must be a mapping, got NoneType None"),
    ("org_defaults", "America/New_York", "must be a mapping, got str 'America/New_York'"),
    ("orgs", ["acme"], "must be a mapping, got list ['acme']"),
    ("orgs.acme", ["chat"], "must be a mapping, got list ['chat']"),
    ("orgs.acme", "chat", "must be a mapping, got str 'chat'"),
    ("orgs.acme.apps", ["chat"], "must be a mapping, got list ['chat']"),
    ("orgs.acme.apps", None, "must be a mapping, got NoneType None"),
    ("orgs.acme.apps.chat", 5, "must be a mapping, got int 5"),
    ("orgs.acme.apps.chat", [], "must be a mapping, got list []"),
    ("orgs.acme.apps.chat.quotas", [1, 2], "must be a mapping, got list [1, 2]"),
    ("orgs.acme.apps.chat.quotas", None, "must be a mapping, got NoneType None"),
    ("orgs.acme.apps.chat.quotas", 5, "must be a mapping, got int 5"),
    ("model_labels.premium", "amazon.nova-pro-v1:0", "must be a mapping, got str 'amazon.nova-pro-v1:0'"),
    ("model_labels.premium", None, "must be a mapping, got NoneType None"),
    # ids
    ("orgs.ac#me", {}, "an org id must not contain '#' or control characters, got 'ac#me'"),
    ("orgs.acme.apps.ch\nat", {}, "an app id must not contain '#' or control characters, got 'ch\\nat'"),
    ("orgs.acme.apps." + "x" * 129, {}, "an app id must have at most 128 characters, got 129"),
    ("orgs.", {}, "an org id must not be empty"),
    ("model_labels.pre#mium", {"id": "m"}, "a label must not contain '#' or control characters, got 'pre#mium'"),
    ("model_labels." + "x" * 129, {"id": "m"}, "a label must have at most 128 characters, got 129"),
    ("model_labels.auto", {"id": "m"}, "'auto' has a meaning of its own; choose another label"),
    ("model_labels.unlabelled", {"id": "m"}, "'unlabelled' has a meaning of its own; choose another label"),
    # model ids and prices
    ("model_labels.premium", {}, ".id: missing; give a model id, inference profile id or ARN"),
    ("model_labels.premium.id", None, "must be text, got None; put it in quotes"),
    ("model_labels.premium.id", "", "must be text, got ''; put it in quotes"),
    ("model_labels.premium.id", 5, "must be text, got 5; put it in quotes"),
    ("model_labels.premium.id", ["m"], "must be text, got ['m']; put it in quotes"),
    ("model_labels.standard.input_price_usd_micros_per_1m", 0.8, f"{WHOLE} >= 0 of USD micros per 1M tokens, got 0.8"),
    ("model_labels.standard.input_price_usd_micros_per_1m", "800000", f"{WHOLE} >= 0 of USD micros per 1M tokens"),
    ("model_labels.standard.output_price_usd_micros_per_1m", -1, f"{WHOLE} >= 0 of USD micros per 1M tokens, got -1"),
    ("model_labels.standard.output_price_usd_micros_per_1m", None, f"{WHOLE} >= 0 of USD micros per 1M tokens"),
    ("model_labels.standard.output_price_usd_micros_per_1m", True, f"{WHOLE} >= 0 of USD micros per 1M tokens"),
    ("model_labels.standard.cache_read_price_usd_micros_per_1m", [], f"{WHOLE} >= 0 of USD micros per 1M tokens"),
    (
        "model_labels.standard.output_price_usd_micros_per_1m",
        MISSING,
        "missing; a price by hand needs input and output",
    ),
    ("model_labels.standard.input_price_usd_micros_per_1m", MISSING, "missing; a price by hand needs input and output"),
    # quotas
    ("orgs.acme.apps.chat.quotas.premium", "50000000", "'50000000' is not a quota; give a whole number >= 0"),
    ("orgs.acme.apps.chat.quotas.premium", 1.5, "1.5 is not a quota; give a whole number >= 0 of USD micros a day"),
    ("orgs.acme.apps.chat.quotas.premium", 10.0, "10.0 is not a quota; give a whole number >= 0"),
    ("orgs.acme.apps.chat.quotas.premium", -1, "-1 is not a quota; give a whole number >= 0"),
    ("orgs.acme.apps.chat.quotas.premium", True, "True is not a quota; give a whole number >= 0"),
    ("orgs.acme.apps.chat.quotas.premium", "unlimited", "or null for unlimited"),
    ("orgs.acme.apps.chat.quotas.premium", float("inf"), "inf is not a quota; give a whole number >= 0"),
    ("orgs.acme.apps.chat.quotas.premium", {"usd": 5}, "{'usd': 5} is not a quota"),
    ("org_defaults.quotas.premium", [5], "[5] is not a quota"),
    ("orgs.acme.quotas", {"premium": Decimal("0.5")}, ".premium: Decimal('0.5') is not a quota"),
    ("orgs.acme.quotas", {"premium": Decimal("NaN")}, ".premium: Decimal('NaN') is not a quota"),
    ("orgs.acme.apps.chat.quotas.premum", 5, "no such label; map it in model_labels or use one of premium, standard"),
    ("org_defaults.quotas.premum", 5, "no such label; map it in model_labels or use one of premium, standard"),
    ("orgs.acme.quotas", {5: 5}, ".5: no such label; map it in model_labels or use one of premium, standard"),
    # orderings
    ("org_defaults.model_ordering", [], "must be a list of at least one label, got []"),
    ("org_defaults.model_ordering", None, "must be a list of at least one label, got None"),
    ("org_defaults.model_ordering", "premium", "must be a list of at least one label, got 'premium'"),
    ("org_defaults.model_ordering", {"premium": 1}, "must be a list of at least one label, got {'premium': 1}"),
    ("org_defaults.model_ordering", ["premium", 5], "labels must be text, got ['premium', 5]; put them in quotes"),
    ("org_defaults.model_ordering", ["premium", None], "labels must be text"),
    ("org_defaults.model_ordering", [["premium"]], "labels must be text, got [['premium']]"),
    ("org_defaults.model_ordering", ["premium", "premium"], "names a label twice: ['premium', 'premium']; list each"),
    ("org_defaults.model_ordering", ["premum"], "label 'premum' has no mapping; add model_labels.premum: {id: ...} or"),
    ("orgs.acme.apps.chat.model_ordering", ["x"], "label 'x' has no mapping; add model_labels.x: {id: ...} or use one"),
    (
        "org_defaults.quotas.standard",
        MISSING,
        "label 'standard' has no quota anywhere; add org_defaults.quotas.standard",
    ),
    # time zones
    ("org_defaults.timezone", "America/NewYork", "unknown time zone 'America/NewYork'; use an IANA name such as"),
    ("orgs.acme.timezone", "Berlin", "unknown time zone 'Berlin'; use an IANA name such as 'America/New_York' or"),
    ("orgs.acme.timezone", "+01:00", "unknown time zone '+01:00'"),
    ("orgs.acme.timezone", "../../etc/passwd", "unknown time zone '../../etc/passwd'"),
    ("orgs.acme.timezone", "/etc/localtime", "unknown time zone '/etc/localtime'"),
    ("orgs.acme.timezone", "Europe", "unknown time zone 'Europe'"),  # a directory
    ("orgs.acme.timezone", "a\0b", "unknown time zone 'a\\x00b'"),
    ("orgs.acme.timezone", "\ud800", "unknown time zone '\\ud800'"),
    ("orgs.acme.timezone", "x" * 5000, "unknown time zone 'xxx"),
    ("orgs.acme.timezone", "", "must be text, got ''; put it in quotes"),
    ("orgs.acme.timezone", None, "must be text, got None; put it in quotes"),
    ("orgs.acme.timezone", 60, "must be text, got 60; put it in quotes"),
    ("orgs.acme.timezone", ["UTC"], "must be text, got ['UTC']; put it in quotes"),
    ("orgs.acme.timezone", {"name": "UTC"}, "must be text, got {'name': 'UTC'}; put it in quotes"),
    # words
    ("org_defaults.quota_scope", "org", "must be 'ORG' or 'APP', got 'org'"),
    ("org_defaults.quota_scope", None, "must be 'ORG' or 'APP', got None"),
    ("orgs.acme.quota_scope", ["ORG"], "must be 'ORG' or 'APP', got ['ORG']"),
    ("orgs.acme.refresh", "quick", "must be 'adaptive' or 'fixed', got 'quick'"),
    ("orgs.acme.refresh", True, "must be 'adaptive' or 'fixed', got True"),
    ("orgs.acme.on_exhausted", "first", "must be 'raise' or 'last', got 'first'"),
    ("orgs.acme.on_unknown_model", False, "must be 'reject' or 'pass', got False"),
    ("orgs.acme.on_unknown_price", "free", "must be 'reject', 'track' or a price ({input_price_usd_micros_per_1m:"),
    ("orgs.acme.on_unknown_price", None, "must be 'reject', 'track' or a price"),
    ("orgs.acme.on_unknown_price", True, "must be 'reject', 'track' or a price"),
    ("orgs.acme.on_unknown_price", -1, "or a price ({input_price_usd_micros_per_1m: ..., output_price_usd_micros"),
    ("orgs.acme.on_unknown_price", {}, "got {}"),
    ("orgs.acme.on_unknown_price", {"input": 5}, "got {'input': 5}"),
    ("orgs.acme.on_unknown_price", {5: 5}, "got {5: 5}"),
    ("orgs.acme.on_unknown_price", [5], "got [5]"),
    ("orgs.acme.on_unknown_price", {"input_price_usd_micros_per_1m": 5}, ".output_price_usd_micros_per_1m: missing"),
    ("orgs.acme.on_unknown_price", {"input_price_usd_micros_per_1m": "5"}, f".input_price_usd_micros_per_1m: {WHOLE}"),
    ("orgs.acme.on_store_error", "shut", f"{WHOLE} >= 0 of USD micros, 'open' or 'closed', got 'shut'"),
    ("orgs.acme.on_store_error", "1000000", "'open' or 'closed', got '1000000'"),
    ("orgs.acme.on_store_error", -1, "'open' or 'closed', got -1"),
    ("orgs.acme.on_store_error", True, "'open' or 'closed', got True"),
    ("orgs.acme.on_store_error", None, "'open' or 'closed', got None"),
    ("orgs.acme.on_store_error", {"usd": 5}, "'open' or 'closed', got {'usd': 5}"),
    # switches
    ("metering.sticky_fallback_enabled", "true", "must be true or false, got 'true'"),
    ("metering.sticky_fallback_enabled", 1, "must be true or false, got 1"),
    ("metering.sticky_fallback_enabled", None, "must be true or false, got None"),
    ("orgs.acme.apps.chat.sticky_fallback_enabled", "off", "must be true or false, got 'off'"),
    # numbers
    ("metering.usage_agg_shard_count", 0, f"{WHOLE} from 1 to 1024, got 0"),
    ("metering.usage_agg_shard_count", 1025, f"{WHOLE} from 1 to 1024, got 1025"),
    ("metering.usage_agg_shard_count", "8", f"{WHOLE} from 1 to 1024, got '8'"),
    ("orgs.acme.agg_shard_count", 8.0, f"{WHOLE} from 1 to 1024, got 8.0"),
    ("org_defaults.agg_shard_count", None, f"{WHOLE} from 1 to 1024, got None"),
    ("metering.tight_mode_threshold_pct", 0, f"{WHOLE} from 1 to 100, got 0"),
    ("metering.tight_mode_threshold_pct", 101, f"{WHOLE} from 1 to 100, got 101"),
    ("orgs.acme.apps.chat.tight_mode_threshold_pct", 0.95, f"{WHOLE} from 1 to 100, got 0.95"),
    ("orgs.acme.apps.chat.tight_mode_threshold_pct", "95%", f"{WHOLE} from 1 to 100, got '95%'"),
    ("metering.refresh_interval_normal_secs", 0, f"{WHOLE} >= 1, got 0"),
    ("metering.refresh_interval_normal_secs", "5m", f"{WHOLE} >= 1, got '5m'"),
    ("metering.refresh_interval_tight_secs", -60, f"{WHOLE} >= 1, got -60"),
    ("metering.refresh_interval_tight_secs", True, f"{WHOLE} >= 1, got True"),
    ("metering.refresh_interval_tight_secs", [60], f"{WHOLE} >= 1, got [60]"),
    ("metering.aggregator_interval_secs", 0.5, f"{WHOLE} >= 1, got 0.5"),
    ("metering.aggregator_interval_secs", float("nan"), f"{WHOLE} >= 1, got nan"),
    # control
    (
        "orgs.acme.max_cost_usd_micros",
        -5,
        f"{WHOLE} >= 0 of USD micros (10000000 is $10), or null for no limit, got -5",
    ),
    ("orgs.acme.apps.chat.daily_total_usd_micros", "5", "or null for no limit, got '5'"),
    ("org_defaults.org_daily_total_usd_micros", True, "or null for no limit, got True"),
    ("orgs.acme.apps.chat.org_daily_total_usd_micros", 5, "belongs to the org alone; set it in orgs.acme"),
    ("orgs.acme.enforcement", 5, "must be 'normal' or 'strict' or 'shadow', got 5"),
    ("orgs.acme.enforcement", "lax", "must be 'normal' or 'strict' or 'shadow', got 'lax'"),
]


def where(path: str, value: Any, words: str) -> str:
    """How the message about a mistake starts."""
    if path.startswith("org_defaults.quotas.") and value is MISSING:
        return "org_defaults.model_ordering: "
    return path.replace("\n", "\\n") + ("" if words.startswith(".") else ": ")


@pytest.mark.parametrize(("path", "value", "words"), MISTAKES, ids=[f"{p[:60]}={v!r:.40}" for p, v, _ in MISTAKES])
def test_a_mistake_is_named_with_its_place_its_value_and_a_remedy(path: str, value: Any, words: str) -> None:
    found = problems(config((path, value)))
    start = where(path, value, words)
    assert any(line.startswith(start) and words in line for line in found), found


def test_caps_are_set_for_a_scope_and_for_an_org() -> None:
    budgets = checked(
        ("org_defaults.daily_total_usd_micros", 7),
        ("orgs.acme.org_daily_total_usd_micros", 50),
        ("orgs.acme.apps.chat.daily_total_usd_micros", 9),
    )
    chat, other = budgets.scope("acme", "chat"), budgets.scope("acme", "other")
    assert (chat.daily_total_usd_micros, chat.org_daily_total_usd_micros) == (9, 50)
    assert (other.daily_total_usd_micros, other.org_daily_total_usd_micros) == (7, 50)
    plain = checked().scope("acme", "chat")
    assert (plain.daily_total_usd_micros, plain.org_daily_total_usd_micros) == (None, None)


def test_null_lifts_a_limit_that_an_earlier_layer_has_set() -> None:
    limits = {"daily_total_usd_micros": 7, "max_cost_usd_micros": 8}
    budgets = checked(
        *((f"org_defaults.{key}", value) for key, value in limits.items()),
        *((f"orgs.acme.apps.chat.{key}", None) for key in limits),
    )
    assert budgets.scope("acme", "chat").daily_total_usd_micros is None
    assert budgets.scope("acme", "chat").settings.max_cost_usd_micros is None
    assert budgets.scope("acme", "other").settings.max_cost_usd_micros == 8


@pytest.mark.parametrize(
    ("section", "key", "problem"),
    [
        (("orgs",), 5, "orgs.5: an org id must be text, got int 5; put it in quotes"),
        (("orgs",), True, "orgs.True: an org id must be text, got bool True; put it in quotes"),
        (("orgs", "acme", "apps"), None, "orgs.acme.apps.None: an app id must be text, got NoneType None"),
        (("model_labels",), 4.5, "model_labels.4.5: a label must be text, got float 4.5; put it in quotes"),
        (("metering",), 5, "metering.5: unknown key"),
        ((), 5, "5: unknown key"),
        (("org_defaults",), ("a", 1), "org_defaults.('a', 1): unknown key"),
        (("model_labels", "premium"), None, "model_labels.premium.None: unknown key"),
    ],
)
def test_keys_that_yaml_reads_as_something_else_are_named(section: tuple[str, ...], key: Any, problem: str) -> None:
    data = config()
    place: Any = data
    for name in section:
        place = place[name]
    place[key] = {"id": "m"}
    assert any(line.startswith(problem) for line in problems(data))


def test_an_app_is_not_told_that_it_may_have_what_belongs_to_the_org() -> None:
    (line,) = problems(config(("orgs.acme.apps.chat.zone", "UTC")))
    assert line.startswith("orgs.acme.apps.chat.zone: unknown key; known here: ")
    assert not {"timezone", "quota_scope", "agg_shard_count"} & set(line.replace(",", "").split())


@pytest.mark.parametrize("data", [None, {}, MappingProxyType({})])
def test_an_empty_configuration_is_told_what_it_needs(data: object) -> None:
    assert problems(data) == ["is empty; it needs at least model_labels and org_defaults"]


@pytest.mark.parametrize(
    ("data", "kind"), [([], "list"), ("x", "str"), (5, "int"), (0, "int"), (False, "bool"), (("a",), "tuple")]
)
def test_a_configuration_is_a_mapping(data: object, kind: str) -> None:
    assert problems(data) == [f"must be a mapping, got {kind}"]


@pytest.mark.parametrize("key", ["model_labels", "model_ordering", "timezone"])
def test_what_has_no_default_must_be_given(key: str) -> None:
    path = key if key == "model_labels" else f"org_defaults.{key}"
    found = problems(config((path, MISSING), *([("orgs.acme.timezone", MISSING)] if key == "timezone" else [])))
    assert f"org_defaults.{key}: missing; set it there or for the org" in found


def test_an_org_may_give_what_the_defaults_leave_out() -> None:
    budgets = checked(("org_defaults.timezone", MISSING))
    assert budgets.scope("acme", "chat").timezone_name == "Europe/Berlin"
    assert "org_defaults.timezone: missing" in scope_problems(budgets, "globex", "chat")


def test_all_mistakes_are_named_at_once() -> None:
    found = problems(
        config(
            ("metering.usage_agg_shard_count", 0),
            ("orgs.acme.timezone", "Nowhere"),
            ("orgs.acme.apps.chat.quotas.premium", "1"),
            ("orgs.globex", {"refresh": "never", "apps": {"x": {"on_exhausted": 1}}}),
            ("model_labels.premium.id", 5),
        )
    )
    for start in (
        "metering.usage_agg_shard_count: ",
        "orgs.acme.timezone: ",
        "orgs.acme.apps.chat.quotas.premium: ",
        "orgs.globex.refresh: ",
        "orgs.globex.apps.x.on_exhausted: ",
        "model_labels.premium.id: ",
    ):
        assert any(line.startswith(start) for line in found), start


def test_an_empty_list_of_labels_is_named_beside_other_mistakes() -> None:
    found = problems(config(("model_labels", {}), ("orgs.acme.quota_scope", "org")))
    assert "model_labels: is empty; map at least one label to a model id" in found
    assert "orgs.acme.quota_scope: must be 'ORG' or 'APP', got 'org'" in found


@pytest.mark.parametrize("error", [ValueError, KeyError, OSError])
def test_a_zone_that_cannot_be_had_is_a_mistake_in_the_configuration(error: type[Exception]) -> None:
    def zone_of(name: str) -> tzinfo:
        raise error(name)

    with pytest.raises(ConfigError, match=r"orgs\.acme\.timezone: unknown time zone 'Europe/Berlin'"):
        check(config(), source="config", zone_of=zone_of)


def test_the_source_of_zones_is_the_callers() -> None:
    budgets = check(config(("orgs.acme.timezone", "Home")), source="config", zone_of=lambda name: UTC)
    assert budgets.scope("acme", "chat").timezone is UTC


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (0, Price(0, 0, 0, 0, 0)),
        (5, Price(5, 5, 5, 5, 5)),
        (Decimal(5), Price(5, 5, 5, 5, 5)),
        (
            {"input_price_usd_micros_per_1m": 100, "output_price_usd_micros_per_1m": 200},
            Price(100, 200, 100, 125, 200),
        ),
        (
            {
                "input_price_usd_micros_per_1m": 100,
                "output_price_usd_micros_per_1m": 200,
                "cache_read_price_usd_micros_per_1m": 0,
                "cache_write_5m_price_usd_micros_per_1m": 1,
                "cache_write_1h_price_usd_micros_per_1m": 2,
            },
            Price(100, 200, 0, 1, 2),
        ),
    ],
)
def test_a_price_for_models_without_one(value: Any, result: Price) -> None:
    assert checked(("orgs.acme.on_unknown_price", value)).scope("acme", "chat").settings.on_unknown_price == result


def test_a_price_by_hand_may_leave_out_the_cache() -> None:
    price = {"cache_read_price_usd_micros_per_1m": 0, "cache_write_1h_price_usd_micros_per_1m": 7}
    standard = {**config()["model_labels"]["standard"], **price}
    budget = checked(("model_labels.standard", standard)).scope("acme", "chat")
    assert budget.labels["standard"].price == HandPrice(800_000, 3_200_000, 0, None, 7)


# -- anything at all

WORDS = sorted(
    {"model_labels", "metering", "org_defaults", "orgs", "acme", "chat", "apps", "premium", "id", "quotas", "timezone"}
    | {"quota_scope", "model_ordering", "on_unknown_price", "on_store_error", "agg_shard_count", "enforcement"}
    | {"input_price_usd_micros_per_1m", "tight_mode_threshold_pct", "max_cost_usd_micros", "usage_agg_shard_count"}
    | {"daily_total_usd_micros", "org_daily_total_usd_micros"}
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 200),
    st.floats(),
    st.decimals(),
    st.text(max_size=5),
    st.sampled_from([*WORDS, "UTC", "ORG", "APP", "amazon.nova-micro-v1:0", "track", "open", "normal"]),
)
KEYS = st.one_of(st.sampled_from(WORDS), st.text(max_size=5), st.integers(), st.none(), st.booleans())
NESTED = st.recursive(
    SCALARS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(KEYS, children, max_size=5),
    max_leaves=25,
)


def only_config_errors(data: object) -> None:
    before = deepcopy(data)
    try:
        budgets = check(data, source="budget.yaml", zone_of=ZoneInfo)
    except ConfigError as error:
        for line in str(error).removeprefix("budget.yaml: ").split("\n"):
            assert line.strip().isprintable()
            assert ": " in line or line == "is empty; it needs at least model_labels and org_defaults" or "got" in line
    else:
        for org_id in [*budgets.org_ids(), "someone"]:
            assert 1 <= budgets.shard_count(org_id) <= 1024
            for app_id in [*budgets.app_ids(org_id), "something", None]:
                try:
                    budget = budgets.scope(org_id, app_id)
                except ConfigError:
                    # Only what is not listed may still lack something.
                    assert app_id not in budgets.app_ids(org_id)
                else:
                    assert budget.ordering
                    assert set(budget.ordering) <= set(budget.labels)
                    assert set(budget.ordering) <= set(budget.quotas) <= set(budget.labels)
        assert budgets.aggregator_interval_secs() >= 1
    assert repr(data) == repr(before)


@given(st.one_of(NESTED, st.dictionaries(KEYS, NESTED, max_size=5)))
@settings(max_examples=400, deadline=None)
def test_nothing_but_a_config_error_comes_of_any_data(data: object) -> None:
    only_config_errors(data)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a configuration."""
    found = [path] if path else []
    if isinstance(data, dict):
        for key, value in data.items():
            found += places(value, (*path, key))
    return found


PLACES = places(config())
EXAMPLE_BUDGETS = checked()


@given(st.sampled_from(PLACES), NESTED)
@settings(max_examples=500, deadline=None)
def test_nothing_but_a_config_error_comes_of_one_wrong_value(path: tuple[Any, ...], value: object) -> None:
    data = config()
    section = data
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    only_config_errors(data)


@given(st.dictionaries(KEYS, NESTED, max_size=5), st.dictionaries(KEYS, NESTED, max_size=5))
@settings(max_examples=150, deadline=None)
def test_nothing_but_a_config_error_comes_of_any_config_item(org_item: Any, app_item: Any) -> None:
    try:
        budget = EXAMPLE_BUDGETS.scope("acme", "chat", org_item=org_item, app_item=app_item)
    except ConfigError:
        return
    assert (budget.org_id, budget.app_id) == ("acme", "chat")


def test_yaml_gives_the_same_as_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "budget.yaml"
    file.write_text(EXAMPLE, encoding="utf-8")
    loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert check(loaded, source="x", zone_of=ZoneInfo).scope("acme", "chat") == checked().scope("acme", "chat")


# --- registered inference profiles

REGISTERED = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr"


def test_a_registered_profile_takes_the_place_of_the_whole_mapping() -> None:
    budget = checked().scope("acme", "chat", profiles={"standard": REGISTERED, "tenant-a": REGISTERED})
    assert budget.labels["standard"] == ModelLabel("standard", REGISTERED, registered=True)
    assert budget.labels["standard"].price is None
    assert budget.labels["tenant-a"] == ModelLabel("tenant-a", REGISTERED, registered=True)
    assert not budget.labels["premium"].registered
    assert budget.quota_usd_micros("tenant-a") is None
    assert budget.ordering == ("premium", "standard", "economy")


def test_config_items_may_order_and_limit_labels_that_are_registered() -> None:
    item = {"model_ordering": ["tenant-a", "economy"], "quotas": {"tenant-a": 7}}
    budget = checked().scope("acme", "chat", app_item=item, profiles={"tenant-a": REGISTERED})
    assert (budget.ordering, budget.quotas["tenant-a"]) == (("tenant-a", "economy"), 7)
    with pytest.raises(ConfigError, match="'tenant-a' has no mapping"):
        checked().scope("acme", "chat", app_item=item)


def test_with_registered_profiles_no_label_needs_a_mapping() -> None:
    data = config(("model_labels", MISSING), ("orgs", MISSING))
    budgets = Budgets("budget.yaml", data, ZoneInfo)
    profiles = dict.fromkeys(("premium", "standard", "economy"), REGISTERED)
    assert {label.model_id for label in budgets.scope("acme", "chat", profiles=profiles).labels.values()} == {
        REGISTERED
    }
    with pytest.raises(ConfigError, match=r"model_labels: missing"):
        budgets.scope("acme", "chat")

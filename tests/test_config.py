"""Where a client's configuration and store come from, every keyword of the constructor, and every mistake in them."""

from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from metered import HELLO, budget, metered, record_of

from bedrock_budget import ConfigError, PriceKeeperClient
from bedrock_budget.config import CONFIG_VARIABLE, load_budgets, table_budgets
from bedrock_budget.stores import MemoryStore
from bedrock_budget.stores.urls import STORE_VARIABLE
from bedrock_budget.testing import LocalBedrock


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (CONFIG_VARIABLE, STORE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "state"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "budget.yaml"
    path.write_text(yaml.safe_dump(budget()), encoding="utf-8")
    return path


# --- config


def test_a_path_a_mapping_or_the_environment(
    local_bedrock: LocalBedrock, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    for config in (file, str(file), budget(), OrderedDict(budget()), MappingProxyType(budget()), None):
        with metered(local_bedrock, config=config) as bedrock:
            assert record_of(bedrock.converse(messages=HELLO))["label"] == "premium"


def test_the_keyword_comes_before_the_environment(
    local_bedrock: LocalBedrock, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(file.with_name("absent.yaml")))
    metered(local_bedrock, config=file).close()
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        metered(local_bedrock, config=None)


@pytest.mark.parametrize("empty", [True, False])
def test_without_any_the_orgs_config_item_is_the_budget(
    local_bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    if empty:
        monkeypatch.setenv(CONFIG_VARIABLE, "")
    assert load_budgets(None) is None
    assert table_budgets().data == {}
    store = MemoryStore()
    with pytest.raises(ConfigError) as caught:
        metered(local_bedrock, config=None, store=store)
    for part in ("org 'acme' has no configuration", "config=", f"${CONFIG_VARIABLE}", "ORG#acme"):
        assert part in str(caught.value)
    config = budget()
    store.put_config("acme", None, {"model_labels": config["model_labels"], **config["org_defaults"]})
    with metered(local_bedrock, config=None, store=store) as bedrock:
        assert record_of(bedrock.converse(messages=HELLO))["label"] == "premium"


def test_a_mapping_is_not_changed(local_bedrock: LocalBedrock) -> None:
    config, same = budget(), budget()
    with metered(local_bedrock, config=config, on_exhausted="last") as bedrock:
        bedrock.converse(messages=HELLO)
    assert config == same


@pytest.mark.parametrize("given", [5, b"budget.yaml", ["budget.yaml"], True, object()])
def test_a_config_of_the_wrong_type(local_bedrock: LocalBedrock, given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config: must be the path of a YAML file, a mapping or None, got "):
        metered(local_bedrock, config=given)


def test_a_file_that_cannot_be_read(local_bedrock: LocalBedrock, tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("timezone: é".encode("latin-1"))
    for path, why in (
        (tmp_path / "absent.yaml", "No such file"),
        (tmp_path, "directory|Permission"),
        (latin, "can't decode"),
        ("with\0nul.yaml", "null"),
        ("", "directory|Permission"),
    ):
        with pytest.raises(ConfigError, match=rf"cannot be read \(.*({why})") as caught:
            metered(local_bedrock, config=path)
        assert f"config= or in ${CONFIG_VARIABLE}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty; it needs at least model_labels and org_defaults"),
        ("# nothing but a comment", "is empty"),
        ("{}", "is empty"),
        ("null", "is empty"),
        ("[premium]", "must be a mapping, got list"),
        ("premium", "must be a mapping, got str"),
        ("2026-01-15", "must be a mapping, got date"),
        ("a: [1", "is not valid YAML: .*line 1"),
        ("a: !!python/object:os.system x", "is not valid YAML: could not determine a constructor"),
        ("a: 2026-99-99", "is not valid YAML: month must be in"),
        ("a: !!int x", "is not valid YAML: "),
        ("!!map x", "is not valid YAML: "),
        ("? [a]\n: b", "is not valid YAML: .*unhashable"),
        ("a: \x07", "is not valid YAML: "),
        ("org_defaults: {}\norg_defaults: {}", "is not valid YAML: key org_defaults is given twice"),
        ("orgs:\n  acme: {timezone: UTC,\n    timezone: UTC}", "key timezone is given twice"),
        ("orgs: {1: {}, 1: {}}", "key 1 is given twice"),
        ("orgs: {}", "org_defaults.model_labels: missing"),
        ("colour: red", "colour: unknown key; known here: "),
    ],
)
def test_a_file_that_is_no_configuration(local_bedrock: LocalBedrock, tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"(?s)^{path}: .*{problem}"):
        metered(local_bedrock, config=path)


def test_all_mistakes_are_named_at_once(local_bedrock: LocalBedrock) -> None:
    config = budget({"premium": -1, "nonsense": 5}, timezone="Mars/Olympus", quota_scope="TEAM")
    with pytest.raises(ConfigError) as caught:
        metered(local_bedrock, config=config)
    for part in (
        "org_defaults.quotas.premium: -1 is not a quota",
        "org_defaults.quotas.nonsense: no such label",
        "org_defaults.timezone: unknown time zone 'Mars/Olympus'",
        "org_defaults.quota_scope: must be 'ORG' or 'APP', got 'TEAM'",
    ):
        assert part in str(caught.value)


# --- store


def test_a_url_a_store_the_environment_or_the_users_state_folder(
    local_bedrock: LocalBedrock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    with metered(local_bedrock, store=store) as bedrock:
        assert bedrock._keeper.store is store
    given = tmp_path / "given.db"
    with metered(local_bedrock, store=f"sqlite:///{given.as_posix()}") as bedrock:
        bedrock.converse(messages=HELLO)
    assert given.exists()
    with metered(local_bedrock, store=None) as bedrock:
        bedrock.converse(messages=HELLO)
    assert len(list(tmp_path.rglob("budget.db"))) == 1
    by_environment = tmp_path / "environment.db"
    monkeypatch.setenv(STORE_VARIABLE, f"sqlite:///{by_environment.as_posix()}")
    with metered(local_bedrock, store=None) as bedrock:
        bedrock.converse(messages=HELLO)
    assert by_environment.exists()
    with metered(local_bedrock, store=f"sqlite:///{given.as_posix()}") as bedrock:
        assert bedrock.status()[0].requests == 1


def test_each_memory_store_is_private_to_its_client(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as one, metered(local_bedrock) as other:
        one.converse(messages=HELLO)
        assert one.status()[0].requests == 1
        assert other.status()[0].requests == 0


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (5, "must be a URL or a Store, got int"),
        (b"memory://", "must be a URL or a Store"),
        ("", "no scheme"),
        ("a://", "a"),
    ],
)
def test_a_store_that_is_none(local_bedrock: LocalBedrock, given: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^store.*{problem}"):
        metered(local_bedrock, store=given)


# --- the other keywords


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("enforcement", ["normal", "strict", "shadow", None]),
        ("refresh", ["adaptive", "fixed", None]),
        ("metering", ["background", "sync"]),
        ("journal_sync", ["normal", "full"]),
        ("drain_abandoned", [True, False]),
        ("max_cost_usd_micros", [10**9, None]),
        ("on_exhausted", ["raise", "last", None]),
        ("on_unknown_model", ["reject", "pass", None]),
        ("on_unknown_price", ["reject", "track", 0, 5, {"input_price_usd_micros_per_1m": 1}, None]),
        ("on_store_error", ["open", "closed", 0, 10**9, None]),
        ("clock", [None]),
    ],
)
def test_what_a_keyword_may_be(local_bedrock: LocalBedrock, keyword: str, values: list[Any]) -> None:
    for value in values:
        if isinstance(value, dict):
            value["output_price_usd_micros_per_1m"] = 2
        with metered(local_bedrock, **{keyword: value}) as bedrock:
            assert record_of(bedrock.converse(messages=HELLO))["reason"] == "default"


@pytest.mark.parametrize(
    ("keyword", "value", "allowed"),
    [
        ("enforcement", "strikt", r"must be 'normal' or 'strict' or 'shadow', got 'strikt'"),
        ("refresh", "hourly", r"must be 'adaptive' or 'fixed', got 'hourly'"),
        ("metering", "async", r"must be 'background' or 'sync', got 'async'"),
        ("metering", None, r"must be 'background' or 'sync', got None"),
        ("journal", 5, r"must be the path of a folder, got 5"),
        ("journal", __file__, r"must be a folder, and .* is a file; name another path"),
        ("journal", Path(__file__), r"must be a folder, and .* is a file; name another path"),
        ("journal_sync", "fast", r"must be 'normal' or 'full', got 'fast'"),
        ("drain_abandoned", "no", r"must be True or False, got 'no'"),
        ("max_cost_usd_micros", 1.5, r"must be a whole number >= 0 of USD micros .*, or null for no limit, got 1\.5"),
        ("on_exhausted", True, r"must be 'raise' or 'last', got True"),
        ("on_unknown_model", "ignore", r"must be 'reject' or 'pass', got 'ignore'"),
        ("on_unknown_price", -1, r"must be 'reject', 'track' or a price .*, got -1"),
        ("on_unknown_price", 1.5, r"must be 'reject', 'track' or a price .*, got 1\.5"),
        ("on_unknown_price", True, r"must be 'reject', 'track' or a price .*, got True"),
        ("on_unknown_price", {}, r"must be 'reject', 'track' or a price .*, got \{\}"),
        ("on_unknown_price", {"input": 1}, r"must be 'reject', 'track' or a price .*, got \{'input': 1\}"),
        ("on_unknown_price", {"input_price_usd_micros_per_1m": 1}, r".*output_price_usd_micros_per_1m: missing"),
        ("on_store_error", -5, r"must be a whole number >= 0 of USD micros, 'open' or 'closed', got -5"),
        ("on_store_error", "ajar", r"must be a whole number >= 0 of USD micros, 'open' or 'closed', got 'ajar'"),
        ("clock", object(), r"must be an object with now\(\) and monotonic\(\), got <object"),
        ("clock", lambda: 0, r"must be an object with now\(\) and monotonic\(\), got <function"),
    ],
)
def test_a_wrong_value_names_keyword_value_and_what_is_allowed(
    local_bedrock: LocalBedrock, keyword: str, value: Any, allowed: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?m)\b{keyword}(: |\.){allowed}"):
        metered(local_bedrock, **{keyword: value})


def test_a_keyword_wins_over_the_app_the_org_and_the_defaults(local_bedrock: LocalBedrock) -> None:
    config = budget(on_unknown_model="reject")
    config["orgs"] = {"acme": {"apps": {"chat": {"on_unknown_model": "reject"}}}}
    with metered(local_bedrock, config=config, on_unknown_model="pass") as bedrock:
        for view in (bedrock, bedrock.for_app("other"), bedrock.for_app("chat", org_id="globex")):
            assert view.decide("amazon.nova-lite-v1:0").reason == "unlabelled"


def test_keywords_are_keywords_and_the_org_is_needed(local_bedrock: LocalBedrock) -> None:
    client = local_bedrock.client()
    with pytest.raises(TypeError, match="positional"):
        PriceKeeperClient(client, "acme", "chat")  # type: ignore[misc]
    with pytest.raises(TypeError, match="org_id"):
        PriceKeeperClient(client, app_id="chat", config=budget())  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        PriceKeeperClient(client, org_id="acme", app_id="chat", colour="red")  # type: ignore[call-arg]


# --- who spends


def test_an_app_may_be_left_out_only_where_the_org_has_the_quotas(local_bedrock: LocalBedrock) -> None:
    with pytest.raises(ConfigError, match="app_id: left out, but org 'acme' has quota_scope: APP; name an app"):
        metered(local_bedrock, app_id=None)
    with metered(local_bedrock, app_id=None, config=budget(quota_scope="ORG")) as bedrock:
        assert record_of(bedrock.converse(messages=HELLO))["label"] == "premium"


@pytest.mark.parametrize("kind", ["org_id", "app_id"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a#b", "must not contain '#' or control characters, got 'a#b'"),
        ("", "must not be empty"),
        ("x" * 129, "must have at most 128 characters, got 129"),
        ("a\nb", "must not contain '#' or control characters"),
        ("a\x00", "must not contain '#' or control characters"),
        ("\x85", "must not contain '#' or control characters"),
        ("\ud800", "must not contain '#' or control characters"),
        (5, "must be text, got int 5"),
        (b"acme", "must be text, got bytes"),
    ],
)
def test_an_id_that_would_forge_a_key_is_refused(
    local_bedrock: LocalBedrock, kind: str, value: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"{kind}: {problem}"):
        metered(local_bedrock, **{kind: value})


@pytest.mark.parametrize("value", ["x" * 128, "a b/c:d@e", "日本", "ORG", " "])
def test_any_other_text_is_an_id(local_bedrock: LocalBedrock, value: str) -> None:
    with metered(local_bedrock, org_id=value, app_id=value) as bedrock:
        bedrock.converse(messages=HELLO)
        assert bedrock.status()[0].requests == 1

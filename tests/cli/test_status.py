"""``bedrock-budget status``."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cli.command_line import DAY, NOW_EPOCH, Run, spend

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.errors import ConfigError, StoreError
from bedrock_budget.core.holds import Grant
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.record import LabelStatus
from bedrock_budget.stores import Override, SQLiteStore, Sticky
from bedrock_budget.testing import LocalBedrock, ManualClock

PREMIUM = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def scopes(run: Run, *words: str) -> list[dict[str, Any]]:
    ran = run("status", "--json", *words)
    assert ran.code == 0, ran
    found: list[dict[str, Any]] = json.loads(ran.out)["scopes"]
    return found


def test_shows_the_orgs_and_apps_of_the_file_and_the_config_table(run: Run, store: SQLiteStore) -> None:
    store.put_config("acme", "search", {"quotas": {"premium": 7}})
    found = scopes(run)
    assert [(each["org_id"], each["app_id"], each["scope"]) for each in found] == [
        ("acme", "billing", "ORG#acme#APP#billing"),
        ("acme", "chat", "ORG#acme#APP#chat"),
        ("acme", "search", "ORG#acme#APP#search"),
        ("globex", None, "ORG#globex"),
    ]
    assert found[2]["labels"][0]["quota_usd_micros"] == 7
    assert [each["app_id"] for each in scopes(run, "--org", "acme", "--app", "chat")] == ["chat"]
    assert [each["org_id"] for each in scopes(run, "--org", "globex")] == ["globex"]


def test_json_has_the_names_and_exact_figures_of_the_record(run: Run, store: SQLiteStore) -> None:
    spend(store, "acme", "chat", "premium", 1_400, usage=Usage(20, 5, 3, 2, 1), requests=4)
    (found,) = scopes(run, "--org", "acme", "--app", "chat")
    labels = found.pop("labels")
    assert found == {
        "org_id": "acme",
        "app_id": "chat",
        "scope": "ORG#acme#APP#chat",
        "org_day": DAY,
        "timezone": "Europe/Berlin",
        "next_day_at": "2026-01-15T23:00:00Z",
        "secs_to_next_day": 11 * 3600,
        "degraded": False,
        "label_in_force": "premium",
        "model_id_in_force": PREMIUM,
        "sticky_label": None,
        "override": None,
        "stop": None,
        "enforcement": "normal",
        "caps": [],
        "shadow": None,
    }
    assert set(labels[0]) == set(LabelStatus.__slots__) - {"outcomes"}  # the process's own
    assert labels[0] == {
        "label": "premium",
        "model_id": PREMIUM,
        "spend_usd_micros": 1_400,
        "quota_usd_micros": 50_000_000,
        "quota_pct": 0.0028,
        "input_tokens": 20,
        "output_tokens": 5,
        "cache_read_tokens": 3,
        "cache_write_5m_tokens": 2,
        "cache_write_1h_tokens": 1,
        "requests": 4,
        "in_force": True,
        "mode": "normal",
        "granted_usd_micros": None,
        "shadow_spend_usd_micros": None,
        "shadow_requests": None,
    }


def test_shows_what_a_program_has_metered(run: Run, folder: Path) -> None:
    with LocalBedrock(output_tokens=7) as server:
        client = PriceKeeperClient(server.client(), org_id="acme", app_id="chat", clock=ManualClock(), metering="sync")
        reply = client.converse(messages=[{"role": "user", "content": [{"text": "Hello"}]}])
        client.close()
    (found,) = scopes(run, "--org", "acme", "--app", "chat")
    assert found["labels"][0]["output_tokens"] == 7
    assert found["labels"][0]["spend_usd_micros"] == reply["ResponseMetadata"]["PriceKeeper"]["cost_usd_micros"] > 0


def test_marks_the_state_of_each_label(run: Run, store: SQLiteStore) -> None:
    store.put_config("acme", "chat", {"quotas": {"premium": 0, "standard": None}})
    store.put_config("acme", "billing", {"on_exhausted": "last"})
    spend(store, "acme", "chat", "economy", 1_900_000)
    for label, quota in (("premium", 10_000_000), ("standard", 5_000_000), ("economy", 2_000_000)):
        spend(store, "acme", "billing", label, quota)
    ran = run("status", "--org", "acme")
    states = [line.split("  ")[-1].strip() for line in ran.out.splitlines() if line.startswith("  ")]
    assert states[1:4] == ["used up", "used up", "in force, used up"]
    chat = ran.out.partition("acme / chat")[2]
    assert "$0.00  " in chat
    assert "unlimited" in chat
    states = [line.split("  ")[-1].strip() for line in chat.splitlines()[2:5]]
    assert states == ["quota is 0", "in force", "tight mode"]


def test_looking_does_not_move_the_sticky_state(run: Run, store: SQLiteStore) -> None:
    spend(store, "acme", "chat", "premium", 50_000_000)
    (found,) = scopes(run, "--org", "acme", "--app", "chat")
    assert (found["label_in_force"], found["sticky_label"]) == ("standard", "standard")
    controls = store.read_controls("acme", "chat", scope="ORG#acme#APP#chat", day=DAY, now_epoch=NOW_EPOCH)
    assert controls.sticky is None


def test_shows_pins_and_fallbacks_safely(run: Run, store: SQLiteStore) -> None:
    store.put_override("acme", "chat", Override("premium", "red\x1b[31m\nalert", "kim", NOW_EPOCH, NOW_EPOCH + 61))
    store.advance_sticky("ORG#acme#APP#chat", DAY, Sticky("economy", 2, "x", "standard", NOW_EPOCH, NOW_EPOCH + 9))
    ran = run("status", "--org", "acme", "--app", "chat")
    assert "  Pinned to premium by kim until 2026-01-15 13:01:01 (Europe/Berlin): red?[31m?alert\n" in ran.out
    assert "  Fallen back to economy for the rest of the day.\n" in ran.out
    (found,) = scopes(run, "--org", "acme", "--app", "chat")
    assert found["override"]["expires_at_epoch"] == NOW_EPOCH + 61


def test_a_pin_to_a_label_outside_the_ordering_is_in_force(run: Run, store: SQLiteStore) -> None:
    store.put_config("acme", None, {"model_ordering": ["premium", "standard"]})
    store.put_override("acme", None, Override("economy", "why", "kim", NOW_EPOCH, NOW_EPOCH + 60))
    ran = run("status", "--org", "acme", "--app", "chat")
    assert "The next call goes to economy (amazon.nova-micro-v1:0)." in ran.out
    assert "in force" not in ran.out.partition("The next")[0]


def test_says_what_the_library_finds_odd(run: Run, store: SQLiteStore) -> None:
    store.put_override("acme", "chat", Override("gold", "why", "kim", NOW_EPOCH, NOW_EPOCH + 60))
    ran = run("status", "--org", "acme", "--app", "chat")
    assert ran.code == 0
    assert ran.err == "note: the override of ORG#acme#APP#chat names an unknown label: 'gold'\n"
    assert "The next call goes to premium" in ran.out


def test_the_config_table_may_change_the_scope_of_an_org(run: Run, store: SQLiteStore) -> None:
    store.put_config("acme", None, {"quota_scope": "ORG"})
    assert [(each["app_id"], each["scope"]) for each in scopes(run, "--org", "acme")] == [(None, "ORG#acme")]
    ran = run("status", "--org", "acme", "--app", "chat")
    assert (ran.code, ran.out) == (2, "")
    assert "orgs.acme.apps.chat.quotas: not possible under quota_scope: ORG" in ran.err
    store.put_config("globex", None, {"quota_scope": "APP"})
    assert [each["scope"] for each in scopes(run, "--org", "globex", "--app", "chat")] == ["ORG#globex#APP#chat"]


def test_without_a_file_the_config_table_is_the_configuration(
    run: Run, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BEDROCK_BUDGET_CONFIG")
    item = {
        "timezone": "Asia/Kathmandu",
        "quota_scope": "ORG",
        "model_ordering": ["only"],
        "quotas": {"only": 5},
        "model_labels": {"only": {"id": "amazon.nova-micro-v1:0"}},
    }
    store.put_config("hooli", None, item)
    (found,) = scopes(run, "--org", "hooli")
    assert (found["timezone"], found["labels"][0]["quota_usd_micros"]) == ("Asia/Kathmandu", 5)
    assert run("status").err.startswith("bedrock-budget: --org: which org? There is no configuration file")
    ran = run("status", "--org", "other")
    assert (ran.code, ran.out) == (2, "")
    assert "org 'other' has no configuration here" in ran.err


def test_an_org_without_listed_apps_does_not_hide_the_others(run: Run, folder: Path, configuration: str) -> None:
    (folder / "budget.yaml").write_text(configuration + "  initech: {}\n", encoding="utf-8")
    ran = run("status")
    assert ran.code == 0
    assert "globex: org day" in ran.out
    assert "name one: bedrock-budget status --org initech --app APP\n" in ran.err
    ran = run("status", "--org", "initech")
    assert (ran.code, ran.out) == (2, "")
    assert "name one: bedrock-budget status --org initech --app APP\n" in ran.err


def test_a_mistake_in_one_scope_does_not_hide_the_others(run: Run, store: SQLiteStore) -> None:
    store.put_config("acme", "chat", {"quotas": {"premium": -1}})
    store.put_config("globex", None, {"timezone": "Mars/Base"})
    ran = run("status")
    assert ran.code == 2
    assert "acme / billing" in ran.out
    assert "acme / chat" not in ran.out
    assert "quotas.premium" in ran.err
    assert "Mars/Base" in ran.err


def test_orgs_and_apps_that_are_not_listed_are_remarked_on(run: Run, store: SQLiteStore) -> None:
    ran = run("status", "--org", "amce", "--app", "chat")
    assert (ran.code, ran.err) == (0, "note: org 'amce' is not listed (acme, globex): the defaults apply to it\n")
    ran = run("status", "--org", "acme", "--app", "caht")
    assert "note: app 'caht' of org 'acme' is not listed (billing, chat): the defaults apply to it\n" in ran.err
    store.put_config("amce", None, {})
    assert run("status", "--org", "amce", "--app", "chat").err == ""


def test_which_org_must_be_clear(run: Run, folder: Path, store: SQLiteStore, configuration: str) -> None:
    ran = run("status", "--app", "chat")
    assert (ran.code, ran.err) == (2, "bedrock-budget: --app: of which org? Add --org ORG (listed: acme, globex)\n")
    (folder / "budget.yaml").write_text(configuration.partition("  globex")[0], encoding="utf-8")
    assert [each["app_id"] for each in scopes(run, "--app", "chat")] == ["chat"]
    (folder / "budget.yaml").write_text(configuration.partition("orgs:")[0], encoding="utf-8")
    assert run("status").err == "bedrock-budget: --org: which org? budget.yaml lists none\n"


def test_a_budget_that_only_listed_apps_complete_is_shown(run: Run, folder: Path, configuration: str) -> None:
    text = configuration.replace("  quotas: {premium: 10000000,", "  quotas: {").replace(
        "billing: {}", "billing: {quotas: {premium: 1}}"
    )
    (folder / "budget.yaml").write_text(text.partition("  globex")[0], encoding="utf-8")
    assert [each["app_id"] for each in scopes(run)] == ["billing", "chat"]


def test_looking_at_a_store_that_does_not_exist_does_not_create_it(run: Run, folder: Path) -> None:
    before = set(folder.iterdir())
    ran = run("status", "--store", "sqlite:///typo.db")
    assert ran.code == 0
    assert f"note: {folder / 'typo.db'} does not exist: nothing has been metered there yet" in ran.err
    assert set(folder.iterdir()) == before
    ran = run("status", "--store", "sqlite:///no/such/folder/budget.db")
    assert (ran.code, ran.out) == (1, "")
    assert "does not exist" in ran.err


def test_the_default_store_may_not_exist_yet(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEDROCK_BUDGET_STORE")
    ran = run("status")
    assert ran.code == 0
    assert f"note: {folder / 'state' / 'bedrock-budget' / 'budget.db'} does not exist" in ran.err


def test_a_store_that_cannot_be_read_is_one_message(
    run: Run, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(SQLiteStore, "read_shards", fail)
    ran = run("status")
    assert ran == (1, "", "bedrock-budget: the disk is gone\n")


def test_a_look_that_failed_is_said(run: Run, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read_controls = SQLiteStore.read_controls

    def fail(self: SQLiteStore, *args: Any, **kwargs: Any) -> Any:
        if kwargs["day"] != "0":
            raise StoreError("too slow")
        return read_controls(self, *args, **kwargs)

    monkeypatch.setattr(SQLiteStore, "read_controls", fail)
    ran = run("status", "--org", "globex")
    assert ran.code == 0
    assert "  Degraded: the store could not be read completely" in ran.out
    assert ran.err == "note: cannot read the budget of ORG#globex: too slow\n"
    assert run("explain", "--org", "globex").out.endswith("so these figures may be old.\n")


def test_the_time_to_midnight_follows_the_clock(run: Run, store: SQLiteStore) -> None:
    clock = ManualClock()
    clock.advance(timedelta(hours=10, minutes=59, seconds=30))
    ran = run("status", "--org", "acme", "--app", "chat", clock=clock)
    assert ran.out.startswith("acme / chat: org day 2026-01-15 (Europe/Berlin), the next one starts in 30 s\n")


def test_a_configuration_that_is_wrong_is_one_message(run: Run, folder: Path) -> None:
    (folder / "budget.yaml").write_text("model_labels: 7\n", encoding="utf-8")
    ran = run("status")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("bedrock-budget: budget.yaml: ")
    assert "Traceback" not in ran.err
    assert "Traceback" in run("status", "--debug").err
    assert ConfigError.__name__ in run("status", "--debug").err


def test_another_configuration_and_store_can_be_named(run: Run, folder: Path, configuration: str) -> None:
    (folder / "other.yaml").write_text(configuration.replace("globex", "initech"), encoding="utf-8")
    other = SQLiteStore(folder / "other.db")
    spend(other, "initech", None, "premium", 12_345_600)
    other.close()
    ran = run("status", "--org", "initech", "--config", "other.yaml", "--store", "sqlite:///other.db")
    assert "$12.3456" in ran.out


# -- enforcement


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"enforcement": "strict"}, "  Strict: $0.250000 beyond the spend is set aside in the labels' quotas."),
        ({"daily_total_usd_micros": 2_000_000}, "  Of all labels: $1.00 of $2.00 (50.00 %)"),
        ({"org_daily_total_usd_micros": 4_000_000}, "  Of all apps of the org: $3.00 of $4.00 (75.00 %)"),
    ],
    ids=["strict", "cap", "the org's cap"],
)
def test_says_what_else_limits_a_scope(run: Run, store: SQLiteStore, settings: dict[str, Any], expected: str) -> None:
    spend(store, "acme", "billing", "premium", 1_000_000)
    spend(store, "acme", None, "*", 3_000_000)
    key = UsageKey("ORG#acme#APP#billing", "premium", DAY)
    store.write_grant(Grant(key, "wexampleOne", 1, 1_250_000_000_000, None, 0, NOW_EPOCH + 10))
    org = {name: value for name, value in settings.items() if name.startswith("org_")}
    store.put_config("acme", None, org)
    store.put_config("acme", "billing", {name: value for name, value in settings.items() if name not in org})
    assert expected in run("status", "--org", "acme", "--app", "billing").out.splitlines()


def test_says_what_shadow_would_have_done(run: Run, store: SQLiteStore, local_bedrock: LocalBedrock) -> None:
    store.put_config("acme", "billing", {"enforcement": "shadow", "quotas": {"premium": 1}})
    spend(store, "acme", "billing", "premium", 3_000_000, requests=3)
    would = "billing#SHADOW"
    spend(store, "acme", would, "premium", 1_000_000, requests=1)
    spend(store, "acme", would, "standard", 400_000, requests=1)
    spend(store, "acme", would, "#moved", 0, requests=1)
    spend(store, "acme", would, "#refused", 1_000_000, requests=1)
    spend(store, "acme", "billing", "embed", 100_000, requests=1)
    (found,) = scopes(run, "--org", "acme", "--app", "billing")
    assert (found["scope"], found["enforcement"]) == ("ORG#acme#APP#billing", "shadow")
    assert [label["shadow_spend_usd_micros"] for label in found["labels"]] == [1_000_000, 400_000, 0]
    said = run("status", "--org", "acme", "--app", "billing").out
    expected = "of 3 calls it would have sent 1 to another label and refused 1, saving $1.60."
    assert f"In shadow, so nothing is changed: {expected}" in said

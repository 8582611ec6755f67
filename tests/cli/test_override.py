"""``bedrock-budget override``."""

import getpass
import json
from pathlib import Path

import pytest
from cli.command_line import DAY, NOW_EPOCH, Run, spend

from bedrock_budget.stores import DynamoDBStore, Override, SQLiteStore, Sticky

CHAT = ("--org", "acme", "--app", "chat")
BY_KIM = ("--reason", "demo", "--by", "kim")
HOUR = 3600


def pin(store: SQLiteStore, org_id: str = "acme", app_id: str | None = "chat") -> Override | None:
    return store.read_controls(org_id, app_id, scope=f"ORG#{org_id}", day=DAY, now_epoch=NOW_EPOCH).override


def fall_back(store: SQLiteStore, scope: str) -> None:
    store.advance_sticky(scope, DAY, Sticky("standard", 1, "QUOTA_EXCEEDED", "premium", NOW_EPOCH, NOW_EPOCH + HOUR))


def has_fallen_back(store: SQLiteStore, scope: str) -> bool:
    return store.read_controls("acme", None, scope=scope, day=DAY, now_epoch=NOW_EPOCH).sticky is not None


# -- set


def test_pins_until_the_next_org_midnight(run: Run, store: SQLiteStore) -> None:
    ran = run("override", "set", *CHAT, "--label", "economy", *BY_KIM)
    assert ran == (
        0,
        "Pinned acme / chat to economy until 2026-01-16 00:00 (Europe/Berlin), in 11 h.\n"
        "Processes follow within 60 seconds.\n",
        "",
    )
    assert pin(store) == Override("economy", "demo", "kim", NOW_EPOCH, NOW_EPOCH + 11 * HOUR)
    assert pin(store, "acme", "billing") is None
    assert json.loads(run("explain", *CHAT, "--json").out)["reason"] == "override"


def test_pins_all_apps_of_an_org(run: Run, store: SQLiteStore) -> None:
    run("override", "set", *CHAT, "--label", "economy", *BY_KIM)
    ran = run("override", "set", "--org", "acme", "--label", "standard", *BY_KIM)
    assert "Pinned acme (all apps) to standard" in ran.out
    assert "Apps with a pin of their own keep it: chat\n" in ran.out
    found = [pin(store, "acme", app_id) for app_id in ("billing", "chat", None)]
    assert [each and each.label for each in found] == ["standard", "economy", "standard"]


@pytest.mark.parametrize(
    ("until", "hours"),
    [
        ("90m", 1.5),
        ("2h", 2),
        ("1d", 24),
        ("2026-01-15T18:00", 5),  # on the org's clock
        ("2026-01-15T18:00Z", 6),
        ("2026-01-15 18:00-05:00", 11),
        ("2026-01-17", 35),
    ],
)
def test_pins_until_a_time(run: Run, store: SQLiteStore, until: str, hours: float) -> None:
    assert run("override", "set", *CHAT, "--label", "economy", *BY_KIM, "--until", until).code == 0
    found = pin(store)
    assert found
    assert found.expires_at_epoch == NOW_EPOCH + hours * HOUR


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("2026-01-15T12:59", "'2026-01-15T12:59' is not in the future; it is now 2026-01-15 13:00 (Europe/Berlin)"),
        ("0m", "is not in the future"),
        ("2026-01-15T12:00Z", "is not in the future"),
        ("tomorrow", "must be 90m, 2h, 1d or a time such as 2026-01-31T18:00, got 'tomorrow'"),
        ("9999-12-31T23:59-23:00", "must be"),
        ("1h30m", "must be"),
        ("9999999d", "must be"),
        ("", "must be"),
    ],
)
def test_a_time_that_is_past_or_none_is_refused(run: Run, store: SQLiteStore, until: str, message: str) -> None:
    ran = run("override", "set", *CHAT, "--label", "economy", *BY_KIM, "--until", until)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("bedrock-budget: --until: ")
    assert message in ran.err
    assert pin(store) is None


def test_json_of_set_tells_what_it_replaced(run: Run, store: SQLiteStore) -> None:
    run("override", "set", *CHAT, "--label", "economy", *BY_KIM)
    ran = run("override", "set", *CHAT, "--label", "standard", *BY_KIM, "--until", "1h", "--json")
    new = Override("standard", "demo", "kim", NOW_EPOCH, NOW_EPOCH + HOUR)
    assert json.loads(ran.out) == {
        "org_id": "acme",
        "app_id": "chat",
        "override": new._asdict(),
        "expires_at": "2026-01-15T13:00:00Z",
        "replaced": {**new._asdict(), "label": "economy", "expires_at_epoch": NOW_EPOCH + 11 * HOUR},
        "apps_with_own_override": [],
    }
    ran = run("override", "set", *CHAT, "--label", "premium", *BY_KIM)
    assert "It replaces the pin to standard by kim until 2026-01-15 14:00 (Europe/Berlin): demo\n" in ran.out


def test_an_unknown_label_is_refused_with_the_known_ones(run: Run, store: SQLiteStore) -> None:
    ran = run("override", "set", *CHAT, "--label", "gold", *BY_KIM)
    assert ran == (
        2,
        "",
        "bedrock-budget: --label: 'gold' is not a label of acme; known: premium, standard, economy\n",
    )
    assert pin(store) is None


def test_who_pins_is_the_user_unless_said(run: Run, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "sam")
    run("override", "set", *CHAT, "--label", "economy", "--reason", "demo")
    found = pin(store)
    assert found
    assert found.created_by == "sam"

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", nobody)
    ran = run("override", "set", *CHAT, "--label", "premium", "--reason", "demo")
    assert (ran.code, ran.err) == (2, "bedrock-budget: --by: your user name is not known here; say who you are\n")


def test_a_reason_is_needed(run: Run, store: SQLiteStore) -> None:
    ran = run("override", "set", *CHAT, "--label", "economy", "--reason", "  ")
    assert ran.code == 2
    assert ran.err.startswith("bedrock-budget: --reason: is empty")


def test_no_app_can_be_called_like_all_apps(run: Run, store: SQLiteStore) -> None:
    ran = run("override", "set", "--org", "acme", "--app", "*", "--label", "economy", *BY_KIM)
    assert ran.code == 2
    assert "leave the app out" in ran.err


def test_without_a_configuration_a_pin_needs_a_time(
    run: Run, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BEDROCK_BUDGET_CONFIG")
    words = ("override", "set", "--org", "hooli", "--label", "gold", *BY_KIM)
    ran = run(*words)
    assert ran.code == 2
    assert "--until: is needed" in ran.err
    ran = run(*words, "--until", "2026-01-15T18:00")
    assert ran.code == 2
    assert "has no offset" in ran.err
    ran = run(*words, "--until", "2026-01-15T18:00Z")
    assert ran.code == 0
    assert "until 2026-01-15 18:00 (UTC), in 6 h." in ran.out
    assert "note: org 'hooli' has no configuration here (--config FILE), so the label was not checked\n" in ran.err
    assert pin(store, "hooli", None)


def test_what_may_be_a_slip_is_remarked_on(run: Run, folder: Path) -> None:
    ran = run("override", "set", "--org", "amce", "--label", "economy", *BY_KIM)
    assert ran.code == 0
    assert f"note: {folder / 'budget.db'} did not exist and is created" in ran.err
    assert "note: org 'amce' is not listed (acme, globex)" in ran.err
    assert "note: org 'amce' is not listed" in run("override", "clear", "--org", "amce").err


# -- clear


def test_clears_an_apps_pin_and_fallback(run: Run, store: SQLiteStore) -> None:
    for scope in ("ORG#acme#APP#chat", "ORG#acme#APP#billing"):
        fall_back(store, scope)
    run("override", "set", *CHAT, "--label", "economy", *BY_KIM)
    ran = run("override", "clear", *CHAT)
    assert ran == (
        0,
        "Removed from acme / chat the pin to economy by kim until 2026-01-16 00:00 (Europe/Berlin): demo\n"
        "Forgot today's fallback of ORG#acme#APP#chat to standard.\n"
        "Processes follow within 60 seconds.\n",
        "",
    )
    assert pin(store) is None
    assert not has_fallen_back(store, "ORG#acme#APP#chat")
    assert has_fallen_back(store, "ORG#acme#APP#billing")


def test_clears_an_org_and_the_fallbacks_of_its_apps(run: Run, store: SQLiteStore) -> None:
    store.put_config("acme", "search", {})
    scopes = [f"ORG#acme#APP#{app_id}" for app_id in ("billing", "chat", "search")]
    for scope in ("ORG#acme", *scopes):
        fall_back(store, scope)
    run("override", "set", "--org", "acme", "--label", "economy", *BY_KIM)
    run("override", "set", *CHAT, "--label", "premium", *BY_KIM)
    ran = run("override", "clear", "--org", "acme", "--json")
    assert json.loads(ran.out) == {
        "org_id": "acme",
        "app_id": None,
        "override_removed": True,
        "override": Override("economy", "demo", "kim", NOW_EPOCH, NOW_EPOCH + 11 * HOUR)._asdict(),
        "sticky_cleared": [{"scope": scope, "org_day": DAY, "label": "standard"} for scope in ("ORG#acme", *scopes)],
        "org_override": None,
        "apps_with_own_override": ["chat"],
    }
    assert not any(has_fallen_back(store, scope) for scope in ("ORG#acme", *scopes))
    assert pin(store, "acme", "billing") is None
    assert pin(store, "acme", "chat")


def test_clears_a_scope_that_all_apps_share(run: Run, store: SQLiteStore) -> None:
    for words in (("--org", "globex"), ("--org", "globex", "--app", "chat")):
        fall_back(store, "ORG#globex")
        ran = run("override", "clear", *words)
        assert "Forgot today's fallback of ORG#globex to standard.\n" in ran.out
        assert not has_fallen_back(store, "ORG#globex")


def test_steers_a_dynamodb_store_too(run: Run, dynamodb_store: DynamoDBStore) -> None:
    at = ("--store", dynamodb_store.url)
    spend(dynamodb_store, "acme", "chat", "premium", 50_000_000)
    scope = "ORG#acme#APP#chat"
    dynamodb_store.advance_sticky(scope, DAY, Sticky("standard", 1, "x", "premium", NOW_EPOCH, NOW_EPOCH + HOUR))
    run("override", "set", "--org", "acme", "--label", "economy", *BY_KIM, *at)
    ran = run("status", "--org", "acme", *at)
    assert ran.out.count("Pinned to economy by kim") == 2
    assert "100.00 %" in ran.out
    ran = run("override", "clear", "--org", "acme", *at)
    assert ran.out.startswith("Removed from acme the pin to economy by kim")
    assert f"Forgot today's fallback of {scope} to standard.\n" in ran.out
    assert run("explain", *CHAT, *at).out.startswith("standard")
    run("tables", "delete", "--yes", *at)
    ran = run("status", *at)
    assert (ran.code, ran.out) == (1, "")
    assert f"create the tables: bedrock-budget tables create --store '{dynamodb_store.url}'" in ran.err


def test_nothing_to_clear_is_no_error(run: Run, store: SQLiteStore) -> None:
    ran = run("override", "clear", *CHAT)
    assert ran == (0, "There was no pin of acme / chat.\nThere was no fallback today.\n", "")
    store.put_override("acme", "chat", Override("economy", "x", "kim", NOW_EPOCH - 9, NOW_EPOCH - 1))
    assert run("override", "clear", *CHAT).out.startswith("Removed an expired pin from acme / chat.\n")


def test_says_what_stays_in_force(run: Run, store: SQLiteStore) -> None:
    run("override", "set", "--org", "acme", "--label", "economy", *BY_KIM)
    ran = run("override", "clear", *CHAT)
    assert "There was no pin of acme / chat.\n" in ran.out
    assert "Still in force for all apps of acme: the pin to economy by kim" in ran.out
    found = json.loads(run("override", "clear", *CHAT, "--json").out)
    assert (found["override_removed"], found["override"]) == (False, None)
    assert found["org_override"]["label"] == "economy"
    run("override", "set", *CHAT, "--label", "premium", *BY_KIM)
    assert "Apps with a pin of their own keep it: chat\n" in run("override", "clear", "--org", "acme").out


def test_a_raised_quota_takes_effect_at_once(run: Run, store: SQLiteStore, folder: Path, configuration: str) -> None:
    spend(store, "acme", "chat", "premium", 50_000_000)
    fall_back(store, "ORG#acme#APP#chat")
    (folder / "budget.yaml").write_text(configuration.replace("premium: 50000000", "premium: 90000000"), "utf-8")
    assert run("explain", *CHAT).out.startswith("standard")
    run("override", "clear", *CHAT)
    assert run("explain", *CHAT).out.startswith("premium")

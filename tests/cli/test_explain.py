"""``bedrock-budget explain``."""

import json
from dataclasses import fields
from typing import Any

from cli.command_line import DAY, NOW_EPOCH, Run, spend

from bedrock_budget.record import Decision
from bedrock_budget.stores import Override, SQLiteStore

CHAT = ("--org", "acme", "--app", "chat")
QUOTAS = {"premium": 10_000_000, "standard": 5_000_000, "economy": 2_000_000}


def explained(run: Run, *words: str, code: int = 0) -> dict[str, Any]:
    ran = run("explain", "--json", *words)
    assert ran.code == code, ran
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_json_is_the_decision(run: Run, store: SQLiteStore) -> None:
    spend(store, "acme", "chat", "premium", 1_400)
    found = explained(run, *CHAT)
    assert set(found) == {field.name for field in fields(Decision)} | {"org_id", "app_id", "refusal"}
    assert found["explanation"].startswith("premium (us.anthropic.claude")
    figures = {key: value for key, value in found.items() if key not in ("explanation", "model_id")}
    assert figures == {
        "org_id": "acme",
        "app_id": "chat",
        "label": "premium",
        "label_asked": "premium",
        "reason": "default",
        "mode": "normal",
        "org_day": DAY,
        "spend_usd_micros": 1_400,
        "quota_usd_micros": 50_000_000,
        "degraded": False,
        "refusal": None,
    }


def test_says_why(run: Run, store: SQLiteStore) -> None:
    assert "the head of the ordering" in run("explain", *CHAT).out
    spend(store, "acme", "chat", "premium", 50_000_000)
    assert run("explain", *CHAT).out.startswith("standard (amazon.nova-pro-v1:0): ")
    assert "the call asked for it" in run("explain", *CHAT, "economy").out
    assert explained(run, *CHAT, "amazon.nova-micro-v1:0")["label"] == "economy"
    store.put_override("acme", "chat", Override("premium", "demo", "kim", NOW_EPOCH, NOW_EPOCH + 60))
    assert "Override by kim: demo." in run("explain", *CHAT).out


def test_a_call_that_would_be_refused_ends_with_3(run: Run, store: SQLiteStore) -> None:
    for label, quota in QUOTAS.items():
        spend(store, "acme", "billing", label, quota)
    ran = run("explain", "--org", "acme", "--app", "billing")
    assert (ran.code, ran.err) == (3, "")
    assert ran.out.startswith("The call would be refused (BudgetExhausted): the daily quotas of ORG#acme#APP#billing ")
    found = explained(run, "--org", "acme", "--app", "billing", code=3)
    assert (found["label"], found["reason"], found["org_day"]) == (None, "exhausted", DAY)
    assert (found["refusal"]["error"], found["refusal"]["retry_at"]) == ("BudgetExhausted", "2026-01-15T23:00:00Z")


def test_an_unknown_model_would_be_refused(run: Run, store: SQLiteStore) -> None:
    ran = run("explain", *CHAT, "gold")
    assert ran.code == 3
    assert ran.out.startswith("The call would be refused (UnknownModel): modelId 'gold' is neither a label nor ")
    found = explained(run, *CHAT, "gold", code=3)
    assert found["refusal"]["error"] == "UnknownModel"
    assert found["refusal"]["retry_at"] is None
    assert {found[field.name] for field in fields(Decision)} == {None}


def test_an_app_is_needed_where_apps_have_quotas_of_their_own(run: Run, store: SQLiteStore) -> None:
    ran = run("explain", "--org", "acme")
    assert ran == (
        2,
        "",
        "bedrock-budget: --app: org 'acme' has quota_scope: APP; name an app with --app APP (listed: billing, chat)\n",
    )
    ran = run("explain", "--org", "hooli")
    assert ran.err.endswith("has quota_scope: APP; name an app with --app APP\n")
    assert explained(run, "--org", "globex")["app_id"] is None
    assert "note: org 'hooli' is not listed" in run("explain", "--org", "hooli", "--app", "x").err


def test_mistakes_are_not_refusals(run: Run, store: SQLiteStore) -> None:
    store.put_config("acme", "chat", {"quotas": {"premium": -1}})
    ran = run("explain", *CHAT)
    assert (ran.code, ran.out) == (2, "")
    assert "quotas.premium" in ran.err

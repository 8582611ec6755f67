"""``bedrock-budget profile``: inference profiles registered as labels."""

import json
import shlex

import pytest
from cli.command_line import NOW_EPOCH, Run

from bedrock_budget.stores import Profile, SQLiteStore

ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr"
OTHER = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CHAT = ("--org", "acme", "--app", "chat", "--label", "premium")
PROFILE = Profile("chat", "premium", ARN, "tenant A", NOW_EPOCH, NOW_EPOCH)


def add(run: Run, *more: str) -> None:
    ran = run("profile", "add", *CHAT, "--arn", ARN, "--description", "tenant A", *more)
    assert ran.code == 0, ran


def test_adds_shows_lists_and_removes(run: Run, store: SQLiteStore) -> None:
    ran = run("profile", "add", *CHAT, "--arn", ARN, "--description", "tenant A")
    assert ran == (0, f"Registered premium of acme / chat as {ARN}.\nProcesses follow within 5 minutes.\n", "")
    assert store.profiles("acme", "chat") == [PROFILE]
    assert run("profile", "show", *CHAT) == (
        0,
        f"acme / chat: premium is {ARN}\n"
        "  description: tenant A\n"
        "  registered: 2026-01-15T12:00:00Z, last changed: 2026-01-15T12:00:00Z\n",
        "",
    )
    run("profile", "add", "--org", "acme", "--label", "standard", "--arn", OTHER)
    assert run("profile", "list", "--org", "acme").out == (
        f"acme: standard is {OTHER}\nacme / chat: premium is {ARN}\n"
    )
    ran = run("profile", "remove", *CHAT)
    assert ran.out == f"Removed premium of acme / chat: it was {ARN}.\nProcesses follow within 5 minutes.\n"
    ran = run("profile", "remove", *CHAT)
    assert ran == (0, "premium of acme / chat is not registered.\n", "")
    run("profile", "remove", "--org", "acme", "--label", "standard")
    assert run("profile", "list", "--org", "acme").out == "No inference profile of acme is registered.\n"


def test_replaces(run: Run, store: SQLiteStore) -> None:
    add(run)
    ran = run("profile", "add", *CHAT, "--arn", OTHER)
    assert f"It replaces {ARN}.\n" in ran.out
    add(run)
    assert "replaces" not in run("profile", "add", *CHAT, "--arn", ARN).out
    assert [each.arn for each in store.profiles("acme", "chat")] == [ARN]


def test_as_json(run: Run, store: SQLiteStore) -> None:
    shown = {**PROFILE._asdict()}
    ran = run("profile", "add", *CHAT, "--arn", ARN, "--description", "tenant A", "--json")
    assert json.loads(ran.out) == {"org_id": "acme", "profile": shown, "replaced": None}
    assert json.loads(run("profile", "show", *CHAT, "--json").out) == {"org_id": "acme", "profile": shown}
    assert json.loads(run("profile", "list", "--org", "acme", "--json").out) == {"org_id": "acme", "profiles": [shown]}
    ran = run("profile", "remove", *CHAT, "--json")
    assert json.loads(ran.out) == {"org_id": "acme", "removed": True, "profile": shown}


def test_explain_and_status_know_them(run: Run, store: SQLiteStore) -> None:
    run("profile", "add", *CHAT, "--arn", OTHER)
    ran = run("explain", "--org", "acme", "--app", "chat")
    assert f"  premium: registered profile {OTHER}\n" in ran.out
    assert OTHER in run("status", "--org", "acme", "--app", "chat", "--json").out


@pytest.mark.parametrize(
    "arn",
    [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef123456",
        "arn:aws:bedrock:us-east-1:1234:application-inference-profile/1arbu5hu2sjr",
        "arn:aws:bedrock::123456789012:application-inference-profile/1arbu5hu2sjr",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1ar bu5hu2sjr",
        "",
    ],
)
def test_only_an_arn_of_an_inference_profile_is_registered(run: Run, store: SQLiteStore, arn: str) -> None:
    ran = run("profile", "add", *CHAT, "--arn", arn)
    assert ran.code == 2
    assert f"--arn: {arn!r} is not the ARN of an inference profile; give arn:aws:bedrock:" in ran.err
    assert store.profiles("acme", "chat") == []


@pytest.mark.parametrize("label", ["auto", "unlabelled", "*"])
def test_words_with_a_meaning_are_no_labels(run: Run, label: str) -> None:
    ran = run("profile", "add", "--org", "acme", "--label", label, "--arn", ARN)
    assert ran.code == 2
    assert "has a meaning of its own" in ran.err


def test_what_is_not_registered_cannot_be_shown(run: Run, store: SQLiteStore) -> None:
    ran = run("profile", "show", *CHAT)
    assert ran.code == 2
    assert "'premium' is not registered for acme / chat; see bedrock-budget profile list" in ran.err


def test_an_app_that_is_not_listed_is_remarked(run: Run, store: SQLiteStore) -> None:
    ran = run("profile", "add", *shlex.split("--org acme --app chta --label premium --arn"), ARN)
    assert ran.code == 0
    assert "app 'chta' of org 'acme' is not listed" in ran.err

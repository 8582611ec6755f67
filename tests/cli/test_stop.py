"""``bedrock-budget stop`` and ``resume``."""

import getpass
import json
from pathlib import Path

import pytest
from cli.command_line import NOW_EPOCH, Run, spend

from bedrock_budget.stores import DynamoDBStore, Override, SQLiteStore, Stop
from bedrock_budget.suspension import AUTOMATIC

CHAT = ("--org", "acme", "--app", "chat")
BY_KIM = ("--reason", "an agent runs away", "--by", "kim")
HOUR = 3600
STOP = Stop("chat", "kim", "an agent runs away", NOW_EPOCH, None)


def stops(store: SQLiteStore, org_id: str = "acme") -> list[Stop]:
    return store.stops(org_id, now_epoch=NOW_EPOCH)


def test_stops_an_app_until_it_is_resumed(run: Run, store: SQLiteStore) -> None:
    ran = run("stop", *CHAT, *BY_KIM)
    assert ran == (
        0,
        "Stopped acme / chat until it is resumed.\n"
        "Processes follow within 60 seconds. Streams that are open go on.\n"
        "To resume: bedrock-budget resume --org acme --app chat\n",
        "",
    )
    assert stops(store) == [STOP]
    assert run("resume", *CHAT, "--by", "lee") == (
        0,
        "Resumed acme / chat: it was stopped by kim at 2026-01-15 13:00 (Europe/Berlin), until it is resumed: "
        "an agent runs away\n"
        "Processes follow within 60 seconds.\n",
        "",
    )
    assert stops(store) == []


@pytest.mark.parametrize(("until", "hours"), [("90m", 1.5), ("1d", 24), ("2026-01-15T18:00", 5)])
def test_stops_an_org_until_a_time(run: Run, store: SQLiteStore, until: str, hours: float) -> None:
    ran = run("stop", "--org", "acme", *BY_KIM, "--until", until)
    assert ran.out.startswith("Stopped acme (all apps) until 2026-01-")
    assert stops(store) == [STOP._replace(app_id=None, expires_at_epoch=NOW_EPOCH + int(hours * HOUR))]


def test_status_and_explain_show_who_when_and_why(run: Run, store: SQLiteStore) -> None:
    store.put_override("acme", "chat", Override("economy", "demo", "lee", NOW_EPOCH, NOW_EPOCH + HOUR))
    run("stop", "--org", "acme", *BY_KIM)
    ran = run("status", "--org", "acme")
    shown = (
        "  Calls are refused. All apps of the org are stopped by kim at 2026-01-15 13:00 (Europe/Berlin), until it is "
        "resumed: an agent runs away\n"
    )
    assert ran.out.count(shown) == 2
    assert "in force" not in ran.out
    assert "The next call goes" not in ran.out
    found = json.loads(run("status", *CHAT, "--json").out)["scopes"][0]
    assert found["stop"] == STOP._replace(app_id=None)._asdict()
    assert (found["label_in_force"], found["model_id_in_force"]) == (None, None)
    assert not any(label["in_force"] for label in found["labels"])
    ran = run("explain", *CHAT)
    assert ran.code == 3
    assert ran.out == (
        "The call would be refused (BudgetStopped): org acme (all apps) was stopped by kim at "
        "2026-01-15T13:00:00+01:00, until it is resumed: an agent runs away. "
        "To resume: bedrock-budget resume --org acme\n"
    )
    found = json.loads(run("explain", *CHAT, "economy", "--json").out)
    assert (found["label"], found["label_asked"], found["reason"]) == (None, "economy", "stopped")
    assert found["refusal"]["error"] == "BudgetStopped"
    assert found["refusal"]["stopped_by"] == "kim"
    assert found["refusal"]["stopped_at"] == "2026-01-15T12:00:00Z"
    assert found["refusal"]["why"] == "an agent runs away"
    assert found["refusal"]["retry_at"] is None
    run("resume", "--org", "acme", "--by", "kim")
    assert json.loads(run("explain", *CHAT, "--json").out)["reason"] == "override"


def test_a_reason_cannot_reach_the_terminal(run: Run, store: SQLiteStore) -> None:
    store.put_stop("acme", STOP._replace(reason="\x1b[31mred\nline", stopped_by="a\tb"))
    for words in (("status", *CHAT), ("explain", *CHAT), ("resume", *CHAT, "--by", "kim")):
        assert "?[31mred?line" in run(*words).out


def test_json_of_both(run: Run, store: SQLiteStore) -> None:
    run("stop", *CHAT, *BY_KIM)
    run("stop", "--org", "acme", *BY_KIM, "--until", "1h")
    for_all = STOP._replace(app_id=None, expires_at_epoch=NOW_EPOCH + HOUR)._asdict()
    assert json.loads(run("stop", "--org", "acme", *BY_KIM, "--until", "2h", "--json").out) == {
        "org_id": "acme",
        "app_id": None,
        "stop": {**for_all, "expires_at_epoch": NOW_EPOCH + 2 * HOUR},
        "expires_at": "2026-01-15T14:00:00Z",
        "replaced": for_all,
    }
    assert json.loads(run("resume", *CHAT, "--by", "lee", "--json").out) == {
        "org_id": "acme",
        "app_id": "chat",
        "resumed": True,
        "stop": STOP._asdict(),
        "org_stop": {**for_all, "expires_at_epoch": NOW_EPOCH + 2 * HOUR},
        "apps_stopped": [],
    }


def test_what_remains_stopped_is_said(run: Run, store: SQLiteStore) -> None:
    run("stop", "--org", "acme", *BY_KIM)
    run("stop", *CHAT, *BY_KIM)
    run("stop", "--org", "acme", "--app", "not-listed", *BY_KIM)
    ran = run("resume", *CHAT, "--by", "lee")
    assert (
        "Its org remains stopped by kim at 2026-01-15 13:00 (Europe/Berlin), until it is resumed: an agent runs away\n"
        "To resume the org: bedrock-budget resume --org acme\n"
    ) in ran.out
    ran = run("resume", *CHAT, "--by", "lee")
    assert "Its org remains stopped" in ran.out
    assert run("explain", *CHAT).code == 3
    run("stop", *CHAT, *BY_KIM)
    ran = run("resume", "--org", "acme", "--by", "lee")
    assert "Apps with a stop of their own remain stopped: chat, not-listed\n" in ran.out
    assert run("explain", "--org", "acme", "--app", "billing").code == 0
    assert run("explain", *CHAT).code == 3


def test_a_stop_replaces_an_earlier_one(run: Run, store: SQLiteStore) -> None:
    run("stop", *CHAT, *BY_KIM)
    ran = run("stop", *CHAT, "--reason", "still", "--by", "lee", "--until", "1h")
    assert "It replaces the stop by kim at 2026-01-15 13:00 (Europe/Berlin), until it is resumed: an agent" in ran.out
    assert stops(store) == [Stop("chat", "lee", "still", NOW_EPOCH, NOW_EPOCH + HOUR)]


def test_nothing_to_resume_is_no_error(run: Run, store: SQLiteStore) -> None:
    assert run("resume", *CHAT, "--by", "kim") == (0, "There was no stop of acme / chat.\n", "")
    store.put_stop("acme", STOP._replace(expires_at_epoch=NOW_EPOCH))
    assert run("resume", *CHAT, "--by", "kim").out == "There was no stop of acme / chat.\n"


def test_resuming_an_automatic_stop_keeps_it_from_coming_again(run: Run, store: SQLiteStore) -> None:
    automatic = Stop("chat", AUTOMATIC, "too much", NOW_EPOCH, NOW_EPOCH + 11 * HOUR)
    assert store.put_automatic_stop("acme", automatic, day="20260115") == automatic
    assert "stopped by bedrock_budget (automatic) at" in run("status", *CHAT).out
    run("resume", *CHAT, "--by", "kim")
    assert store.put_automatic_stop("acme", automatic, day="20260115") is None
    assert run("explain", *CHAT).code == 0


def test_looking_does_not_stop(run: Run, store: SQLiteStore, folder: Path, configuration: str) -> None:
    (folder / "budget.yaml").write_text(
        configuration.replace("  quota_scope: APP", "  quota_scope: APP\n  stop_at_pct: 1")
    )
    store.put_stop("acme", STOP)
    store.lift_stop("acme", "chat", lifted_by="kim", now_epoch=NOW_EPOCH)

    spend(store, "acme", "chat", "premium", 40_000_000)
    assert run("explain", *CHAT).code == 0
    assert "The next call goes to premium" in run("status", *CHAT).out
    assert stops(store) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stop", *CHAT, "--reason", " ", "--by", "kim"), "--reason: is empty; say why, for whoever finds the stop"),
        (("stop", *CHAT, *BY_KIM, "--until", "tomorrow"), "--until: must be 90m, 2h, 1d or a time such as"),
        (("stop", *CHAT, *BY_KIM, "--until", "0m"), "is not in the future"),
        (("stop", "--org", "acme", "--app", "*", *BY_KIM), "leave the app out"),
        (("resume", "--org", "acme", "--app", "*", "--by", "kim"), "leave the app out"),
        (("stop", *CHAT, "--by", "kim"), "--reason"),
        (("stop", *BY_KIM), "--org"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_stopped(
    run: Run, store: SQLiteStore, words: tuple[str, ...], message: str
) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert stops(store) == []


def test_who_stops_is_the_user_unless_said(run: Run, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "sam")
    run("stop", *CHAT, "--reason", "a leak")
    assert stops(store)[0].stopped_by == "sam"
    assert run("resume", *CHAT).code == 0


def test_stopping_needs_no_good_configuration(
    run: Run, store: SQLiteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_config("acme", None, {"quotas": {"premium": "many"}})
    ran = run("stop", *CHAT, *BY_KIM)
    assert ran.code == 0
    assert "note: going on without the configuration: " in ran.err
    assert "quotas.premium" in ran.err
    (folder / "budget.yaml").write_text("model_labels: 7")
    ran = run("stop", "--org", "acme", *BY_KIM, "--until", "1h")
    assert ran.code == 0
    assert "note: going on without the configuration: budget.yaml: model_labels" in ran.err
    assert "until 2026-01-15 13:00 (UTC), in 1 h." in ran.out
    monkeypatch.delenv("BEDROCK_BUDGET_CONFIG")
    ran = run("stop", "--org", "hooli", *BY_KIM)
    assert "note: org 'hooli' has no configuration here (--config FILE)" in ran.err
    assert [stop.app_id for stop in stops(store)] == [None, "chat"]
    assert stops(store, "hooli")
    assert run("resume", *CHAT, "--by", "kim").code == 0


def test_what_may_be_a_slip_is_remarked_on(run: Run, store: SQLiteStore) -> None:
    assert "note: org 'amce' is not listed (acme, globex)" in run("stop", "--org", "amce", *BY_KIM).err
    assert "note: app 'caht' of org 'acme' is not listed" in run("stop", "--org", "acme", "--app", "caht", *BY_KIM).err


def test_stops_in_a_dynamodb_store_too(run: Run, dynamodb_store: DynamoDBStore) -> None:
    at = ("--store", dynamodb_store.url)
    run("stop", "--org", "acme", *BY_KIM, *at)
    run("stop", *CHAT, *BY_KIM, *at)
    assert run("status", "--org", "acme", *at).out.count("Calls are refused.") == 2
    assert "Its org remains stopped by kim" in run("resume", *CHAT, "--by", "kim", *at).out
    assert "Resumed acme (all apps)" in run("resume", "--org", "acme", "--by", "kim", *at).out
    assert run("explain", *CHAT, *at).code == 0

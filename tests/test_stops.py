"""Stops: rule 1 of the decision. Whoever is stopped makes no call, whatever else is decided."""

import logging
import pickle
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from botocore.exceptions import ClientError
from doubles import AWAY, CHAIN, ByHand, UnreliableStore
from hypothesis import given
from hypothesis import strategies as st
from metered import HELLO, NOVA_BODY, budget, metered, record_of, served

from bedrock_budget import BudgetStopped
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.usage import Usage
from bedrock_budget.status import read_status
from bedrock_budget.stores import MemoryStore, Override, Stop
from bedrock_budget.testing import LocalBedrock, ManualClock

NOW_EPOCH = 1768478400  # 2026-01-15T12:00Z, where the manual clock stands
DAY_ENDS = 1768521600
STOP = Stop("chat", "ann", "an agent runs away", NOW_EPOCH, None)
FOR_ALL = STOP._replace(app_id=None)
PIN = Override("economy", "why", "ann", NOW_EPOCH, DAY_ENDS)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def process(store: UnreliableStore, clock: ManualClock) -> Iterator[ByHand]:
    return ByHand(store, clock)


def is_stopped(process: ByHand, asked: str | None = None) -> bool:
    try:
        process.admit(asked)
    except BudgetStopped:
        return True
    return False


# --- the refusal, over real HTTP


@pytest.mark.parametrize("stop", [STOP, FOR_ALL])
def test_a_stop_refuses_with_a_429_that_says_who_when_why_and_how_to_resume(
    local_bedrock: LocalBedrock, manual_clock: ManualClock, stop: Stop
) -> None:
    store = MemoryStore()
    store.put_stop("acme", stop)
    with metered(local_bedrock, store=store, clock=manual_clock, config=budget(timezone="Europe/Berlin")) as bedrock:
        with pytest.raises(ClientError) as caught:
            bedrock.converse(messages=HELLO)
        error = caught.value
        assert isinstance(error, BudgetStopped)
        assert error.response["Error"]["Code"] == "BudgetStopped"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert error.operation_name == "Converse"
        assert (error.stopped_by, error.why) == ("ann", "an agent runs away")
        assert error.stopped_at == datetime(2026, 1, 15, 13, tzinfo=ZoneInfo("Europe/Berlin"))
        text = str(error)
        assert "stopped by ann at 2026-01-15T13:00:00+01:00, until it is resumed: an agent runs away" in text
        resume = "bedrock-budget resume --org acme" + ("" if stop.app_id is None else " --app chat")
        assert text.endswith(f"To resume: {resume}")
        record = record_of(error)
        assert (record["label"], record["model_id"]) == (None, None)
        assert (record["label_asked"], record["reason"], record["org_day"]) == ("premium", "stopped", "20260115")
        assert record["cost_pico_usd"] == record["cost_usd_micros"] == 0
        assert set(record["usage"].values()) == {0}
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.stopped_at, again.record) == (text, error.stopped_at, record)
    assert served(local_bedrock) == []


def test_a_stop_that_expires_says_when(local_bedrock: LocalBedrock, manual_clock: ManualClock) -> None:
    store = MemoryStore()
    store.put_stop("acme", STOP._replace(app_id="a b", expires_at_epoch=NOW_EPOCH + 60))
    with metered(local_bedrock, store=store, clock=manual_clock, app_id="a b") as bedrock:
        with pytest.raises(BudgetStopped, match=r"until 2026-01-15T12:01:00\+00:00: .* --org acme --app 'a b'"):
            bedrock.converse(messages=HELLO)
        manual_clock.advance(60)  # it ends by itself, without a look
        assert record_of(bedrock.converse(messages=HELLO))["reason"] == "default"


def test_every_way_of_calling_is_refused_and_counting_tokens_is_not(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    store.put_stop("acme", STOP)
    with metered(local_bedrock, store=store, on_unknown_model="pass") as bedrock:
        for refused in (
            lambda: bedrock.converse(messages=HELLO),
            lambda: bedrock.converse_stream(messages=HELLO),
            lambda: bedrock.converse(modelId="some.unknown-model-v1:0", messages=HELLO),
            lambda: bedrock.converse(modelId="embed", messages=HELLO),
            lambda: bedrock.invoke_model(modelId="standard", body=NOVA_BODY),
            lambda: bedrock.invoke_model(modelId="standard", body=lambda decision: NOVA_BODY),
            lambda: bedrock.invoke_model_with_response_stream(modelId="standard", body=NOVA_BODY),
            bedrock.decide,
        ):
            with pytest.raises(BudgetStopped):
                refused()
        assert served(local_bedrock) == []
        assert [status.in_force for status in bedrock.status()] == [False] * 3
        counted = bedrock.count_tokens(input={"converse": {"messages": HELLO}})
        assert counted["inputTokens"] == 3
        assert record_of(bedrock.for_app("billing").converse(messages=HELLO))["label"] == "premium"


def test_a_stream_that_is_open_goes_on(local_bedrock: LocalBedrock, manual_clock: ManualClock) -> None:
    store = MemoryStore()
    with metered(local_bedrock, store=store, clock=manual_clock) as bedrock:
        response = bedrock.converse_stream(messages=HELLO)
        store.put_stop("acme", STOP)
        bedrock._keeper.scopes._look(bedrock._scope.day)
        with pytest.raises(BudgetStopped):
            bedrock.converse(messages=HELLO)
        assert "metadata" in list(response["stream"])[-1]
        record = record_of(response)
        assert record["reason"] == "default"
        assert record["cost_pico_usd"] > 0


# --- rule 1


@pytest.mark.parametrize("asked", [None, "auto", "premium", "model.standard", "embed", "unknown.model"])
@pytest.mark.parametrize("pinned", [False, True])
def test_a_stop_comes_before_every_other_rule(
    store: UnreliableStore, clock: ManualClock, asked: str | None, pinned: bool
) -> None:
    keywords = {"on_exhausted": "last", "on_unknown_model": "pass", "on_unknown_price": "track"}
    process = ByHand(store, clock, **keywords)
    if pinned:
        store.put_override("acme", "chat", PIN)
    process.spend(1000, "premium")
    process.look_when_due()
    assert not is_stopped(process, asked)
    store.put_stop("acme", STOP)
    assert process.look_when_due() <= 60
    with pytest.raises(BudgetStopped) as caught:
        process.admit(asked)
    record = record_of(caught.value)
    known = {None: "premium", "auto": "premium", "model.standard": "standard", "unknown.model": "unlabelled"}
    assert record["label_asked"] == known.get(asked, asked)
    assert record["mode"] == ("tight" if record["label_asked"] == "premium" and not pinned else "normal")
    store.lift_stop("acme", "chat", lifted_by="ann", now_epoch=NOW_EPOCH + 1)
    assert process.look_when_due() <= 60
    assert not is_stopped(process, asked)


def test_status_has_no_label_in_force_while_stopped(process: ByHand, store: UnreliableStore) -> None:
    process.spend(5)
    store.put_stop("acme", FOR_ALL)
    process.look_when_due()
    rows = read_status(process.day, process.clock.now(), store, process.keeper.meter)
    assert [row.in_force for row in rows] == [False] * 3
    assert rows[0].spend_usd_micros == 5
    assert process.keeper.model_id_for_counting(process.scope, None) == "model.premium"


def test_a_stop_takes_effect_though_the_rest_of_the_look_fails(
    process: ByHand, store: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    process.spend(5)
    store.put_stop("acme", STOP)
    store.fails = lambda name, subject: AWAY if name == "read_shards" else None
    process.look_when_due()
    assert process.day.degraded
    assert is_stopped(process)
    store.fails = lambda name, subject: None
    process.look_when_due()
    assert is_stopped(process)
    store.lift_stop("acme", "chat", lifted_by="ann", now_epoch=NOW_EPOCH + 1)
    process.look_when_due()
    assert not is_stopped(process)
    said = [(r.levelno, r.getMessage()) for r in caplog.records if "stopped" in r.getMessage()]
    assert [level for level, _ in said] == [logging.WARNING] * 2
    assert "an agent runs away" in said[0][1]
    assert said[1][1] == "ORG#acme#APP#chat is no longer stopped"


def test_a_stop_takes_effect_though_nothing_else_could_ever_be_read(process: ByHand, store: UnreliableStore) -> None:
    store.put_stop("acme", STOP)
    store.fails = lambda name, subject: None if name == "read_controls" else AWAY
    assert is_stopped(process)
    assert process.day.degraded


def test_a_stop_stands_while_the_store_is_away_and_over_midnight(
    process: ByHand, store: UnreliableStore, clock: ManualClock
) -> None:
    store.put_stop("acme", STOP)
    assert is_stopped(process)
    store.go_away()
    process.look_when_due()
    assert is_stopped(process)
    clock.advance(86_400)
    assert is_stopped(process)
    assert process.day.day.name == "20260116"
    store.come_back()
    store.lift_stop("acme", "chat", lifted_by="ann", now_epoch=NOW_EPOCH + 1)
    process.look_when_due()
    assert not is_stopped(process)


def test_an_unreadable_stop_is_an_error_and_not_no_stop(process: ByHand, store: UnreliableStore) -> None:
    store.fails = lambda name, subject: StoreError("unreadable") if name == "read_controls" else None
    closed = ByHand(store, process.clock, on_store_error="closed")
    with pytest.raises(StoreError, match="unreadable"):
        closed.admit()


def test_stops_of_the_org_reach_all_apps_and_those_of_an_app_one(store: UnreliableStore, clock: ManualClock) -> None:
    chat, billing = ByHand(store, clock), ByHand(store, clock, app="billing")
    store.put_stop("acme", STOP)
    assert (is_stopped(chat), is_stopped(billing)) == (True, False)
    store.put_stop("acme", FOR_ALL)
    for each in (chat, billing):
        each.look_when_due()
    assert (is_stopped(chat), is_stopped(billing)) == (True, True)
    store.lift_stop("acme", None, lifted_by="ann", now_epoch=NOW_EPOCH)
    clock.advance(60)
    for each in (chat, billing):
        each.look()
    assert (is_stopped(chat), is_stopped(billing)) == (True, False)


_APPS = st.sampled_from([None, "chat", "billing"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("stop"), _APPS, st.one_of(st.none(), st.integers(1, 300))),
        st.tuples(st.just("lift"), _APPS, st.none()),
        st.tuples(st.just("pass"), st.integers(0, 120), st.none()),
        st.tuples(st.just("look"), st.booleans(), st.none()),
        st.tuples(st.just("pin"), st.sampled_from([*CHAIN, "embed"]), st.none()),
        st.tuples(st.just("call"), st.sampled_from([None, "standard", "embed", "no.label"]), st.integers(0, 900)),
    ),
    max_size=40,
)


@given(_STEPS)
def test_no_call_is_admitted_under_an_unexpired_stop_that_was_seen(steps: list[tuple[str, object, object]]) -> None:
    store, clock = UnreliableStore(), ManualClock()
    keywords = {"on_exhausted": "last", "on_unknown_model": "pass", "on_unknown_price": "track"}
    process = ByHand(store, clock, **keywords)
    process.admit()
    seen: list[Stop] = []  # by the last look
    for name, first, second in steps:
        now = int(clock.now().timestamp())
        if name == "stop":
            until = None if second is None else now + second  # type: ignore[operator]
            store.put_stop("acme", Stop(first, "ann", "why", now, until))  # type: ignore[arg-type]
        elif name == "lift":
            store.lift_stop("acme", first, lifted_by="ann", now_epoch=now)  # type: ignore[arg-type]
        elif name == "pass":
            clock.advance(first)  # type: ignore[arg-type]
        elif name == "pin":
            store.put_override("acme", "chat", PIN._replace(label=str(first)))
        elif name == "look":
            standing = [stop for stop in store.stops("acme", now_epoch=now) if stop.app_id in (None, "chat")]
            store.fails = lambda name, subject, fails=first: AWAY if fails and name == "read_shards" else None
            process.look()
            store.fails = lambda name, subject: None
            if process.day.error is None or standing:
                seen = standing
        else:
            if process.day.awaits_look(clock.now()):
                continue  # it would look by itself
            stands = any(stop.expires_at_epoch is None or stop.expires_at_epoch > now for stop in seen)
            try:
                process.admit(first).settle(Usage(second))  # type: ignore[arg-type]
                admitted = True
            except BudgetStopped:
                admitted = False
            assert admitted is not stands

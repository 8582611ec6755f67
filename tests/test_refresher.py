"""When scopes are looked at: at once for a call that waits, else when they are due, on few threads."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from doubles import wait_until

from bedrock_budget import refresher as refresher_module
from bedrock_budget.clock import SystemClock
from bedrock_budget.core.days import org_day
from bedrock_budget.refresher import FORGET_SECS, MAX_THREADS, Refresher
from bedrock_budget.scopes import ScopeDay
from bedrock_budget.testing import ManualClock

NEVER = 10.0**9


class Looks:
    """What stands for a look: it is noted, may have to wait, and says when the next one is due."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.made: list[ScopeDay] = []
        self.under_way = 0
        self.gates: dict[ScopeDay, threading.Event] = {}
        self.every = NEVER
        self._lock = threading.Lock()

    def look(self, scope: ScopeDay) -> None:
        with self._lock:
            self.under_way += 1
        gate = self.gates.get(scope)
        if gate is not None:
            gate.wait(30)
        scope.due_at = self.clock.monotonic() + self.every
        scope.fresh_until = scope.ends_at
        with self._lock:
            self.under_way -= 1
            self.made.append(scope)
        scope.tried.set()
        scope.asked = False


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def looks(clock: ManualClock) -> Looks:
    return Looks(clock)


@pytest.fixture
def forgotten() -> list[ScopeDay]:
    return []


@pytest.fixture
def refresher(
    looks: Looks, clock: ManualClock, forgotten: list[ScopeDay], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Refresher]:
    monkeypatch.setattr(refresher_module, "FOREIGN_CLOCK_SECS", 0.001)
    refresher = Refresher(looks.look, clock, on_forget=forgotten.append)
    yield refresher
    refresher.close()
    for gate in looks.gates.values():
        gate.set()
    wait_until(lambda: refresher._threads == 0)


@pytest.fixture
def new_scope(clock: ManualClock) -> Callable[[], ScopeDay]:
    def new_scope() -> ScopeDay:
        scope = ScopeDay("acme", "chat", org_day(clock.now(), UTC))
        scope.used_at = clock.now()
        return scope

    return new_scope


NewScope = Callable[[], ScopeDay]


def test_a_first_look_is_made_at_once_and_waited_for(refresher: Refresher, looks: Looks, new_scope: NewScope) -> None:
    scope = new_scope()
    refresher.first_look(scope)
    assert looks.made == [scope]
    assert scope.error is None


def test_many_first_callers_share_one_look(refresher: Refresher, looks: Looks, new_scope: NewScope) -> None:
    scope = new_scope()
    gate = looks.gates[scope] = threading.Event()
    callers = [threading.Thread(target=refresher.first_look, args=(scope,)) for _ in range(20)]
    for caller in callers:
        caller.start()
    wait_until(lambda: looks.under_way == 1)
    gate.set()
    for caller in callers:
        caller.join(10)
    assert looks.made == [scope]


def test_a_call_waits_no_longer_than_the_limit_and_the_look_goes_on(
    refresher: Refresher, looks: Looks, new_scope: NewScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresher_module, "FIRST_LOOK_SECS", 0.02)
    scope = new_scope()
    gate = looks.gates[scope] = threading.Event()
    refresher.first_look(scope)
    assert isinstance(scope.error, TimeoutError)
    assert scope.tried.is_set()
    assert looks.made == []
    gate.set()
    wait_until(lambda: looks.made == [scope])


def test_a_scope_is_looked_at_when_it_is_due(
    refresher: Refresher, looks: Looks, clock: ManualClock, new_scope: NewScope
) -> None:
    looks.every = 10.0
    scope = new_scope()
    refresher.first_look(scope)
    for times in range(2, 6):
        clock.advance(9.9)
        assert not threading.Event().wait(0.01)
        assert len(looks.made) == times - 1
        clock.advance(0.1)
        wait_until(lambda times=times: len(looks.made) == times)  # type: ignore[misc]


def test_scopes_that_are_due_go_in_the_order_of_their_times(
    refresher: Refresher, looks: Looks, clock: ManualClock, new_scope: NewScope
) -> None:
    scopes = [new_scope() for _ in range(3)]
    for secs, scope in zip((30.0, 10.0, 20.0), scopes, strict=True):
        looks.every = secs
        refresher.first_look(scope)
    looks.every = NEVER
    looks.made.clear()
    for expected in (scopes[1], scopes[2], scopes[0]):
        clock.advance(10)
        wait_until(lambda expected=expected: looks.made and looks.made[-1] is expected)  # type: ignore[misc]
    assert len(looks.made) == 3


def test_a_new_look_takes_the_place_of_the_one_that_was_to_come(
    refresher: Refresher, looks: Looks, clock: ManualClock, new_scope: NewScope
) -> None:
    looks.every = 10.0
    scope = new_scope()
    refresher.first_look(scope)
    clock.advance(5)
    refresher.first_look(scope)
    assert len(looks.made) == 1  # it is fresh
    scope.fresh_until = clock.now()
    refresher.first_look(scope)
    clock.advance(5)
    assert not threading.Event().wait(0.02)
    assert len(looks.made) == 2
    clock.advance(5)
    wait_until(lambda: len(looks.made) == 3)


def test_one_slow_scope_does_not_hold_up_others_that_come_together(
    refresher: Refresher, looks: Looks, new_scope: NewScope
) -> None:
    refresher.first_look(new_scope())  # now one thread waits
    slow = [new_scope() for _ in range(MAX_THREADS - 1)]
    for scope in slow:
        looks.gates[scope] = threading.Event()
    quick = new_scope()
    callers = [threading.Thread(target=refresher.first_look, args=(scope,)) for scope in (*slow, quick)]
    with refresher._changed:  # all of them come before the thread that waits can wake up
        for caller in callers:
            caller.start()
    callers[-1].join(10)
    assert quick in looks.made
    assert quick.error is None
    wait_until(lambda: looks.under_way == len(slow))  # each on a thread of its own
    for gate in looks.gates.values():
        gate.set()
    for caller in callers:
        caller.join(10)


def test_scopes_that_fall_due_together_are_shared_among_threads(
    refresher: Refresher, looks: Looks, clock: ManualClock, new_scope: NewScope
) -> None:
    looks.every = 10.0
    scopes = [new_scope() for _ in range(20)]
    for scope in scopes:
        refresher.first_look(scope)
    assert refresher._threads == 1
    gate = threading.Event()
    looks.gates.update(dict.fromkeys(scopes, gate))
    clock.advance(10)
    wait_until(lambda: looks.under_way == MAX_THREADS)
    gate.set()
    wait_until(lambda: len(looks.made) == 40)


def test_never_more_threads_than_the_limit(refresher: Refresher, looks: Looks, new_scope: NewScope) -> None:
    scopes = [new_scope() for _ in range(3 * MAX_THREADS)]
    gate = threading.Event()
    looks.gates.update(dict.fromkeys(scopes, gate))
    callers = [threading.Thread(target=refresher.first_look, args=(scope,)) for scope in scopes]
    for caller in callers:
        caller.start()
    wait_until(lambda: looks.under_way == MAX_THREADS and len(refresher._heap) == 2 * MAX_THREADS)
    gate.set()
    for caller in callers:
        caller.join(10)
    assert len(looks.made) == len(scopes)


def test_thousands_of_scopes(refresher: Refresher, looks: Looks, clock: ManualClock, new_scope: NewScope) -> None:
    looks.every = 60.0
    scopes = [new_scope() for _ in range(3000)]
    for scope in scopes:
        refresher.first_look(scope)
    clock.advance(60)
    wait_until(lambda: len(looks.made) == 6000, timeout=30)
    assert set(looks.made[3000:]) == set(scopes)
    assert len(refresher._heap) <= 3000


def test_scopes_that_nobody_uses_are_forgotten_and_the_threads_end(
    refresher: Refresher, looks: Looks, clock: ManualClock, new_scope: NewScope, forgotten: list[ScopeDay]
) -> None:
    looks.every = 60.0
    idle, used = new_scope(), new_scope()
    for scope in (idle, used):
        refresher.first_look(scope)
    for _ in range(16):
        clock.advance(60)
        used.used_at = clock.now()
        before = len(looks.made)
        wait_until(lambda before=before: len(looks.made) >= before + (1 if forgotten else 2))  # type: ignore[misc]
    assert forgotten == [idle]
    clock.advance(FORGET_SECS + 60)
    wait_until(lambda: forgotten == [idle, used])
    wait_until(lambda: refresher._threads == 0)
    again = new_scope()
    refresher.first_look(again)
    assert looks.made[-1] is again


def test_a_day_that_is_over_is_forgotten(
    refresher: Refresher, looks: Looks, clock: ManualClock, new_scope: NewScope, forgotten: list[ScopeDay]
) -> None:
    looks.every = 60.0
    clock.set(datetime(2026, 1, 15, 23, 59, 30, tzinfo=UTC))
    scope = new_scope()
    refresher.first_look(scope)
    clock.advance(60)
    wait_until(lambda: forgotten == [scope])


def test_a_clock_set_back_forgets_nobody(
    refresher: Refresher, looks: Looks, clock: ManualClock, new_scope: NewScope, forgotten: list[ScopeDay]
) -> None:
    looks.every = 60.0
    scope = new_scope()
    refresher.first_look(scope)
    clock.set(clock.now() - timedelta(hours=30))
    for times in range(2, 20):
        clock.advance(60)
        wait_until(lambda times=times: len(looks.made) >= times)  # type: ignore[misc]
    assert forgotten == []


def test_after_close_a_call_looks_by_itself(refresher: Refresher, looks: Looks, new_scope: NewScope) -> None:
    refresher.close()
    scope = new_scope()
    refresher.first_look(scope)
    assert looks.made == [scope]
    assert refresher._threads == 0
    assert refresher._heap == []


def test_closing_while_a_look_is_under_way_makes_it_the_last(
    refresher: Refresher, looks: Looks, new_scope: NewScope
) -> None:
    looks.every = 0.0
    scope = new_scope()
    gate = looks.gates[scope] = threading.Event()
    caller = threading.Thread(target=refresher.first_look, args=(scope,))
    caller.start()
    wait_until(lambda: looks.under_way == 1)
    refresher.close()
    gate.set()
    caller.join(10)
    wait_until(lambda: refresher._threads == 0)
    assert looks.made == [scope]


def test_a_process_that_can_start_no_thread_looks_in_its_calls(
    refresher: Refresher, looks: Looks, new_scope: NewScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    scope = new_scope()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        refresher.first_look(scope)
    assert looks.made == [scope]
    assert refresher._threads == 0


def test_a_forked_child_begins_with_no_threads_and_no_scopes(
    refresher: Refresher, looks: Looks, new_scope: NewScope
) -> None:
    looks.every = 0.0
    other = Refresher(looks.look, looks.clock, on_forget=lambda scope: None)
    scope = new_scope()
    looks.every = NEVER
    other.first_look(scope)
    old = other._changed
    other.after_fork_in_child()
    assert other._changed is not old
    assert other._heap == []
    assert other._threads == 0
    other.first_look(new_scope())
    assert len(looks.made) == 2
    other.close()


def test_the_systems_clock_is_not_asked_over_and_over() -> None:
    looked = threading.Event()

    def look(scope: ScopeDay) -> None:
        scope.due_at = NEVER
        scope.asked = False
        scope.tried.set()
        looked.set()

    refresher = Refresher(look, SystemClock(), on_forget=lambda scope: None)
    assert refresher._longest_wait is None
    now = datetime.now(UTC)
    scope = ScopeDay("acme", "chat", org_day(now, UTC))
    scope.used_at = now
    scope.ends_at = now + timedelta(days=1)
    refresher.first_look(scope)
    assert looked.is_set()
    refresher.close()
    wait_until(lambda: refresher._threads == 0)

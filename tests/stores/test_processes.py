"""What a fork waits for."""

import threading

import pytest
from stores.threads import in_threads

from bedrock_budget.stores import processes


def test_all_threads_of_a_process_get_the_same_value() -> None:
    value = processes.PerProcess(object)
    found: list[object] = []
    in_threads(8, lambda _: found.append(value.get()))
    assert len(set(map(id, found))) == 1


@pytest.mark.parametrize("wait_secs", [0.01, 60.0])
def test_a_fork_waits_for_what_must_be_whole_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, wait_secs: float
) -> None:
    monkeypatch.setattr(processes, "_FORK_WAIT_SECS", wait_secs)
    busy, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def make() -> None:
        with processes.WHOLE:
            busy.set()
            go_on.wait()
            order.append("made")

    def fork() -> None:
        processes._before_fork()  # as Python calls it
        order.append("forked")
        processes._after_fork()

    maker, forker = threading.Thread(target=make), threading.Thread(target=fork)
    maker.start()
    busy.wait()
    forker.start()
    if wait_secs < 1:
        forker.join()
    go_on.set()
    maker.join()
    forker.join()
    assert order == (["forked", "made"] if wait_secs < 1 else ["made", "forked"])
    with processes.WHOLE:
        pass

"""Work in several threads at once."""

import threading
from collections.abc import Callable

THREADS = 8


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run ``work`` with 0, 1, … in that many threads at once; raises what any of them raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]

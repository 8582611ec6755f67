"""Several requests under way at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], subjects: Sequence[T], threads: int) -> Iterator[R]:
    """The results of work on each subject, in order. The first error is raised, and what was not begun is left."""
    if threads < 2 or len(subjects) < 2:
        yield from map(work, subjects)
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(threads, thread_name_prefix="bedrock-budget-request") as pool:
        under_way = [pool.submit(work, subject) for subject in subjects]
        try:
            for each in under_way:
                yield each.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

"""The environment of the programs that tests start."""

import os
import sys


def environment_of_tests(*, traced: bool = True) -> dict[str, str]:
    """For programs that import what tests import.

    ``traced=False`` leaves coverage out. So must every program that forks while its threads work: coverage holds a
    lock of its own while a thread meets new code, and a child that is forked just then waits for it for ever.
    """
    inherited = {name: value for name, value in os.environ.items() if traced or not name.startswith("COV")}
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

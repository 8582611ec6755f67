"""The ends and forks of a process: who has something to finish, and who must start afresh.

`multiprocessing` children leave without running ``atexit``; they run ``multiprocessing.util``'s finalizers instead.
"""

import atexit
import logging
import os
import sys
import weakref
from time import monotonic
from typing import Protocol

log = logging.getLogger("bedrock_budget")

#: How long the end of the process waits, for all its clients together.
EXIT_SECS = 10.0


class Mortal(Protocol):
    """Something that has work to finish when the process ends, and none to inherit when it forks."""

    def at_exit(self, timeout: float) -> None: ...

    def after_fork_in_child(self) -> None: ...


# In the order of registration: what settles calls comes before what writes them.
_mortals: "weakref.WeakValueDictionary[int, Mortal]" = weakref.WeakValueDictionary()
_hooked_pid: int | None = None
_exit_deadline: float | None = None


def register(mortal: Mortal) -> None:
    """Have ``mortal`` told of the end and of forks of this process. Held weakly. Call it on first use."""
    global _hooked_pid  # noqa: PLW0603 - hooks belong to the process
    _mortals[id(mortal)] = mortal
    pid = os.getpid()
    if _hooked_pid == pid:
        return
    if _hooked_pid is None:
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork_in_child)
    _hooked_pid = pid
    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None:
        multiprocessing_util.Finalize(None, _at_exit, exitpriority=0)


def _at_exit() -> None:
    # May run twice, as a finalizer of `multiprocessing` and by atexit: the time is shared.
    global _exit_deadline  # noqa: PLW0603 - the end belongs to the process
    _exit_deadline = _exit_deadline or monotonic() + EXIT_SECS
    for mortal in list(_mortals.values()):
        try:
            mortal.at_exit(max(_exit_deadline - monotonic(), 0.0))
        except Exception:  # the others have their own work to finish
            log.exception("%r could not finish its work", mortal)


def _after_fork_in_child() -> None:
    global _exit_deadline  # noqa: PLW0603 - the child has an end of its own
    _exit_deadline = None
    for mortal in list(_mortals.values()):
        mortal.after_fork_in_child()

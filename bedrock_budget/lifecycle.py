"""The ends and forks of a process: who has something to finish, and who must start afresh.

`multiprocessing` children leave without running ``atexit``; they run ``multiprocessing.util``'s finalizers instead.
The processes of a Celery pool run neither, but Celery sends its signal ``worker_process_shutdown`` in them.
"""

import atexit
import logging
import os
import sys
import weakref
from time import monotonic
from typing import Any, Protocol

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
    """Have ``mortal`` told of the end and of forks of this process. Held weakly.

    Call it when ``mortal`` is made, for a fork may come before its first use; and on first use in each process, which
    may know ends that were not there before.
    """
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
        _finalize_by(multiprocessing_util)
        # Children import their program first, then forget the finalizers that it registered, then run these.
        multiprocessing_util.register_after_fork(multiprocessing_util, _finalize_by)
    celery_signals = sys.modules.get("celery.signals")
    if celery_signals is not None:
        celery_signals.worker_process_shutdown.connect(_at_exit, weak=False, dispatch_uid=__name__)


def _finalize_by(multiprocessing_util: Any) -> None:
    multiprocessing_util.Finalize(None, _at_exit, exitpriority=0)


def _at_exit(**_celery: object) -> None:
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

"""Where time comes from. Everything that needs the time is given a `Clock`."""

import time
from datetime import UTC, datetime
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """``now()``: an aware datetime. ``monotonic()``: seconds that only go forward."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clock. No Python code of ours runs when it is asked: every call asks it."""

    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(time.monotonic)

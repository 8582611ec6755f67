"""Which requests go wrong, and how: seeded plans for the proxy before the store and for the one before Bedrock."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from engines import proxy

#: Longer than the store's own time-out (2 s): the client gives up, and what it sent is applied after that.
PAST_TIMEOUT_SECS = 2.5

_HTML = proxy.Answer(b"<html><body>" + b"Service Unavailable " * 40 + b"</body></html>", 503, "text/html")
_TRUNCATED = proxy.Answer(b'{"Attributes":{"cost_usd_micros":{"N":"1')

#: How often, and what.
Fault = tuple[float, Callable[[random.Random], proxy.Action]]

#: Of all requests to the store: 5 % of replies lost, 5 % failing, some repeated, late or both.
STORE_FAULTS: Mapping[str, Fault] = {
    "reply lost": (0.03, lambda _: proxy.DROP_REPLY),
    "reply cut in its body": (0.02, lambda _: proxy.CUT_REPLY),
    "request lost": (0.01, lambda _: proxy.DROP_REQUEST),
    "throttled": (0.01, lambda _: proxy.answer_error("ProvisionedThroughputExceededException")),
    "500": (0.01, lambda _: proxy.answer_error("InternalServerError", status=500)),
    "503 in HTML": (0.01, lambda _: _HTML),
    "200 with truncated JSON": (0.01, lambda _: _TRUNCATED),
    "sent twice": (0.01, lambda _: proxy.DUPLICATE),
    "sent again later": (0.01, lambda chance: proxy.SentAgain(chance.uniform(0.05, 4))),
    "delayed": (0.02, lambda chance: proxy.Delayed(chance.uniform(0.01, 0.3))),
    "delayed past the time-out": (0.001, lambda _: proxy.Delayed(PAST_TIMEOUT_SECS)),
    "delayed, then its reply lost": (0.002, lambda chance: proxy.Delayed(chance.uniform(0.01, 1), proxy.DROP_REPLY)),
}

#: Of the requests to Bedrock. None of them is billed: the ledger holds what was served to the caller, and no more.
BEDROCK_FAULTS: Mapping[str, Fault] = {
    "request lost": (0.005, lambda _: proxy.DROP_REQUEST),
    "429": (0.005, lambda _: proxy.answer_json({"message": "Too many requests"}, 429)),
    "503 in HTML": (0.005, lambda _: _HTML),
    "delayed": (0.02, lambda chance: proxy.Delayed(chance.uniform(0.01, 0.3))),
}


class Plan:
    """A rule for a proxy: the n-th request gets what the seed says. ``done`` counts by name; thread-safe."""

    def __init__(self, seed: object, faults: Mapping[str, Fault]) -> None:
        self.done: Counter[str] = Counter()
        self._chance = random.Random(repr(seed))
        self._faults = faults
        self._lock = threading.Lock()

    def __call__(self, request: proxy.Request) -> proxy.Action:
        with self._lock:
            drawn = self._chance.random()
            for name, (rate, make) in self._faults.items():
                drawn -= rate
                if drawn < 0:
                    self.done[name] += 1
                    return make(self._chance)
            self.done["passed on"] += 1
            return proxy.FORWARD

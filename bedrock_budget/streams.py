"""Event streams that hand every event on unchanged and unbuffered, and settle their call once.

A call settles on the stream's usage event, just before that event is handed over; else at the stream's end or error.
A stream that the caller gives up, by `close` or by dropping it, is drained in the background to learn what it cost,
else settled by an estimate from what was seen; so is one that is open when the process ends. Breaking off the
iteration alone settles nothing: the caller may go on with a second loop, as with botocore's own `EventStream`. An open
stream belongs to the process that opened it.
"""

import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any, cast

from .call import Call
from .core.estimates import text_bytes
from .core.outcomes import GUARDRAIL_INTERVENED, Outcome, guardrail_outcome, intervened
from .core.served import served_of
from .core.usage import INVOCATION_METRICS, NOTHING, Usage, counts_from_body, counts_from_metrics, from_token_usage
from .draining import Drainer
from .outcomes import stream_outcome_of

log = logging.getLogger("bedrock_budget")

_METRICS_MARK = INVOCATION_METRICS.encode()
_FOLD_EVENTS = 4_096


class MeteredStream:
    """What the two kinds of stream share. Everything else of botocore's ``EventStream`` is reached through it."""

    def __init__(self, stream: Any, call: Call, drainer: Drainer | None) -> None:
        self._stream = stream
        self._call = call
        self._drainer = drainer
        self._given_up = False
        self._ending: Outcome = "stream_abandoned"  # what it is settled as, unless it says its usage
        self._once = threading.Lock()  # taken by who settles, and never given back
        self._pid = os.getpid()
        call.meter.opened(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(()) if self._given_up else self._events(handing_over=True)

    def _events(self, *, handing_over: bool) -> Iterator[Any]:
        """All events; while they are handed over, up to where the caller gives the stream up."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the stream up. Nothing more is handed over; what it cost is learnt in the background.

        Call it from the thread that iterates; else the call may be settled by an estimate.
        """
        if not self._given_up:
            self._given_up = True
            settled = self._once.locked() or self._pid != os.getpid()
            if settled or self._drainer is None or not self._drainer.take(self):
                self.close_now()

    def close_now(self) -> None:
        """Close the underlying stream; settle by what was seen, unless the call has settled."""
        self._given_up = True
        try:
            self.abandon()  # first: closing waits for a read that hangs
        finally:
            self._stream.close()

    def drain(self) -> None:
        """Read a given-up stream to its end, and close it."""
        try:
            for _ in self._events(handing_over=False):
                pass
        except Exception as exc:  # it broke off, and has settled by what was seen
            log.info("a stream that was given up could not be read to its end: %s", exc)
        finally:
            self.close_now()

    def _broke(self, exc: BaseException) -> None:
        if not self._given_up:
            self._ending = stream_outcome_of(exc)
        self.close_now()  # botocore would keep the connection
        self._call.mark(exc)

    def abandon(self, ending: Outcome | None = None) -> None:
        """Settle by what was seen, unless the call has settled."""
        if self._owned():
            self._ending = ending or self._ending
            self._settle_unfinished()

    def _settle(self, usage: Usage, guarded: bool) -> None:
        """Settle by the usage that the stream said; ``guarded``: a guardrail stepped in."""
        if guarded:
            self._call.settle(usage, guardrail_outcome(usage))
        else:
            self._call.settle(usage, "drained" if self._given_up else None)

    def __del__(self) -> None:
        # A finalizer may run at any point, even inside the meter's own lock: it only leaves a note.
        once = self.__dict__.get("_once")
        if once is not None and self._pid == os.getpid() and not once.locked():
            self._call.meter.defer(self.close)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_stream" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _settle_unfinished(self) -> None:
        raise NotImplementedError

    def _owned(self) -> bool:
        """Take the right to settle; False if the call has settled or belongs to another process."""
        return self._once.acquire(blocking=False) and self._pid == os.getpid()


class ConverseEvents(MeteredStream):
    """The ``stream`` of ``converse_stream``: usage is in the ``metadata`` event."""

    def __init__(self, stream: Any, call: Call, drainer: Drainer | None) -> None:
        super().__init__(stream, call, drainer)
        self._answer_bytes = 0
        self._intervened = False
        self._deltas: list[Any] = []  # not measured yet: it takes several microseconds each

    def _events(self, *, handing_over: bool) -> Iterator[Any]:
        deltas = self._deltas
        try:
            for event in self._stream:
                if "contentBlockDelta" in event:
                    delta = event["contentBlockDelta"].get("delta", {})
                    text = delta.get("text")
                    if text is not None:
                        self._answer_bytes += len(text) if text.isascii() else text_bytes(text)
                    else:
                        deltas.append(delta)
                        if len(deltas) >= _FOLD_EVENTS:
                            self._fold()
                elif "metadata" in event:
                    metadata = event["metadata"]
                    usage = from_token_usage(metadata.get("usage"))
                    if usage is not None and self._owned():
                        deltas.clear()
                        if "trace" in metadata:
                            self._call.served_by(metadata["trace"])
                        self._call.served = served_of(metadata)
                        self._settle(usage, self._intervened)
                elif "messageStop" in event:
                    self._intervened = event["messageStop"].get("stopReason") == GUARDRAIL_INTERVENED
                yield event
                if handing_over and self._given_up:
                    return
        except GeneratorExit:
            raise
        except BaseException as exc:
            self._broke(exc)
            raise
        self.abandon(None if self._given_up else "no_usage")

    def _fold(self) -> None:
        self._answer_bytes += sum(map(text_bytes, self._deltas))
        self._deltas.clear()

    def _settle_unfinished(self) -> None:
        self._fold()
        self._call.settle_unknown(self._ending, answer_bytes=self._answer_bytes)


class InvokeEvents(MeteredStream):
    """The ``body`` of ``invoke_model_with_response_stream``: usage is in the last chunk's invocation metrics.

    Only that chunk is parsed on the way; the others are kept as they are, in case it never comes.
    """

    def __init__(self, stream: Any, call: Call, drainer: Drainer | None) -> None:
        super().__init__(stream, call, drainer)
        self._chunks: list[bytes] = []
        self._seen = NOTHING
        self._blocked = False  # by a guardrail
        self._answer_bytes = 0

    def _events(self, *, handing_over: bool) -> Iterator[Any]:
        chunks = self._chunks
        try:
            for event in self._stream:
                chunk = event.get("chunk")
                if chunk is not None:
                    data = chunk.get("bytes", b"")
                    chunks.append(data)
                    if _METRICS_MARK in data:
                        self._on_metrics(data)
                    elif len(chunks) >= _FOLD_EVENTS:
                        self._fold()
                yield event
                if handing_over and self._given_up:
                    return
        except GeneratorExit:
            raise
        except BaseException as exc:
            self._broke(exc)
            raise
        if self._owned():
            self._settle_ended()

    def _on_metrics(self, data: bytes) -> None:
        body = _parsed(data)
        counts = counts_from_metrics(body.get(INVOCATION_METRICS))
        if counts == NOTHING:  # the model only wrote of them
            return
        counts = counts.over(counts_from_body(body))
        if counts.input_tokens is None or counts.output_tokens is None:  # the text is needed as well
            self._seen = counts.over(self._seen)
            return
        if counts.cache_write_tokens:  # how long they live is only in the first chunk
            first = self._seen if self._seen is not NOTHING else counts_from_body(_parsed(self._chunks[0]))
            counts = counts._replace(cache_write_1h_tokens=first.cache_write_1h_tokens)
        usage = counts.usage()
        if usage is not None and self._owned():
            self._chunks.clear()
            self._settle(usage, intervened(body))

    def _fold(self) -> None:
        """Count what the kept chunks say, and let them go."""
        for data in self._chunks:
            body = _parsed(data)
            self._seen = counts_from_body(body).over(self._seen)
            self._blocked = self._blocked or intervened(body)
            self._answer_bytes += text_bytes(body)
        self._chunks.clear()

    def _settle_ended(self) -> None:
        """The stream is complete but had no metrics: its chunks' own counts are the best estimate, if all are there."""
        self._fold()
        if not self._given_up:
            self._ending = "no_usage"
        usage = self._seen.usage()
        if self._blocked:
            # Recorded: a stream whose input was blocked counts tokens, though no model ran, and has no metrics.
            self._call.settle(Usage(), "guardrail_input")
        elif usage is not None and None not in (self._seen.input_tokens, self._seen.output_tokens):
            self._call.settle(usage, self._ending)
        else:
            self._settle_unfinished()

    def _settle_unfinished(self) -> None:
        self._fold()
        self._call.settle_unknown(self._ending, seen=self._seen, answer_bytes=self._answer_bytes)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        body: Any = json.loads(data)
    except ValueError:
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}

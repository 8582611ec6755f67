"""From an HTTP request to Bedrock's reply: which operation, what it is billed for, what goes wrong."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote
from uuid import uuid4

from ..core.usage import CACHE_READ_HEADER, CACHE_WRITE_HEADER, INPUT_HEADER, OUTPUT_HEADER, Usage
from .answer import Answer, Family, Frames, Json
from .control_plane import described, lookup_of
from .converse_replies import converse_body, converse_frames
from .event_stream import CONTENT_TYPE as EVENT_STREAM
from .event_stream import exception_frame
from .exchange import RawReply, Request, counted_body
from .faults import BrokenStream, Drop, Fault, Faults, Refusal
from .http_connection import HttpReply, HttpRequest, reply_head, transfer_chunk
from .ledger import Ledger, LedgerEntry
from .replies import chunk_frames, family_of
from .settings import Settings

OPERATIONS = {
    "converse": "Converse",
    "converse-stream": "ConverseStream",
    "invoke": "InvokeModel",
    "invoke-with-response-stream": "InvokeModelWithResponseStream",
    "count-tokens": "CountTokens",
}
_JSON = "application/json"
_REQUEST_ID = "x-amzn-requestid"
_ERROR_NAMESPACE = ":http://internal.amazon.com/coral/com.amazon.bedrock/"
# Of InvokeModel, whose body is the model's own: asked for and answered in headers.
_ECHOED_HEADERS = ("x-amzn-bedrock-service-tier", "x-amzn-bedrock-performanceconfig-latency")
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class ServiceError(Exception):
    """A refusal in Bedrock's form."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(status, code, message)


@lru_cache(maxsize=256)
def _pieces(text: str, count: int) -> tuple[str, ...]:
    """``text`` cut into ``count`` pieces of about one length; some are empty where it is short."""
    size = len(text)
    return tuple(text[size * i // count : size * (i + 1) // count] for i in range(count))


def _reply(
    status: int,
    headers: Mapping[str, str],
    content: bytes | Json,
    delay_secs: float = 0.0,
    fault: Fault | None = None,
) -> HttpReply:
    """A whole reply: bytes as they are, or a JSON document."""
    if isinstance(content, bytes):
        body = content
    else:
        body = _to_json(content).encode()
        headers = {"content-type": _JSON, **headers}
    data = reply_head(status, {**headers, "content-length": str(len(body))}) + body
    if isinstance(fault, Drop):
        sent = data[: len(data) - len(body) // 2 - 1] if fault.when == "body" else b""
        return HttpReply((sent,), delay_secs, close=True)
    return HttpReply((data,), delay_secs)


def _stream_reply(
    headers: Mapping[str, str], frames: Frames, delay_secs: float, gap_secs: float, fault: Fault | None
) -> HttpReply:
    """Events as HTTP chunks. The head travels with the first event, the end of the body with the last."""
    events = [*frames.opening, *frames.deltas, *frames.closing]
    whole = True
    if isinstance(fault, BrokenStream):
        events = [*frames.opening, *frames.deltas[: fault.after_events]]
        whole = fault.error is not None
        if fault.error is not None:
            events.append(exception_frame(fault.error, fault.message))
    parts = [transfer_chunk(event) for event in events]
    if isinstance(fault, Drop):
        if fault.when == "after":
            return HttpReply((), delay_secs, close=True)
        parts = parts[: len(parts) // 2]
        whole = False
    head = reply_head(200, {**headers, "content-type": EVENT_STREAM, "transfer-encoding": "chunked"})
    parts = [head + parts[0], *parts[1:]] if parts else [head]
    if whole:
        parts[-1] += transfer_chunk(b"")
    return HttpReply(parts, delay_secs, gap_secs, close=not whole)


class Service:
    """Answers requests. Runs in one thread; settings, faults and ledger are shared with others."""

    def __init__(self, settings: Settings, ledger: Ledger, faults: Faults) -> None:
        self._settings = settings
        self._ledger = ledger
        self._faults = faults

    def answer(self, http: HttpRequest) -> HttpReply:
        """The reply to any request. What is billed is in the ledger when this returns."""
        path = http.target.partition("?")[0]
        if path.startswith("/_local/"):
            return self._local(http.method, path, http.body)
        if lookup := lookup_of(http.method, path, http.headers):
            return self._describe(lookup)
        model, _, action = path.removeprefix("/model/").rpartition("/")
        operation = OPERATIONS.get(action)
        if operation is None or not model or http.method != "POST" or not path.startswith("/model/"):
            return _refuse(404, "UnknownOperationException", f"no operation {http.method} {path}", str(uuid4()))
        try:
            body: Any = json.loads(http.body)
        except ValueError:  # bad UTF-8 included
            body = None
        return self._call(Request(operation, unquote(model), body, http.headers))

    def _describe(self, lookup: Request) -> HttpReply:
        """The reply to a lookup of the control plane, which nobody is billed for."""
        settings = self._settings
        request_id = str(uuid4())
        fault = (settings.on_request(lookup) if settings.on_request else None) or self._faults.take(lookup)
        if isinstance(fault, Refusal):
            return _refuse(fault.status, fault.code, fault.message, request_id)
        if isinstance(fault, Drop):
            return HttpReply((), close=True)
        if isinstance(fault, RawReply):
            return _reply(fault.status, fault.headers, fault.body, settings.latency_secs)
        known = settings.prompt_routers if lookup.operation == "GetPromptRouter" else settings.inference_profiles
        models = known.get(lookup.model_id)
        if models is None:
            return _refuse(404, "ResourceNotFoundException", f"LocalBedrock has no {lookup.model_id}", request_id)
        return _reply(200, {_REQUEST_ID: request_id}, described(lookup, models), settings.latency_secs)

    def _call(self, request: Request) -> HttpReply:
        started_at = time.time()
        request_id = str(uuid4())

        def enter(status: int, usage: Usage = Usage(), complete: bool = True, name: str = request_id) -> None:  # noqa: B008 - immutable
            self._ledger.record(
                LedgerEntry(name, request.operation, request.model_id, usage, started_at, complete, status)
            )

        hook = self._settings.on_request
        try:
            fault = (hook(request) if hook else None) or self._faults.take(request)
            if isinstance(fault, Refusal):
                raise ServiceError(fault.status, fault.code, fault.message)
            if isinstance(fault, Drop) and fault.when == "before":
                return HttpReply((), close=True)
            if isinstance(fault, RawReply):
                headers = {name.lower(): value for name, value in fault.headers.items()}
                # The body is served whole and decoded: lengths and codings of the recording do not apply.
                for name in ("content-length", "transfer-encoding", "connection"):
                    headers.pop(name, None)
                name = headers.setdefault(_REQUEST_ID, request_id)
                enter(fault.status, fault.usage or Usage(), name=name)
                return _reply(fault.status, headers, fault.body, self._settings.latency_secs)
            if not isinstance(request.body, dict):
                raise ServiceError(400, "ValidationException", "the request body is not a JSON object")
            reply, usage = self._process(request, request_id, fault)
        except ServiceError as error:
            enter(error.refusal.status)
            return _refuse(error.refusal.status, error.refusal.code, error.refusal.message, request_id)
        except Exception as error:
            # A callable of the test's own, most likely. A 4xx, which SDKs do not retry, shows it at once.
            enter(400)
            return _refuse(400, "ValidationException", f"LocalBedrock could not answer: {error!r}", request_id)
        enter(200, usage, complete=not isinstance(fault, BrokenStream))
        return reply

    def _process(self, request: Request, request_id: str, fault: Fault | None) -> tuple[HttpReply, Usage]:
        settings = self._settings
        delay, gap = settings.latency_secs, settings.event_latency_secs
        headers = {_REQUEST_ID: request_id}
        if request.operation == "CountTokens":
            asked = Request(request.operation, request.model_id, counted_body(request.body), request.headers)
            if not isinstance(asked.body, dict):
                raise ServiceError(400, "ValidationException", "input needs a converse or an invokeModel request")
            tokens = sum(settings.usage_of(asked)._replace(output_tokens=0))
            return _reply(200, headers, {"inputTokens": tokens}, delay, fault), Usage()
        usage = settings.usage_of(request)
        streams = request.operation.endswith("Stream")
        family: Family | None = None
        if request.operation.startswith("Invoke"):
            family = family_of(request)
            if not family.has_tokens:
                usage = Usage()
            elif not family.has_output:
                usage = usage._replace(output_tokens=0)
        text = settings.reply_text()
        count = settings.stream_events if streams else 0
        seconds = delay + count * gap
        answer = Answer(request, request_id, text, _pieces(text, count), usage, round(seconds * 1000))
        if request.model_id in settings.prompt_routers:
            answer = replace(answer, invoked_model_id=settings.prompt_routers[request.model_id][0])
        if family is None:
            if streams:
                return _stream_reply(headers, converse_frames(answer), delay, gap, fault), usage
            return _reply(200, headers, converse_body(answer), delay, fault), usage
        headers |= {name: request.headers[name] for name in _ECHOED_HEADERS if name in request.headers}
        if streams:
            if family.stream is None:
                raise ServiceError(400, "ValidationException", "The model is unsupported for streaming.")
            headers["x-amzn-bedrock-content-type"] = _JSON
            return _stream_reply(headers, chunk_frames(family.stream(answer)), delay, gap, fault), usage
        headers |= _token_headers(family, answer)
        return _reply(200, headers, family.body(answer), delay, fault), usage

    def _local(self, method: str, path: str, body: bytes) -> HttpReply:
        """The server's own pages, for other processes."""
        match method, path:
            case "GET", "/_local/health":
                return _reply(200, {}, {"status": "ok"})
            case "GET", "/_local/ledger":
                return _reply(200, {}, {"entries": [entry.as_dict() for entry in self._ledger.entries()]})
            case "POST", "/_local/settings":
                try:
                    values: object = json.loads(body)
                    if not isinstance(values, dict):
                        raise ValueError("settings are a JSON object")
                    self._settings.update(cast(dict[str, object], values))
                except ValueError as error:
                    return _reply(400, {}, {"message": str(error)})
                return _reply(200, {}, {"status": "ok"})
            case _:
                return _reply(404, {}, {"message": f"no page {method} {path}"})


def _refuse(status: int, code: str, message: str, request_id: str) -> HttpReply:
    headers = {_REQUEST_ID: request_id, "x-amzn-errortype": code + _ERROR_NAMESPACE}
    return _reply(status, headers, {"message": message})


def _token_headers(family: Family, answer: Answer) -> dict[str, str]:
    headers = {"x-amzn-bedrock-invocation-latency": str(answer.latency_ms)}
    if not family.has_tokens:
        return headers
    usage = answer.usage
    headers[INPUT_HEADER] = str(usage.input_tokens)
    if family.has_output:
        headers[OUTPUT_HEADER] = str(usage.output_tokens)
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    if family.caches or usage.cache_read_tokens:
        headers[CACHE_READ_HEADER] = str(usage.cache_read_tokens)
    if family.caches or written:
        headers[CACHE_WRITE_HEADER] = str(written)
    return headers

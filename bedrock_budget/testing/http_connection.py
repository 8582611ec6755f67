"""HTTP/1.1 on asyncio transports, as much of it as an SDK needs: keep-alive, pipelining, content lengths."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024

_REASONS = {status.value: status.phrase for status in HTTPStatus}


class HttpRequest(NamedTuple):
    """One request. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpReply:
    """Bytes to send: after ``delay_secs``, part by part with ``gap_secs`` between them; then perhaps ``close``."""

    parts: Sequence[bytes]
    delay_secs: float = 0.0
    gap_secs: float = 0.0
    close: bool = False


class BadRequest(Exception):
    """The bytes received are not a request this server can read. ``status`` is the HTTP status to say so with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def reply_head(status: int, headers: Mapping[str, str]) -> bytes:
    """A reply's status line and headers, with the empty line that ends them."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def transfer_chunk(data: bytes) -> bytes:
    """One chunk of a body sent with ``transfer-encoding: chunked``; empty data ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class RequestParser:
    """Turns received bytes into requests."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: HttpRequest | None = None
        self._length = 0

    def feed(self, data: bytes) -> None:
        """Take bytes as they came off the wire."""
        self._buffer += data

    def next_request(self) -> HttpRequest | None:
        """The next whole request; None until more bytes come. Raises BadRequest."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise BadRequest(431, "request header too large")
                return None
            self._head = _parse_head(self._buffer[:end].decode("latin-1"))
            self._length = _body_length(self._head.headers)
            del self._buffer[: end + 4]
        if len(self._buffer) < self._length:
            return None
        request = self._head._replace(body=bytes(self._buffer[: self._length]))
        del self._buffer[: self._length]
        self._head = None
        return request

    def body_awaited(self) -> bool:
        """Whether the client waits for a ``100 Continue`` before it sends the body."""
        return self._head is not None and not self._buffer and "expect" in self._head.headers


def _parse_head(text: str) -> HttpRequest:
    first, *lines = text.lstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(400, f"not an HTTP/1 request line: {first[:80]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(400, f"not a header: {line[:80]!r}")
        headers[name.lower()] = value.strip()
    if words[2] == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return HttpRequest(words[0], words[1], headers, b"")


def _body_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(411, "send a content-length")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(400, f"not a content-length: {text[:80]!r}")
    length = int(text)
    if length > MAX_BODY_BYTES:
        raise BadRequest(413, "request body too large")
    return length


class HttpConnection(asyncio.Protocol):
    """One client connection: answers its requests in order, one at a time. No task and no thread per request."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[HttpRequest], HttpReply],
        connections: "set[HttpConnection]",
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._connections = connections
        self._parser = RequestParser()
        self._transport: asyncio.Transport | None = None
        self._reply: HttpReply | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio. What the connection still had to send dies with it."""
        self._transport = None  # closed already: asyncio would report a second end
        self.abort()
        self._connections.discard(self)

    def abort(self) -> None:
        """Close at once, sending nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._parser.feed(data)
        self._serve()

    def _serve(self) -> None:
        """Answer what has come in, until a reply has to wait or no whole request is left."""
        while self._reply is None and self._transport is not None and not self._transport.is_closing():
            try:
                request = self._parser.next_request()
            except BadRequest as error:
                body = str(error).encode()
                head = reply_head(error.status, {"content-length": str(len(body)), "connection": "close"})
                self._transport.write(head + body)
                self._transport.close()
                return
            if request is None:
                if self._parser.body_awaited():
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._begin(request)

    def _begin(self, request: HttpRequest) -> None:
        reply = self._answer(request)
        if request.headers.get("connection", "").lower() == "close":
            reply = HttpReply(reply.parts, reply.delay_secs, reply.gap_secs, close=True)
        self._reply = reply
        if reply.delay_secs > 0:
            self._timer = self._loop.call_later(reply.delay_secs, self._resume, reply, 0)
        else:
            self._send(reply, 0)

    def _resume(self, reply: HttpReply, index: int) -> None:
        self._timer = None
        self._send(reply, index)
        self._serve()

    def _send(self, reply: HttpReply, index: int) -> None:
        assert self._transport is not None
        if reply.gap_secs > 0 and index + 1 < len(reply.parts):
            self._transport.write(reply.parts[index])
            self._timer = self._loop.call_later(reply.gap_secs, self._resume, reply, index + 1)
            return
        self._transport.write(b"".join(reply.parts[index:]))
        self._reply = None
        if reply.close:
            self._transport.close()

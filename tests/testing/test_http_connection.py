"""HTTP/1.1 as such, over plain sockets."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import LocalBedrock, Request
from bedrock_budget.testing.http_connection import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    BadRequest,
    RequestParser,
    reply_head,
    transfer_chunk,
)

BODY = json.dumps({"messages": [{"role": "user", "content": [{"text": "hello"}]}]}).encode()
CONVERSE = b"POST /model/m%3A0/converse HTTP/1.1\r\nHost: x\r\nContent-Length: " + str(len(BODY)).encode() + b"\r\n"
CALL = CONVERSE + b"\r\n" + BODY


@pytest.fixture
def server() -> Iterator[LocalBedrock]:
    with LocalBedrock() as server:
        yield server


def exchange(server: LocalBedrock, *sent: bytes) -> bytes:
    """Send, then read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for data in sent:
            connection.sendall(data)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def call_json(server: LocalBedrock, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, body=None if body is None else json.dumps(body))
    reply = connection.getresponse()
    content = json.loads(reply.read())
    connection.close()
    return reply.status, content


@pytest.mark.parametrize("latency_secs", [0.0, 0.001])
def test_pipelined_requests_are_answered_in_order(server: LocalBedrock, latency_secs: float) -> None:
    server.latency_secs = latency_secs
    count = 0

    def usage(_request: object) -> Usage:
        nonlocal count
        count += 1
        return Usage(count, 1)

    server.usage = usage
    last = CONVERSE + b"Connection: close\r\n\r\n" + BODY
    received = exchange(server, CALL * 49 + last)
    tokens = [int(part.split(b",")[0]) for part in received.split(b'"inputTokens":')[1:]]
    assert tokens == list(range(1, 51))
    assert received.count(b"HTTP/1.1 200 OK") == 50


def test_a_client_may_wait_for_100_continue(server: LocalBedrock) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(CONVERSE + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY[:10])
        connection.sendall(BODY[10:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_http_1_0_connections_are_closed(server: LocalBedrock) -> None:
    assert exchange(server, b"GET /_local/health HTTP/1.0\r\n\r\n").endswith(b'{"status":"ok"}')


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / SPDY/3\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nnocolon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (b"GET / HTTP/1.1\r\na: ".ljust(MAX_HEAD_BYTES + 1, b"b"), 431),
    ],
)
def test_unreadable_requests_are_refused(server: LocalBedrock, sent: bytes, status: int) -> None:
    assert exchange(server, sent).startswith(b"HTTP/1.1 %d " % status)


def test_the_parser_takes_any_slicing() -> None:
    parser = RequestParser()
    seen = []
    for i in range(0, len(CALL) * 2, 7):
        parser.feed((CALL * 2)[i : i + 7])
        while (request := parser.next_request()) is not None:
            seen.append(request)
    assert [request.body for request in seen] == [BODY, BODY]
    assert seen[0].target == "/model/m%3A0/converse"
    parser.feed(b"x\r\n\r\n")
    with pytest.raises(BadRequest):
        parser.next_request()


def test_heads_and_chunks() -> None:
    assert reply_head(299, {"a": "b"}) == b"HTTP/1.1 299 Unknown\r\na: b\r\n\r\n"
    assert transfer_chunk(b"0123456789abcdef") + transfer_chunk(b"") == b"10\r\n0123456789abcdef\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/model/converse"),
        ("POST", "/model/m/unknown"),
        ("GET", "/model/m/converse"),
        ("POST", "/other/m/converse"),
        ("DELETE", "/_local/ledger"),
    ],
)
def test_unknown_pages(server: LocalBedrock, method: str, path: str) -> None:
    status, content = call_json(server, method, path)
    assert (status, path in content["message"]) == (404, True)


def test_an_arn_may_come_unencoded(server: LocalBedrock) -> None:
    status, _ = call_json(server, "POST", "/model/arn:aws:bedrock:us-east-1::foundation-model/a.b/converse?x=1", {})
    assert status == 200
    assert server.ledger.entries()[0].model_id == "arn:aws:bedrock:us-east-1::foundation-model/a.b"


def test_health_and_ledger_over_http(server: LocalBedrock) -> None:
    assert call_json(server, "GET", "/_local/health") == (200, {"status": "ok"})
    call_json(server, "POST", "/model/m/converse", {"messages": []})
    _, content = call_json(server, "GET", "/_local/ledger")
    assert content == {"entries": [entry.as_dict() for entry in server.ledger.entries()]}


def test_settings_over_http(server: LocalBedrock) -> None:
    settings = {
        "latency_secs": 0.001,
        "event_latency_secs": 0,
        "stream_events": 3,
        "output_tokens": 9,
        "text": "Hi",
        "usage": {"input_tokens": 8, "cache_write_1h_tokens": 2},
    }
    assert call_json(server, "POST", "/_local/settings", settings)[0] == 200
    assert (server.latency_secs, server.stream_events, server.reply_text()) == (0.001, 3, "Hi")
    assert server.usage == Usage(8, cache_write_1h_tokens=2)
    assert call_json(server, "POST", "/_local/settings", {"usage": None, "text": None})[0] == 200
    assert server.usage_of(Request("Converse", "m", {}, {})) == Usage(1, 9)
    assert len(server.reply_text().split()) == 9


@pytest.mark.parametrize(
    "bad",
    [
        [],
        {"latency_secs": -1},
        {"latency_secs": True},
        {"latency_secs": float("inf")},
        {"stream_events": 1.5},
        {"text": 1},
        {"usage": 1},
        {"usage": {"input_tokens": -1}},
        {"usage": {"inputs": 1}},
        {"on_request": None},
    ],
)
def test_bad_settings_change_nothing(server: LocalBedrock, bad: Any) -> None:
    settings = {"output_tokens": 5, **bad} if isinstance(bad, dict) else bad
    status, content = call_json(server, "POST", "/_local/settings", settings)
    assert status == 400
    assert content["message"]
    assert server.output_tokens == 20


@pytest.fixture
def many_files() -> Iterator[None]:
    """Leave to open both ends of a thousand connections."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_calls_wait_at_once(server: LocalBedrock) -> None:
    server.latency_secs = 0.2

    async def call() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(CONVERSE + b"Connection: close\r\n\r\n" + BODY)
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
        return reply

    async def calls() -> list[bytes]:
        return await asyncio.gather(*(call() for _ in range(1000)))

    replies = asyncio.run(calls())
    assert all(reply.startswith(b"HTTP/1.1 200 OK") for reply in replies)
    assert server.ledger.usage_by_model() == {"m:0": Usage(1000, 20_000)}


def test_stop_ends_calls_in_flight() -> None:
    arrived = threading.Event()
    server = LocalBedrock(latency_secs=3600, on_request=lambda _: arrived.set()).start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(CALL)
        assert arrived.wait(10)
        server.stop()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1000) == b""

"""``/healthz``: 200 or 503, on loopback alone."""

import http.client
import json
import threading
from typing import Any

import pytest

from bedrock_budget.health import HealthServer


def ask(port: int, path: str = "/healthz", method: str = "GET") -> tuple[int, str | None, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()
    finally:
        connection.close()


def test_it_says_ok_or_service_unavailable_and_why() -> None:
    healthy = True

    def health() -> tuple[bool, dict[str, Any]]:
        return healthy, {"age_secs": 1.5}

    with HealthServer(0, health) as server:
        assert server.port
        status, kind, body = ask(server.port)
        assert (status, kind, json.loads(body)) == (200, "application/json", {"age_secs": 1.5})
        healthy = False
        assert ask(server.port)[0] == 503
        assert ask(server.port, "/")[0] == 404
        assert ask(server.port, method="POST")[0] == 501


def test_it_listens_on_loopback_alone() -> None:
    with HealthServer(0, lambda: (True, {})) as server:
        assert server._server is not None
        assert server._server.server_address[0] == "127.0.0.1"


def test_without_a_port_there_is_no_server() -> None:
    before = threading.active_count()
    with HealthServer(None, lambda: (True, {})) as server:
        assert server.port is None
        assert threading.active_count() == before


def test_it_gives_its_port_back() -> None:
    with HealthServer(0, lambda: (True, {})) as server:
        port = server.port
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    with HealthServer(port, lambda: (True, {})) as again:
        assert ask(port)[0] == 200
        assert again.port == port


def test_a_port_that_is_taken_is_an_error() -> None:
    with HealthServer(0, lambda: (True, {})) as server, pytest.raises(OSError, match="in use"):
        HealthServer(server.port, lambda: (True, {}))

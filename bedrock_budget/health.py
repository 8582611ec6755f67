"""``/healthz`` on loopback, for whatever restarts the aggregator."""

import json
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

log = logging.getLogger("bedrock_budget.aggregator")

Health = Callable[[], tuple[bool, dict[str, Any]]]


class HealthServer:
    """Answers GET /healthz with 200 or 503 and JSON on 127.0.0.1; a context manager. ``port`` None: no server."""

    def __init__(self, port: int | None, health: Health) -> None:
        self._server = None if port is None else ThreadingHTTPServer(("127.0.0.1", port), _answerer(health))

    @property
    def port(self) -> int | None:
        """The port that is listened on."""
        return None if self._server is None else self._server.server_address[1]

    def __enter__(self) -> Self:
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, name="bedrock-budget-health", daemon=True).start()
            log.info("health on http://127.0.0.1:%d/healthz", self.port)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _answerer(health: Health) -> type[BaseHTTPRequestHandler]:
    class Answerer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/healthz":
                self.send_error(404)
                return
            healthy, figures = health()
            body = json.dumps(figures).encode()
            self.send_response(200 if healthy else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Answerer

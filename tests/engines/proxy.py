"""A loopback HTTP proxy that loses replies or answers itself, as a rule decides per request."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """What came in. ``operation``: DynamoDB's (``UpdateItem``)."""

    operation: str
    body: bytes

    @property
    def parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = json.loads(self.body)
        return parameters


@dataclass(frozen=True)
class Answer:
    """A reply of the proxy's own."""

    body: bytes
    status: int = 200
    content_type: str = "application/x-amz-json-1.0"


#: Pass request and reply on.
FORWARD = "forward"
#: Pass the request on, wait until it is applied, and close the connection without a reply.
DROP_REPLY = "drop reply"
#: Close the connection; nothing is passed on.
DROP_REQUEST = "drop request"

Rule = Callable[[Request], "Answer | str"]


def answer_json(value: object, status: int = 200) -> Answer:
    """A reply in JSON."""
    return Answer(json.dumps(value).encode(), status)


def answer_error(code: str, message: str = "injected", status: int = 400) -> Answer:
    """An error as DynamoDB puts it."""
    return answer_json({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}, status)


@dataclass
class Proxy:
    """A running proxy. ``rule`` may be changed at any time; ``requests`` are those that came in."""

    url: str
    rule: Rule
    requests: list[Request] = field(default_factory=list)

    def count(self, operation: str) -> int:
        """How many requests of an operation came in."""
        return sum(request.operation == operation for request in self.requests)


@contextmanager
def running(upstream: str = "http://127.0.0.1:1", rule: Rule = lambda request: FORWARD) -> Iterator[Proxy]:
    """A proxy before an HTTP server."""
    target = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.upstream = http.client.HTTPConnection(str(target.hostname), target.port or 80, timeout=10)

        def finish(self) -> None:
            self.upstream.close()
            super().finish()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.headers.get("X-Amz-Target", ".").rpartition(".")[2], body)
            proxy.requests.append(request)
            action = proxy.rule(request)
            if action == DROP_REQUEST:
                self.close_connection = True
                return
            if not isinstance(action, Answer):
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                self.upstream.request("POST", self.path, body, headers)
                response = self.upstream.getresponse()
                payload = response.read()
                if action == DROP_REPLY:
                    self.close_connection = True
                    return
                action = Answer(payload, response.status, response.headers.get("Content-Type", ""))
            self.send_response(action.status)
            self.send_header("Content-Type", action.content_type)
            self.send_header("Content-Length", str(len(action.body)))
            self.end_headers()
            self.wfile.write(action.body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}", rule)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

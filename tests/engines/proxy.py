"""A loopback HTTP proxy that delays, loses, cuts or repeats, or answers itself, as a rule decides per request."""

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """What came in. ``operation``: DynamoDB's (``UpdateItem``), or the last part of Bedrock's path (``converse``)."""

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


@dataclass(frozen=True)
class Delayed:
    """Wait before anything else, even if the client has given up by then."""

    secs: float
    action: "Answer | str" = "forward"


@dataclass(frozen=True)
class SentAgain:
    """Pass request and reply on, and the same request once more after ``secs``; its second reply reaches nobody."""

    secs: float


#: Pass request and reply on.
FORWARD = "forward"
#: Pass the request on, wait until it is applied, and close the connection without a reply.
DROP_REPLY = "drop reply"
#: Close the connection; nothing is passed on.
DROP_REQUEST = "drop request"
#: Pass the request on and half of the reply's body, then close the connection.
CUT_REPLY = "cut reply"
#: Pass the request on twice, at once; the second reply is the answer.
DUPLICATE = "duplicate"

Action = Answer | Delayed | SentAgain | str
Rule = Callable[[Request], Action]

# Of one connection, or set by whoever answers.
_NOT_PASSED_ON = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"))


def answer_json(value: object, status: int = 200) -> Answer:
    """A reply in JSON."""
    return Answer(json.dumps(value).encode(), status)


def answer_error(code: str, message: str = "injected", status: int = 400) -> Answer:
    """An error as DynamoDB puts it."""
    return answer_json({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}, status)


@dataclass
class Proxy:
    """A running proxy. ``rule`` may be changed at any time; ``requests`` are those that came in, if they are kept."""

    url: str
    rule: Rule
    requests: list[Request] = field(default_factory=list)
    _underway: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def count(self, operation: str) -> int:
        """How many requests of an operation came in."""
        return sum(request.operation == operation for request in self.requests)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a request, or the repetition of one, may still reach the upstream server."""
        with self._changed:
            self._underway += 1
        try:
            yield
        finally:
            with self._changed:
                self._underway -= 1
                self._changed.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no request is under way. False if it takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._underway, timeout)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is no error
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy
    upstream_host: str
    upstream_port: int
    keep_requests: bool

    def setup(self) -> None:
        super().setup()
        self.upstream = self._connection()

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.upstream_host, self.upstream_port, timeout=10)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the client is gone
            self.close_connection = True
            return
        target = self.headers.get("X-Amz-Target")
        operation = target.rpartition(".")[2] if target else self.path.rpartition("/")[2]
        request = Request(operation, body)
        if self.keep_requests:
            self.proxy.requests.append(request)
        with self.proxy.busy():
            self._act(self.proxy.rule(request), body)

    def _act(self, action: Action, body: bytes) -> None:
        if isinstance(action, Delayed):
            time.sleep(action.secs)
            action = action.action
        if isinstance(action, Answer):
            self._answer(action)
        elif action == DROP_REQUEST:
            self.close_connection = True
        else:
            try:
                self._pass_on(action, body)
            except (http.client.HTTPException, OSError):  # one of the two is gone
                self.close_connection = True
                self.upstream.close()
            if isinstance(action, SentAgain):
                busy = ExitStack()
                busy.enter_context(self.proxy.busy())
                arguments = (busy, action.secs, body, self._headers_passed_on())
                threading.Thread(target=self._send_again, args=arguments, daemon=True).start()

    def _headers_passed_on(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() != "connection"}

    def _reply_of_upstream(self, body: bytes) -> http.client.HTTPResponse:
        self.upstream.request("POST", self.path, body, self._headers_passed_on())
        return self.upstream.getresponse()

    def _send_again(self, busy: ExitStack, secs: float, body: bytes, headers: dict[str, str]) -> None:
        with busy:
            time.sleep(secs)
            upstream = self._connection()
            try:
                upstream.request("POST", self.path, body, headers)
                upstream.getresponse().read()
            except (http.client.HTTPException, OSError):
                pass
            finally:
                upstream.close()

    def _pass_on(self, action: Action, body: bytes) -> None:
        if action == DUPLICATE:
            self._reply_of_upstream(body).read()
        response = self._reply_of_upstream(body)
        if action == DROP_REPLY:
            response.read()
            self.close_connection = True
            return
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        whole = b"" if chunked else response.read()
        self.send_response(response.status)
        for name, value in response.headers.items():
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        if action == CUT_REPLY:
            part = response.read1(64) if chunked else whole
            self.wfile.write(b"%x\r\n" % len(part) + part[: len(part) // 2] if chunked else part[: len(part) // 2])
            response.read()
            self.close_connection = True
        elif chunked:
            while part := response.read1(65536):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(whole)

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@contextmanager
def running(
    upstream: str = "http://127.0.0.1:1", rule: Rule = lambda request: FORWARD, *, keep_requests: bool = True
) -> Iterator[Proxy]:
    """A proxy before an HTTP server. ``keep_requests=False``: for long runs."""
    target = urlsplit(upstream)
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), cast("type[_Handler]", handler))
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}", rule)
    attributes: dict[str, object] = {
        "proxy": proxy,
        "upstream_host": str(target.hostname),
        "upstream_port": target.port or 80,
        "keep_requests": keep_requests,
    }
    for name, value in attributes.items():
        setattr(handler, name, value)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

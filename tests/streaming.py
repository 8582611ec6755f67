"""What the tests of streams share: both kinds of stream, and servers that say exactly what they are told."""

import gc
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from metered import HELLO, NOVA_BODY

from bedrock_budget.testing import LocalBedrock
from bedrock_budget.testing.event_stream import CONTENT_TYPE, chunk_frame, event_frame
from bedrock_budget.testing.http_connection import reply_head, transfer_chunk


@dataclass(frozen=True)
class Kind:
    """One of the two streaming operations: its method, where its response has the stream, and its arguments."""

    method: str
    key: str
    arguments: dict[str, Any]

    def open(self, client: Any, model_id: str = "economy") -> dict[str, Any]:
        response: dict[str, Any] = getattr(client, self.method)(modelId=model_id, **self.arguments)
        return response

    def delta(self, text: str, index: int = 0) -> bytes:
        """A frame with some of the answer's text."""
        if self is CONVERSE:
            return event_frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}, index)
        return chunk_frame({"contentBlockDelta": {"delta": {"text": text}, "contentBlockIndex": 0}}, index)

    def usage(self, input_tokens: int, output_tokens: int) -> bytes:
        """The frame that says what was used."""
        if self is CONVERSE:
            usage = {"inputTokens": input_tokens, "outputTokens": output_tokens, "totalTokens": 0}
            return event_frame("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})
        metrics = {"inputTokenCount": input_tokens, "outputTokenCount": output_tokens}
        return chunk_frame({"amazon-bedrock-invocationMetrics": metrics})


CONVERSE = Kind("converse_stream", "stream", {"messages": HELLO})
INVOKE = Kind("invoke_model_with_response_stream", "body", {"body": NOVA_BODY})
KINDS = (CONVERSE, INVOKE)


def serve(server: LocalBedrock, frames: Iterable[bytes]) -> None:
    """Have the server answer the next request with these frames."""
    server.raw_next(200, {"content-type": CONTENT_TYPE}, b"".join(frames))


def open_sockets(port: int) -> int:
    """How many sockets this process has open to a local port, those of idle pooled connections included."""
    gc.collect()
    found = [each for each in gc.get_objects() if isinstance(each, socket.socket) and each.family == socket.AF_INET]
    return sum(1 for each in found if _peer_port(each) == port)


def _peer_port(connected: socket.socket) -> int | None:
    try:
        return int(connected.getpeername()[1])
    except OSError:
        return None


class StepByStep:
    """A server that answers one request, and sends each part of the stream only when told to."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._begin, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        self._connection.close()
        self._listening.close()

    def _begin(self) -> None:
        self._connection, _ = self._listening.accept()
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"content-length" in line.lower())
        while len(body) < length:
            body += self._connection.recv(65536)
        self._connection.sendall(reply_head(200, {"content-type": CONTENT_TYPE, "transfer-encoding": "chunked"}))

    def send(self, frame: bytes) -> None:
        """Send a frame; an empty one ends the stream."""
        self._connection.sendall(transfer_chunk(frame))

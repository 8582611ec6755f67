import base64
import json
from typing import Any

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer

from bedrock_budget.testing.event_stream import chunk_frame, encode_frame, encode_headers, event_frame, exception_frame


def decoded(data: bytes) -> list[tuple[Any, bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(message.headers, message.payload) for message in buffer]


def test_botocore_reads_what_was_written() -> None:
    headers = {":event-type": "chunk", "näme": "välue", "empty": ""}
    frames = encode_frame(encode_headers(headers), b"payload") + encode_frame(b"", b"")
    assert decoded(frames) == [(headers, b"payload"), ({}, b"")]


def test_a_changed_byte_breaks_the_checksum() -> None:
    frame = bytearray(encode_frame(encode_headers({"a": "b"}), b"payload"))
    frame[-6] ^= 1
    with pytest.raises(ChecksumMismatch):
        decoded(bytes(frame))


def test_events_carry_padding_of_varying_length() -> None:
    events = [decoded(event_frame("messageStart", {"role": "assistant"}, i))[0] for i in range(10)]
    payloads = [json.loads(payload) for _, payload in events]
    assert events[0][0] == {
        ":event-type": "messageStart",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    assert all(payload["role"] == "assistant" and payload["p"] for payload in payloads)
    assert len({len(payload["p"]) for payload in payloads}) > 5


def test_chunks_hold_base64_json() -> None:
    ((headers, payload),) = decoded(chunk_frame({"text": "ü"}))
    assert headers[":event-type"] == "chunk"
    assert json.loads(base64.b64decode(json.loads(payload)["bytes"])) == {"text": "ü"}


def test_an_exception_frame() -> None:
    ((headers, payload),) = decoded(exception_frame("throttlingException", "slow down"))
    assert headers == {
        ":exception-type": "throttlingException",
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    assert json.loads(payload) == {"message": "slow down"}

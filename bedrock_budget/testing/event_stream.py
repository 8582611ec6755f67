"""Encoder of ``application/vnd.amazon.eventstream`` frames.

A frame: total length and header length (4 bytes each, big-endian), CRC-32 of those 8 bytes, headers, payload,
CRC-32 of all before it. A header: name length (1 byte), name, value type (7: string), value length (2), value.
"""

import base64
import json
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_STRING = 7
_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_to_json = json.JSONEncoder(separators=(",", ":")).encode


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """The header block of a frame; every value is sent as a string."""
    block = bytearray()
    for name, value in headers.items():
        name_bytes, value_bytes = name.encode(), value.encode()
        block += struct.pack("!B", len(name_bytes)) + name_bytes
        block += struct.pack("!BH", _STRING, len(value_bytes)) + value_bytes
    return bytes(block)


def encode_frame(header_block: bytes, payload: bytes) -> bytes:
    """One frame of an encoded header block and a payload, with both checksums."""
    prelude = struct.pack("!II", 16 + len(header_block) + len(payload), len(header_block))
    message = prelude + struct.pack("!I", crc32(prelude)) + header_block + payload
    return message + struct.pack("!I", crc32(message))


@cache
def _event_headers(event_type: str) -> bytes:
    return encode_headers(
        {":event-type": event_type, ":content-type": "application/json", ":message-type": "event"},
    )


def padding(index: int) -> str:
    """The value of the padding key ``p`` of a stream's event number ``index``: its length varies, as Bedrock's does."""
    return _PADDING[: 1 + index * 23 % len(_PADDING)]


def event_frame(event_type: str, payload: Mapping[str, Any], index: int = 0) -> bytes:
    """A ConverseStream event. ``index`` is its number in the stream and sets the length of its padding."""
    return encode_frame(_event_headers(event_type), _to_json({**payload, "p": padding(index)}).encode())


def chunk_frame(chunk: Mapping[str, Any], index: int = 0) -> bytes:
    """A ``chunk`` event of InvokeModelWithResponseStream: the model's JSON in base64, padded like any event."""
    return event_frame("chunk", {"bytes": base64.b64encode(_to_json(chunk).encode()).decode()}, index)


def exception_frame(error: str, message: str) -> bytes:
    """A modelled exception in mid-stream. ``error`` is the stream member's name, e.g. ``throttlingException``."""
    headers = {":exception-type": error, ":content-type": "application/json", ":message-type": "exception"}
    return encode_frame(encode_headers(headers), _to_json({"message": message}).encode())

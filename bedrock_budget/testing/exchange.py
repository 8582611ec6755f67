"""A request as `LocalBedrock` understands it, and what it asks for."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..core.usage import Usage

#: Keys whose strings are text that a model would read, over all request formats.
TEXT_KEYS = frozenset(
    (
        *("content", "documents", "input", "inputText", "message", "prompt", "query"),
        *("system", "text", "texts", "thinking", "value"),
    )
)
_OUTPUT_LIMITS = (
    *("maxTokens", "max_tokens", "max_new_tokens", "max_gen_len"),
    *("maxTokenCount", "max_tokens_to_sample", "max_completion_tokens"),
)
_OUTPUT_LIMIT_PARENTS = ("inferenceConfig", "textGenerationConfig")


@dataclass(frozen=True, slots=True)
class Request:
    """A call of a Bedrock operation.

    ``operation``: its name (``"Converse"``, ...). ``model_id``: decoded from the path. ``body``: the parsed JSON;
    None where it is not JSON. ``headers``: names in lower case.
    """

    operation: str
    model_id: str
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RawReply:
    """A reply to be served as it is.

    ``body`` is sent with a content length. A request id header is added where ``headers`` has none. ``usage`` is
    what the ledger bills for it; None: nothing.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    usage: Usage | None = None


def as_mapping(value: object) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def text_bytes(value: object, counted: bool = False) -> int:
    """UTF-8 bytes of all text in a request's JSON: the strings under `TEXT_KEYS`. Roles, types and images are none."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) if counted else 0
    if isinstance(value, dict):
        return sum(text_bytes(v, k in TEXT_KEYS) for k, v in cast(dict[str, object], value).items())
    if isinstance(value, list):
        return sum(text_bytes(v, counted) for v in cast(list[object], value))
    return 0


def input_tokens(body: object) -> int:
    """Tokens that a request's text counts as here: one for 4 bytes, at least one."""
    return max(1, text_bytes(body) // 4)


def output_limit(body: object) -> int | None:
    """The most output tokens a request allows; None where it does not say."""
    source = as_mapping(body)
    for place in (source, *(as_mapping(source.get(parent)) for parent in _OUTPUT_LIMIT_PARENTS)):
        for name in _OUTPUT_LIMITS:
            limit = place.get(name)
            if isinstance(limit, int) and limit > 0:
                return limit
    return None


def counted_body(body: object) -> Any:
    """The request whose tokens a CountTokens body asks for, parsed; None where there is none."""
    source = as_mapping(as_mapping(body).get("input"))
    if "converse" in source:
        return source["converse"]
    try:
        return json.loads(base64.b64decode(as_mapping(source.get("invokeModel")).get("body", ""), validate=True))
    except (binascii.Error, ValueError, TypeError):
        return None

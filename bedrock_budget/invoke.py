"""``invoke_model``: bodies for one or many models, and responses whose usage is in the headers or the body."""

import io
import json
from typing import Any, cast

from botocore.exceptions import ParamValidationError
from botocore.response import StreamingBody

from .call import Call
from .core.estimates import text_bytes
from .core.outcomes import guardrail_outcome, intervened
from .core.served import served_of_headers
from .core.usage import Usage, counts_from_body, counts_from_headers, usage_from_headers

_FIXED = (bytes, bytearray, str)
_ALLOWED = "bytes, str, a file-like object, or a callable body(decision) that returns bytes, str or a dict"


def is_portable(body: object) -> bool:
    """Whether a body can be made for any model: a callable, or none at all (which the service will refuse)."""
    return body is None or callable(body)


def check_body(body: object) -> None:
    """Raise botocore's ParamValidationError for a body of the wrong type, before anything is decided."""
    if body is not None and not isinstance(body, _FIXED) and not hasattr(body, "read") and not callable(body):
        given = type(body).__name__
        hint = "; json.dumps() it first" if given in ("dict", "list") else ""
        raise ParamValidationError(report=f"Invalid type for parameter body: {given}; give {_ALLOWED}{hint}")


def body_bytes(made: object) -> Any:
    """What a callable body returned, as bytes or str. Raises ParamValidationError for anything else."""
    if isinstance(made, dict):
        return json.dumps(made)
    if isinstance(made, _FIXED):
        return made
    raise ParamValidationError(
        report=f"body(decision) returned {type(made).__name__}; it must return bytes, str or a dict"
    )


def settle_response(call: Call, response: dict[str, Any]) -> None:
    """Settle an ``invoke_model`` response: by its headers where they say all, else also by its body.

    A body that was read is replaced by an equal unread one. Raises what reading the body raises, settled by then.
    """
    metadata: dict[str, Any] = response.get("ResponseMetadata") or {}
    headers: dict[str, str] = metadata.get("HTTPHeaders") or {}
    if call.served is None:
        call.served = served_of_headers(headers)  # where botocore does not know the members yet
    usage = usage_from_headers(headers)
    if usage is not None:
        call.settle(usage)
        return
    counts = counts_from_headers(headers)
    body: Any = response.get("body")
    try:
        data = cast(bytes, body.read()) if body is not None else b""
    except BaseException as exc:
        usage = counts.usage()
        if usage is not None and counts.output_tokens is not None:
            call.settle(usage, "unanswered")  # how long cache writes live was in the body
        else:
            call.settle_unknown("unanswered", seen=counts)
        call.mark(exc)
        raise
    response["body"] = StreamingBody(cast(Any, io.BytesIO(data)), len(data))
    parsed = _parsed(data)
    found = counts.over(counts_from_body(parsed))
    if found.output_tokens is None and found.input_tokens is not None and not _has_text_answer(parsed):
        found = found._replace(output_tokens=0)  # embeddings have no output tokens
    usage = found.usage()
    blocked = intervened(parsed)
    if usage is not None and found.output_tokens is not None:
        call.settle(usage, guardrail_outcome(usage) if blocked else None)
    elif blocked and usage is None:
        call.settle(Usage(), "guardrail_input")
    elif parsed is None:
        call.settle_unknown("unanswered" if not data else "no_usage", seen=found, answer_bytes=len(data))
    else:
        call.settle_unknown("no_usage", seen=found, answer_bytes=text_bytes(parsed))


def _parsed(data: bytes) -> object:
    try:
        return cast(object, json.loads(data))
    except ValueError:
        return None


def _has_text_answer(body: Any) -> bool:
    """Whether a body without an output count is an answer in text, rather than embeddings."""
    if not isinstance(body, dict):
        return True
    return not any("embedding" in key.lower() for key in cast("dict[str, Any]", body))

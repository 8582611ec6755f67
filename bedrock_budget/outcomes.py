"""What an exception of a Bedrock call says of its outcome. The table of outcomes: `core.outcomes`."""

from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    EventStreamError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from .core.outcomes import Outcome

_NEVER_SENT = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError, SSLError, TypeError)
_ANSWER_LOST = (
    ReadTimeoutError,
    ConnectionClosedError,
    ResponseStreamingError,
    IncompleteReadError,
    HTTPClientError,
    FlexibleChecksumError,
    ResponseParserError,
)
#: ModelTimeoutException and ModelErrorException.
_MODEL_FAILED = (408, 424)


def outcome_of(exc: BaseException) -> Outcome:
    """The outcome of a call that raised ``exc``."""
    if isinstance(exc, ClientError):
        metadata: dict[str, Any] = dict(exc.response.get("ResponseMetadata") or {})
        return "model_failed" if metadata.get("HTTPStatusCode") in _MODEL_FAILED else "refused"
    if isinstance(exc, _NEVER_SENT):
        return "not_sent"
    if isinstance(exc, _ANSWER_LOST):
        return "unanswered"
    # The rest of botocore's errors come before sending (parameters, credentials, endpoints); what is not botocore's,
    # an interrupt for one, may have come at any point.
    return "not_sent" if isinstance(exc, BotoCoreError) else "unanswered"


def stream_outcome_of(exc: BaseException) -> Outcome:
    """The outcome of a stream whose reading raised ``exc``: a modelled exception, or a connection that broke."""
    return "stream_error" if isinstance(exc, EventStreamError) else "stream_cut"

"""What an exception of a Bedrock call says of its cost.

- Refused: the service answered with an error status, or the call never left: it cost nothing. AWS bills inference,
  and an error response carries no usage.
- Unknown: the request was sent and no usable answer came back. The service may have run and billed it.
"""

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError

_NEVER_SENT = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError, SSLError)
_ANSWER_LOST = (
    ReadTimeoutError,
    ConnectionClosedError,
    ResponseStreamingError,
    IncompleteReadError,
    HTTPClientError,
    ResponseParserError,
)


def was_sent(exc: BaseException) -> bool:
    """Whether the call may have been billed although it failed with ``exc``."""
    if isinstance(exc, (ClientError, TypeError, *_NEVER_SENT)):
        return False
    if isinstance(exc, _ANSWER_LOST):
        return True
    # The rest of botocore's errors come before sending (parameters, credentials, endpoints); what is not botocore's,
    # an interrupt for one, may have come at any point.
    return not isinstance(exc, BotoCoreError)

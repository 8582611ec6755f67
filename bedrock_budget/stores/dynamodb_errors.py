"""What DynamoDB's and botocore's errors mean for a store, and what to do about them."""

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

from ..core.errors import StoreError
from .contract import StoreSetupError

_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "NotAuthorized"})
_BAD_CREDENTIALS = frozenset(
    {
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_NO_CREDENTIALS = (
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

#: A transaction with the same token may be being applied.
_UNDER_WAY = frozenset({"TransactionInProgressException", "IdempotentParameterMismatchException"})

#: An HTML page as an error's text is cut to this many characters.
_LONGEST_TEXT = 400


def error_code(exc: BaseException) -> str:
    """The service's error code; "" where the service said nothing (some botocore errors have ``response`` None)."""
    response: Mapping[str, Any] = getattr(exc, "response", None) or {}
    error: Mapping[str, Any] = response.get("Error") or {}
    return str(error.get("Code") or "")


def cancellation_reasons(exc: BaseException | None) -> list[Mapping[str, Any]]:
    """Why each item of a transaction was not written; empty if the error says nothing of it."""
    response: Mapping[str, Any] = getattr(exc, "response", None) or {}
    reasons: list[Mapping[str, Any]] = response.get("CancellationReasons") or []
    return reasons


def is_refusal(exc: BaseException) -> bool:
    """Whether the service turned a request down at its first attempt: an earlier one may have been applied."""
    response: Mapping[str, Any] = getattr(exc, "response", None) or {}
    metadata: Mapping[str, Any] = response.get("ResponseMetadata") or {}
    refused = 400 <= int(metadata.get("HTTPStatusCode") or 0) < 500 and not metadata.get("RetryAttempts")
    return refused and error_code(exc) not in _UNDER_WAY


def store_error(exc: Exception, operation: str, tables: str, place: str, url: str) -> StoreError:
    """The error to raise for one of a DynamoDB call.

    ``tables``: the physical names asked for; ``place``: region and endpoint; ``url``: the store's URL, for commands.
    """
    error = _store_error(exc, operation, tables, place, url)
    error.refused = is_refusal(exc)
    return error


def _store_error(exc: Exception, operation: str, tables: str, place: str, url: str) -> StoreError:
    code = error_code(exc)
    text = str(exc)
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + "…"
    asked = f"DynamoDB {operation} on {tables} in {place}"
    create = f"bedrock-budget tables create --store '{url}'"
    if code == "ResourceNotFoundException":
        return StoreSetupError(f"{asked}: a table does not exist; create the tables: {create} ({text})")
    if code == "ValidationException" and "specified index" in text:
        return StoreSetupError(f"{asked}: the table lacks its index; add it: {create} ({text})")
    if code in _DENIED:
        return StoreSetupError(f"{asked}: access denied; allow dynamodb:{operation} on {tables} in IAM ({text})")
    if code in _BAD_CREDENTIALS:
        return StoreSetupError(
            f"{asked}: the AWS credentials were refused; correct them (they need dynamodb:{operation}) ({text})"
        )
    if isinstance(exc, _NO_CREDENTIALS):
        return StoreSetupError(
            f"{asked}: no AWS credentials; provide some that allow dynamodb:{operation} on {tables} ({text})"
        )
    if isinstance(exc, NoRegionError):
        return StoreSetupError(
            f"DynamoDB {operation} on {tables}: no AWS region; add region=… to the store URL or set $AWS_REGION"
        )
    return StoreError(f"{asked}: no definite answer: {type(exc).__name__}: {text}")

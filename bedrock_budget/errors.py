"""All errors of the library. `BudgetExhausted` and `BudgetStopped` are also botocore's ``ClientError`` (status 429),
so that handlers written for the service's throttling work."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from .core.errors import (
    BodyNotPortable,
    BudgetError,
    ConfigError,
    CostLimitExceeded,
    StoreError,
    UnknownModel,
    UnknownPrice,
)

__all__ = [
    "BodyNotPortable",
    "BudgetError",
    "BudgetExhausted",
    "BudgetStopped",
    "ConfigError",
    "CostLimitExceeded",
    "StoreError",
    "UnknownModel",
    "UnknownPrice",
]


class _Refused(BudgetError, ClientError):
    def __init__(self, message: str, operation_name: str, record: Mapping[str, Any] | None) -> None:
        error_response: Any = {
            "Error": {"Code": type(self).__name__, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {}, "RetryAttempts": 0, "PriceKeeper": record},
        }
        ClientError.__init__(self, error_response, operation_name)
        self.message = message
        self.record = record


class BudgetExhausted(_Refused):
    """Every label that a call may go to has used up its daily quota. ``retry_at``: the next org midnight, aware."""

    def __init__(
        self, message: str, operation_name: str, retry_at: datetime, record: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, operation_name, record)
        self.retry_at = retry_at

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.operation_name, self.retry_at, self.record)


class BudgetStopped(_Refused):
    """An operator or a rule has stopped the org or app: who, when and why."""

    def __init__(
        self,
        message: str,
        operation_name: str,
        stopped_by: str,
        stopped_at: datetime,
        why: str,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, operation_name, record)
        self.stopped_by = stopped_by
        self.stopped_at = stopped_at
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.message,
            self.operation_name,
            self.stopped_by,
            self.stopped_at,
            self.why,
            self.record,
        )

"""A daily USD budget for Amazon Bedrock: wrap a boto3 ``bedrock-runtime`` client in a `PriceKeeperClient`."""

from .client import PriceKeeperClient
from .errors import (
    BodyNotPortable,
    BudgetError,
    BudgetExhausted,
    BudgetStopped,
    ConfigError,
    CostLimitExceeded,
    StoreError,
    UnknownModel,
    UnknownPrice,
)

__version__ = "0.1.0"

__all__ = [
    "BodyNotPortable",
    "BudgetError",
    "BudgetExhausted",
    "BudgetStopped",
    "ConfigError",
    "CostLimitExceeded",
    "PriceKeeperClient",
    "StoreError",
    "UnknownModel",
    "UnknownPrice",
]

"""How several aggregators share the keys without a coordinator: each takes those whose stable hash is its own."""

import os
import re
import zlib
from typing import NamedTuple, Self

from .core.errors import ConfigError
from .core.keys import UsageKey, usage_key

PARTITION_VARIABLE = "BEDROCK_BUDGET_PARTITION"


class Partition(NamedTuple):
    """Share ``number`` (from 1) of ``shares``. All days of a scope and label belong to one share."""

    number: int = 1
    shares: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """The share that ``I/N`` means. Raises ConfigError."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found and 1 <= int(found[1]) <= int(found[2]):
            return cls(int(found[1]), int(found[2]))
        raise ConfigError(f"must be I/N with whole numbers and 1 <= I <= N, such as 1/3, 2/3 and 3/3, got {text!r}")

    @classmethod
    def of_environment(cls) -> Self:
        """The share that ``$BEDROCK_BUDGET_PARTITION`` names; all keys without it. Raises ConfigError."""
        text = os.environ.get(PARTITION_VARIABLE)
        if not text:
            return cls()
        try:
            return cls.parse(text)
        except ConfigError as exc:
            raise ConfigError(f"${PARTITION_VARIABLE} {exc}") from None

    def has(self, key: UsageKey) -> bool:
        """Whether a usage key belongs to this share."""
        return zlib.crc32(usage_key(key.scope, key.label).encode()) % self.shares == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.shares}"

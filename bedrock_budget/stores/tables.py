"""The DynamoDB tables, as one description: created, described, deleted and named in messages from here.

Names, keys and attributes: the Price Keeper schema specification. A table's physical name is a prefix + its name.
Importing this module imports nothing of boto3.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..core.errors import ConfigError, StoreError
from .contract import StoreSetupError
from .table_stream import stream_update

if TYPE_CHECKING:
    from botocore.client import BaseClient

T = TypeVar("T")

DEFAULT_PREFIX = "bedrock-budget-"

#: The attribute after whose time DynamoDB deletes an item (some day; readers filter by it).
TTL_ATTRIBUTE = "expires_at_epoch"


class Key(NamedTuple):
    """A primary key or index key: one or two attributes, all of them text."""

    partition: str
    sort: str | None = None

    @property
    def schema(self) -> list[dict[str, str]]:
        """As ``KeySchema``."""
        schema = [{"AttributeName": self.partition, "KeyType": "HASH"}]
        if self.sort is not None:
            schema.append({"AttributeName": self.sort, "KeyType": "RANGE"})
        return schema

    def __str__(self) -> str:
        return f"{self.partition} (partition)" + (f" + {self.sort} (sort)" if self.sort else "")


@dataclass(frozen=True, slots=True)
class Index:
    """A global secondary index that holds keys only."""

    name: str
    key: Key


@dataclass(frozen=True, slots=True)
class Table:
    """One table. ``expires``: whether its items carry `TTL_ATTRIBUTE`."""

    name: str
    key: Key
    purpose: str
    index: Index | None = None
    expires: bool = False

    @property
    def attributes(self) -> list[dict[str, str]]:
        """As ``AttributeDefinitions``: the attributes of all keys."""
        keys = [self.key] + ([self.index.key] if self.index else [])
        names = dict.fromkeys(name for key in keys for name in key if name is not None)
        return [{"AttributeName": name, "AttributeType": "S"} for name in names]


CONFIG = Table("Config", Key("org_key", "resource_key"), "settings of orgs and apps, overrides", expires=True)
STICKY_STATE = Table(
    "StickyState", Key("scope_key", "date_key"), "the label a scope has fallen back to today", expires=True
)
USAGE = Table(
    "UsageAggSharded",
    Key("shard_key", "date_key"),
    "counters that every process adds to",
    index=Index("active_hour-index", Key("active_hour")),
)
DAILY_TOTAL = Table("DailyTotal", Key("usage_key", "date_key"), "sums of the counters, kept by the aggregator")
LEASES = Table("Leases", Key("lease_key", "date_key"), "what strict enforcement has granted today", expires=True)
PRICING_CACHE = Table("PricingCache", Key("model_id", "price_key"), "list prices fetched", expires=True)

TABLES = (CONFIG, STICKY_STATE, USAGE, DAILY_TOTAL, LEASES, PRICING_CACHE)

_LONGEST_NAME = 255

#: How long tables and indexes may take to become ready, seconds: an index on a large table takes minutes.
READY_TIMEOUT_SECS = 900.0


def prefix_problem(prefix: str) -> str | None:
    """What is wrong with a prefix of table names, as the end of a sentence; None if nothing is."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]*", prefix):
        return "may hold only letters, digits, '_', '-' and '.'"
    longest = _LONGEST_NAME - max(len(table.name) for table in TABLES)
    if len(prefix) > longest:
        return f"is longer than {longest} characters"
    return None


class Created(NamedTuple):
    """What `create_tables` did, by physical name: new tables, tables that stood there, and what those lacked."""

    created: tuple[str, ...]
    existed: tuple[str, ...]
    completed: tuple[str, ...]


class TableState(NamedTuple):
    """How a table stands. ``problem``: what is wrong with it, as a sentence; None if it is ready for use.

    DynamoDB updates ``item_count`` and ``size_bytes`` about every six hours.
    """

    name: str
    purpose: str
    status: str
    item_count: int
    size_bytes: int
    problem: str | None


def create_tables(client: "BaseClient", prefix: str = DEFAULT_PREFIX, *, stream: bool = False) -> Created:
    """Create the tables that are missing, and the index or TTL that a table lacks; wait until all are ready.

    Billing is on demand. ``stream``: the usage table is to have a stream. Idempotent. Raises StoreSetupError, before
    anything is created, for a table that stands there with other keys, and StoreError if AWS refuses or the tables do
    not become ready.
    """
    admin = _Admin(client, prefix)
    descriptions = {table: admin.describe(table) for table in TABLES}
    differences = [admin.difference(table, found) for table, found in descriptions.items() if found]
    if problems := [difference for difference in differences if difference]:
        raise StoreSetupError("; ".join(problems) + ". Choose another prefix, or move the tables' data and delete them")
    missing = [table for table, found in descriptions.items() if found is None]
    completed: list[str] = []
    for table in missing:
        admin.create(table)
    for table in TABLES:
        found = admin.wait_until_ready(table)
        if problem := admin.difference(table, found):  # made by another program in the meantime
            raise StoreSetupError(problem)
        if table.index and admin.index_of(table, found) is None:
            admin.add_index(table, table.index)
            completed.append(f"index {table.index.name} of {admin.physical(table)}")
        if table.expires and admin.enable_expiry(table) and table not in missing:
            completed.append(f"expiry of {admin.physical(table)}")
        if stream and table is USAGE and (update := stream_update(found)):
            admin.update(table, update)
            completed += [] if table in missing else [f"stream of {admin.physical(table)}"]
    return Created(
        tuple(admin.physical(table) for table in missing),
        tuple(admin.physical(table) for table in TABLES if table not in missing),
        tuple(completed),
    )


def describe_tables(client: "BaseClient", prefix: str = DEFAULT_PREFIX) -> list[TableState]:
    """How each of the tables stands, missing ones included. Raises StoreError if AWS does not say."""
    admin = _Admin(client, prefix)
    return [admin.state(table) for table in TABLES]


def delete_tables(client: "BaseClient", prefix: str = DEFAULT_PREFIX) -> tuple[str, ...]:
    """Delete the tables and all they hold; wait until they are gone. Idempotent. Returns what was deleted.

    A table with other keys is left alone: it is another program's.
    """
    admin = _Admin(client, prefix)
    found = {table: admin.describe(table) for table in TABLES}
    doomed = [table for table, existing in found.items() if existing and not admin.difference(table, existing)]
    for table in doomed:
        admin.delete(table)
    for table in doomed:
        admin.wait_until_gone(table)
    return tuple(admin.physical(table) for table in doomed)


def _index(index: Index) -> dict[str, Any]:
    return {"IndexName": index.name, "KeySchema": index.key.schema, "Projection": {"ProjectionType": "KEYS_ONLY"}}


def _poll(look: Callable[[], T]) -> T:
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential  # noqa: PLC0415

    return Retrying(
        retry=retry_if_exception_type(_NotYet),
        wait=wait_exponential(0.05, max=3),
        stop=stop_after_delay(READY_TIMEOUT_SECS),
        reraise=True,
    )(look)


_REMEDY = "run: bedrock-budget tables create"


class _NotYet(StoreError):
    """A table is not in the state waited for."""


class _Admin:
    """Control-plane requests for the tables of one prefix."""

    def __init__(self, client: "BaseClient", prefix: str) -> None:
        if problem := prefix_problem(prefix):
            raise ConfigError(f"prefix {prefix!r} {problem}")
        self._client = client
        self._prefix = prefix

    def physical(self, table: Table) -> str:
        return self._prefix + table.name

    def describe(self, table: Table) -> Mapping[str, Any] | None:
        """DynamoDB's description; None for a table that does not exist."""
        answer = self._call_unless("ResourceNotFoundException", "DescribeTable", table)
        return None if answer is None else answer["Table"]

    @staticmethod
    def index_of(table: Table, found: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The description of the table's index, None if it has none of that name."""
        indexes = found.get("GlobalSecondaryIndexes") or ()
        return next((index for index in indexes if table.index and index["IndexName"] == table.index.name), None)

    def difference(self, table: Table, found: Mapping[str, Any]) -> str | None:
        """How a table's keys differ from the description, None if they do not."""
        index = self.index_of(table, found)
        pairs = [(f"table {self.physical(table)}", table.key, found)]
        if table.index and index:
            pairs.append((f"index {table.index.name} of {self.physical(table)}", table.index.key, index))
        types = {entry["AttributeName"]: entry["AttributeType"] for entry in found["AttributeDefinitions"]}
        for name, key, description in pairs:
            schema = {entry["KeyType"]: entry["AttributeName"] for entry in description["KeySchema"]}
            actual = Key(schema["HASH"], schema.get("RANGE"))
            if actual != key:
                return f"{name} has the key {actual}, not {key}"
            for attribute in key:
                if attribute is not None and types.get(attribute) != "S":
                    return f"{name} has the key attribute {attribute} of type {types.get(attribute)}, not S"
        return None

    def create(self, table: Table) -> None:
        index: dict[str, Any] = {"GlobalSecondaryIndexes": [_index(table.index)]} if table.index else {}
        self._call_unless(
            "ResourceInUseException",  # another process has just created it
            "CreateTable",
            table,
            AttributeDefinitions=table.attributes,
            KeySchema=table.key.schema,
            BillingMode="PAY_PER_REQUEST",
            **index,
        )

    def add_index(self, table: Table, index: Index) -> None:
        update = {"AttributeDefinitions": table.attributes, "GlobalSecondaryIndexUpdates": [{"Create": _index(index)}]}
        self.update(table, update)

    def update(self, table: Table, update: Mapping[str, Any]) -> None:
        self._call("UpdateTable", table, **update)
        self.wait_until_ready(table)

    def expires(self, table: Table) -> bool:
        """Whether DynamoDB deletes the table's expired items."""
        answer = self._call("DescribeTimeToLive", table)
        ttl: Mapping[str, Any] = answer.get("TimeToLiveDescription") or {}
        return ttl.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"} and ttl.get("AttributeName") == TTL_ATTRIBUTE

    def enable_expiry(self, table: Table) -> bool:
        """False: it was enabled."""
        if self.expires(table):
            return False
        self._call("UpdateTimeToLive", table, TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE})
        return True

    def delete(self, table: Table) -> None:
        self._call_unless("ResourceNotFoundException", "DeleteTable", table)

    def state(self, table: Table) -> TableState:
        found = self.describe(table)
        problem: str | None
        if found is None:
            problem = f"does not exist; {_REMEDY}"
            return TableState(self.physical(table), table.purpose, "MISSING", 0, 0, problem)
        problem = self.difference(table, found)
        if problem is None and table.index and self.index_of(table, found) is None:
            problem = f"lacks the index {table.index.name}; {_REMEDY}"
        if problem is None and table.expires and not self.expires(table):
            problem = f"does not expire items by {TTL_ATTRIBUTE}; {_REMEDY}"
        if problem is None and not self._is_ready(table, found):
            problem = "is not ready yet; wait"
        return TableState(
            *(self.physical(table), table.purpose, found["TableStatus"]),
            *(found.get("ItemCount", 0), found.get("TableSizeBytes", 0), problem),
        )

    def wait_until_ready(self, table: Table) -> Mapping[str, Any]:
        """The table's description once it and its indexes can be used."""

        def look() -> Mapping[str, Any]:
            found = self.describe(table)
            if found is None or not self._is_ready(table, found):
                raise _NotYet(f"table {self.physical(table)} is not ready after {READY_TIMEOUT_SECS:g} s; try again")
            return found

        return _poll(look)

    def wait_until_gone(self, table: Table) -> None:
        def look() -> None:
            if self.describe(table) is not None:
                raise _NotYet(f"table {self.physical(table)} is not deleted after {READY_TIMEOUT_SECS:g} s; try again")

        _poll(look)

    def _is_ready(self, table: Table, found: Mapping[str, Any]) -> bool:
        index = self.index_of(table, found)
        return found["TableStatus"] == "ACTIVE" and (index is None or index.get("IndexStatus", "ACTIVE") == "ACTIVE")

    def _call_unless(self, code: str, operation: str, table: Table, **parameters: Any) -> Mapping[str, Any] | None:
        """The answer; None for the error of this code."""
        from .dynamodb_errors import error_code  # noqa: PLC0415

        try:
            return self._call(operation, table, **parameters)
        except StoreError as exc:
            if exc.__cause__ is not None and error_code(exc.__cause__) == code:
                return None
            raise

    def _call(self, operation: str, table: Table, **parameters: Any) -> Mapping[str, Any]:
        from botocore import xform_name  # noqa: PLC0415

        from .dynamodb_errors import store_error  # noqa: PLC0415

        name = self.physical(table)
        try:
            request = getattr(self._client, xform_name(operation))
            answer: Mapping[str, Any] = request(TableName=name, **parameters)
            return answer
        except Exception as exc:  # whatever it is, it is not an answer
            meta = self._client.meta
            raise store_error(
                exc, operation, name, f"{meta.region_name} ({meta.endpoint_url})", f"dynamodb://?prefix={self._prefix}"
            ) from exc

"""Requests to DynamoDB: one client per process, definite answers or StoreError, and what they consumed."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import boto3.session
from botocore import xform_name
from botocore.config import Config
from tenacity import (
    Retrying,
    retry_base,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from ..core.errors import ConfigError, StoreError
from .dynamodb_capacity import Consumed
from .dynamodb_errors import cancellation_reasons, error_code, store_error
from .processes import WHOLE, PerProcess
from .tables import Table, prefix_problem

if TYPE_CHECKING:
    from botocore.client import BaseClient

#: An item as DynamoDB writes it: name -> {type: value}.
Item = Mapping[str, Mapping[str, Any]]

_CONFIG = Config(
    connect_timeout=1,
    read_timeout=2,
    # A write whose reply was lost may go out twice: every write here is conditional or idempotent.
    retries={"total_max_attempts": 2, "mode": "standard"},
)

_MOST_KEYS = 100

#: Nine attempts wait about 2 s in all.
_ATTEMPTS = 9
_FIRST_WAIT_SECS = 0.02
_LONGEST_WAIT_SECS = 0.4
_JITTER_SECS = 0.05


class ConditionFailed(Exception):
    """A conditional write was refused. ``item``: what stood there, None if the answer does not say."""

    def __init__(self, item: Item | None) -> None:
        super().__init__("the conditional request failed")
        self.item = item


class _Unprocessed(StoreError):
    """DynamoDB left keys of a batch unread, which is normal under load."""


def _is_conflict(exc: BaseException) -> bool:
    """Whether a transaction was turned down because another write to an item was under way; botocore repeats none."""
    codes = {error_code(exc.__cause__)} if exc.__cause__ else set[str]()
    codes.update(str(reason.get("Code")) for reason in cancellation_reasons(exc.__cause__))
    return bool(codes & {"TransactionConflictException", "TransactionConflict"})


def attempts_while_busy(error: type[StoreError]) -> Retrying:
    """Attempts at a batch that raises ``error`` where DynamoDB has left some of it undone."""
    return _attempts(retry_if_exception_type(error))


def _attempts(retry: retry_base) -> Retrying:
    """Attempts at what DynamoDB was too busy for."""
    return Retrying(
        retry=retry,
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(_FIRST_WAIT_SECS, max=_LONGEST_WAIT_SECS) + wait_random(0, _JITTER_SECS),
        reraise=True,
    )


class _Slot:
    """The client of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: BaseClient | None = None
        self.used = False


class DynamoDBCalls:
    """See the module's text. Thread-safe; usable after a fork."""

    def __init__(self, client: "BaseClient | None", region: str | None, prefix: str, endpoint_url: str | None) -> None:
        if problem := prefix_problem(prefix):
            raise ConfigError(f"prefix {prefix!r} {problem}")
        if client is not None and (region is not None or endpoint_url is not None):
            raise ConfigError(
                "a client has a region and an endpoint already; give either it or region and endpoint_url"
            )
        self.consumed = Consumed()
        self._given = client
        self._region = region
        self._prefix = prefix
        self._endpoint_url = endpoint_url
        self._slots = PerProcess(_Slot)
        self._slots.get().client = client

    @property
    def url(self) -> str:
        """The store URL that stands for these settings."""
        region, endpoint_url = self._region, self._endpoint_url
        if self._given is not None:
            region = self._given.meta.region_name
            if ".amazonaws.com" not in self._given.meta.endpoint_url:
                endpoint_url = self._given.meta.endpoint_url
        parameters = {"region": region, "prefix": self._prefix, "endpoint_url": endpoint_url}
        return "dynamodb://?" + urlencode(
            {name: value for name, value in parameters.items() if value is not None}, safe=":/"
        )

    def physical(self, table: Table) -> str:
        """A table's name in DynamoDB."""
        return self._prefix + table.name

    def call(self, operation: str, *tables: Table, **parameters: Any) -> Mapping[str, Any]:
        """The answer to one request.

        Raises ConditionFailed for a refused conditional write, StoreError for anything but a complete answer.
        """
        names = ", ".join(self.physical(table) for table in tables)
        client: BaseClient | None = None
        try:
            client = self._client()
            response = self._ask(client, operation, parameters)
        except Exception as exc:  # whatever it is, it is not an answer
            if error_code(exc) == "ConditionalCheckFailedException":
                self.consumed.add_refused()
                raise ConditionFailed(getattr(exc, "response", {}).get("Item")) from exc
            raise store_error(exc, operation, names, self._place(client), self.url) from exc
        # A reply cut off in the middle parses to nothing at all. The capacity asked for tells it from an empty answer.
        capacity: Any = response.get("ConsumedCapacity")
        try:
            if not capacity:
                raise ValueError("no consumed capacity")
            # one entry, or one of each table for a batch
            self.consumed.add(operation, [capacity] if "CapacityUnits" in capacity else capacity)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise StoreError(
                f"DynamoDB {operation} on {names} in {self._place(client)}: truncated answer, outcome unknown ({exc!r})"
            ) from exc
        return response

    def transact(self, table: Table, items: Sequence[Mapping[str, Any]], token: str) -> None:
        """Write all of these items or none; the same ``token`` within 10 minutes writes nothing again.

        Raises ConditionFailed if the first condition was refused, StoreError if the outcome is unknown.
        """
        for attempt in _attempts(retry_if_exception(_is_conflict)):
            with attempt:
                try:
                    self.call("TransactWriteItems", table, TransactItems=items, ClientRequestToken=token)
                except StoreError as exc:
                    reasons = cancellation_reasons(exc.__cause__)
                    if reasons and reasons[0].get("Code") == "ConditionalCheckFailed":
                        raise ConditionFailed(reasons[0].get("Item")) from exc
                    raise

    def _ask(self, client: "BaseClient", operation: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        request = getattr(client, xform_name(operation))
        slot = self._slots.get()
        if slot.used:
            response: Mapping[str, Any] = request(ReturnConsumedCapacity="INDEXES", **parameters)
            return response
        with WHOLE:  # the first request imports more
            try:
                return cast("Mapping[str, Any]", request(ReturnConsumedCapacity="INDEXES", **parameters))
            finally:
                slot.used = True

    def batch_get(self, keys: Mapping[Table, Sequence[Item]], *, consistent: bool) -> Iterator[tuple[Table, Item]]:
        """The items of these keys (no key twice) that exist, in no order."""
        wanted = [(table, key) for table, table_keys in keys.items() for key in table_keys]
        tables = {self.physical(table): table for table in keys}
        for start in range(0, len(wanted), _MOST_KEYS):
            request: dict[str, dict[str, Any]] = {}
            for table, key in wanted[start : start + _MOST_KEYS]:
                entry = request.setdefault(self.physical(table), {"Keys": [], "ConsistentRead": consistent})
                entry["Keys"].append(key)
            for name, item in self._batch_get_once(request, tables):
                yield tables[name], item

    def _batch_get_once(self, request: Mapping[str, Any], tables: Mapping[str, Table]) -> list[tuple[str, Item]]:
        found: list[tuple[str, Item]] = []
        left = request
        for attempt in _attempts(retry_if_exception_type(_Unprocessed)):
            with attempt:
                response = self.call("BatchGetItem", *(tables[name] for name in left), RequestItems=left)
                if "Responses" not in response:
                    raise StoreError(f"DynamoDB BatchGetItem on {', '.join(left)}: truncated answer, nothing is known")
                found.extend((name, item) for name, items in response["Responses"].items() for item in items)
                left = cast("Mapping[str, Any]", response.get("UnprocessedKeys") or {})
                if left:
                    count = sum(len(entry["Keys"]) for entry in left.values())
                    raise _Unprocessed(
                        f"DynamoDB BatchGetItem left {count} keys of {', '.join(left)} unread in {_ATTEMPTS} attempts: "
                        "it is overloaded; try again"
                    )
        return found

    def query(self, table: Table, **parameters: Any) -> Iterator[Item]:
        """All items of a Query, page by page."""
        start: dict[str, Any] = {}
        while True:
            response = self.call("Query", table, TableName=self.physical(table), **parameters, **start)
            if "Items" not in response:
                raise StoreError(f"DynamoDB Query on {self.physical(table)}: truncated answer, nothing is known")
            yield from response["Items"]
            if not response.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": response["LastEvaluatedKey"]}

    def close(self) -> None:
        """Close this process's connections. A client that was given stays open: it is its owner's."""
        if self._given is not None:
            return
        slot = self._slots.get()
        with slot.lock:
            client, slot.client = slot.client, None
        if client is not None:
            client.close()

    def _client(self) -> "BaseClient":
        slot = self._slots.get()
        if slot.client is None:
            with WHOLE, slot.lock:
                if slot.client is None:
                    slot.client = self._make_client()
        return slot.client

    def _make_client(self) -> "BaseClient":
        if self._given is not None:
            # A child process. The pooled connections are the parent's, to be used by it alone: drop our copies (which
            # leaves the parent's open); the client then opens new ones.
            self._given.close()
            return self._given
        # A session of its own: boto3's default one must not be used by several threads. Any: its stubs want a package
        # per service.
        session: Any = boto3.session.Session()
        return cast(
            "BaseClient",
            session.client("dynamodb", region_name=self._region, endpoint_url=self._endpoint_url, config=_CONFIG),
        )

    def _place(self, client: "BaseClient | None") -> str:
        if client is None:
            return self._region or "the default region"
        return f"{client.meta.region_name} ({client.meta.endpoint_url})"

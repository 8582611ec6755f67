"""``bedrock-budget tables``: the tables of a DynamoDB store."""

import argparse
import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ..clock import Clock
from ..core.errors import ConfigError
from .exits import DONE, FAILED
from .options import AddParser, add_command, add_group, note, store_url
from .table_text import aligned

if TYPE_CHECKING:
    from ..stores.tables import TableState

_CREATE = """\
Create the tables of a DynamoDB store that are missing, with their index and expiry, billed on demand, and wait until
all are ready. May be repeated: what stands there stays."""

_DESCRIBE = """\
How each table of a DynamoDB store stands. Ends with exit code 1 if one is missing or not ready for use."""

_DELETE = """\
Delete the tables of a DynamoDB store and all they hold, and wait until they are gone. Asks for the prefix of their
names first. Tables of the same name with other keys are another program's, and stay."""


def register(add_parser: AddParser) -> None:
    """Add the commands."""
    add = add_group(
        add_parser,
        "tables",
        summary="create, describe or delete the tables of a DynamoDB store",
        description="The tables of a DynamoDB store. Other stores need none.",
    )
    parser = add_command(add, "create", run_create, summary="create what is missing, and wait", description=_CREATE)
    parser.add_argument(
        "--stream", action="store_true", help="also give UsageAggSharded a stream, for the aggregator's stream_handler"
    )
    add_command(add, "describe", run_describe, summary="how each table stands", description=_DESCRIBE)
    parser = add_command(add, "delete", run_delete, summary="delete the tables and all they hold", description=_DELETE)
    parser.add_argument("--yes", action="store_true", help="do not ask")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the tables are. ``client``: a boto3 client for DynamoDB's control plane."""

    client: Any
    prefix: str
    url: str

    @property
    def text(self) -> str:
        return f"{self.client.meta.region_name} ({self.client.meta.endpoint_url})"

    def as_json(self) -> dict[str, str]:
        meta = self.client.meta
        return {"prefix": self.prefix, "region": meta.region_name, "endpoint_url": meta.endpoint_url}

    def ask(self, operation: str, request: Callable[..., Mapping[str, Any]], name: str) -> Mapping[str, Any]:
        """The answer to a question about one table. Raises StoreError."""
        from ..stores.dynamodb_errors import store_error  # noqa: PLC0415

        try:
            return request(TableName=name)
        except Exception as exc:  # whatever it is, it is not an answer
            raise store_error(exc, operation, name, self.text, self.url) from exc


# -- create


def run_create(args: argparse.Namespace, clock: Clock) -> int:
    """Create the tables."""
    from ..stores.tables import create_tables  # noqa: PLC0415

    with _connected(args) as place:
        done = create_tables(place.client, place.prefix, stream=args.stream)
    if args.json:
        print(json.dumps({**place.as_json(), **done._asdict()}, indent=2))
        return DONE
    print(f"Tables in {place.text}:")
    words = [(name, "created") for name in done.created] + [(name, "existing") for name in done.existed]
    for line in aligned(sorted(words), left=(0, 1), indent=2):
        print(line)
    for each in done.completed:
        print(f"Added: {each}")
    return DONE


# -- describe


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table, in the form that ``--json`` prints. None: it does not exist, or has none."""

    name: str
    purpose: str
    status: str
    problem: str | None
    item_count: int
    size_bytes: int
    key: list[str] | None = None
    billing_mode: str | None = None
    ttl_attribute: str | None = None
    ttl_status: str | None = None
    index_name: str | None = None
    index_key: list[str] | None = None
    index_status: str | None = None
    stream_arn: str | None = None
    stream_view: str | None = None


def run_describe(args: argparse.Namespace, clock: Clock) -> int:
    """Describe the tables."""
    from ..stores.tables import describe_tables  # noqa: PLC0415

    with _connected(args) as place:
        tables = [_facts(place, state) for state in describe_tables(place.client, place.prefix)]
    ready = not any(table.problem for table in tables)
    if args.json:
        print(json.dumps({**place.as_json(), "ready": ready, "tables": [asdict(table) for table in tables]}, indent=2))
    else:
        print(f"Tables in {place.text}:\n")
        print("\n\n".join("\n".join(_text(table)) for table in tables))
    return DONE if ready else FAILED


def _facts(place: _Place, state: "TableState") -> TableFacts:
    from ..stores.table_stream import stream_of  # noqa: PLC0415

    stands = TableFacts(state.name, state.purpose, state.status, state.problem, state.item_count, state.size_bytes)
    if state.status == "MISSING":
        return stands
    table = place.ask("DescribeTable", place.client.describe_table, state.name)["Table"]
    expiry = place.ask("DescribeTimeToLive", place.client.describe_time_to_live, state.name)
    ttl: Mapping[str, Any] = expiry.get("TimeToLiveDescription", {})
    indexes: Sequence[Mapping[str, Any]] = table.get("GlobalSecondaryIndexes", ())
    index = indexes[0] if indexes else None
    stream = stream_of(table)
    return replace(
        stands,
        key=_key(table),
        # Where nothing is said of billing, capacity is provisioned.
        billing_mode=table.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        ttl_attribute=ttl.get("AttributeName"),
        ttl_status=ttl.get("TimeToLiveStatus"),
        index_name=None if index is None else index["IndexName"],
        index_key=None if index is None else _key(index),
        index_status=None if index is None else index.get("IndexStatus"),
        stream_arn=None if stream is None else stream.arn,
        stream_view=None if stream is None else stream.view,
    )


def _key(described: Mapping[str, Any]) -> list[str]:
    """The attributes of a key: partition, then sort."""
    schema = {entry["KeyType"]: entry["AttributeName"] for entry in described["KeySchema"]}
    return [schema[kind] for kind in ("HASH", "RANGE") if kind in schema]


def _text(table: TableFacts) -> list[str]:
    rows = [("status", table.status), ("purpose", table.purpose)]
    if table.key is not None:
        billing = {"PAY_PER_REQUEST": "on demand", "PROVISIONED": "provisioned capacity"}
        rows += [
            ("key", " + ".join(table.key)),
            ("billing", billing.get(str(table.billing_mode), str(table.billing_mode))),
            ("expiry", _words(table.ttl_attribute, table.ttl_status)),
            ("index", _words(table.index_name, f"on {' + '.join(table.index_key or ())}", table.index_status)),
            *([("stream", f"{table.stream_view}, {table.stream_arn}")] if table.stream_arn else ()),
            ("size", f"{table.item_count:,} items, {table.size_bytes:,} bytes"),
        ]
    if table.problem is not None:
        rows.append(("problem", table.problem))
    return [table.name, *aligned(rows, left=(0, 1), indent=2)]


def _words(name: str | None, *more: str | None) -> str:
    """What there is of something and how it stands, ``none`` if it is not there."""
    return ", ".join([name, *filter(None, more)]) if name else "none"


# -- delete


def run_delete(args: argparse.Namespace, clock: Clock) -> int:
    """Delete the tables, once that is confirmed."""
    from ..stores.tables import delete_tables, describe_tables  # noqa: PLC0415

    with _connected(args) as place:
        found = [state for state in describe_tables(place.client, place.prefix) if state.status != "MISSING"]
        if found and not args.yes:
            _confirm(place, found)
        deleted = delete_tables(place.client, place.prefix) if found else ()
    kept = [state.name for state in found if state.name not in deleted]
    if args.json:
        print(json.dumps({**place.as_json(), "deleted": deleted, "kept": kept}, indent=2))
    elif not found:
        print(f"There are no tables of prefix {place.prefix!r} in {place.text}.")
    else:
        print(f"Tables in {place.text}:")
        for line in aligned([(state.name, "kept" if state.name in kept else "deleted") for state in found], indent=2):
            print(line)
    if kept:
        note(f"kept, for they have other keys: they are another program's: {', '.join(kept)}")
    return DONE


def _confirm(place: _Place, found: "list[TableState]") -> None:
    """List what would be deleted and ask. Raises ConfigError unless the answer is the prefix."""
    if not sys.stdin.isatty():
        raise ConfigError("tables delete: there is no terminal to ask on; add --yes to delete without being asked")
    expected = place.prefix or "delete"
    print(f"These tables in {place.text}, and all they hold, will be deleted:", file=sys.stderr)
    rows = [(state.name, f"{state.item_count:,} items", state.purpose) for state in found]
    print("\n".join(aligned(rows, left=(0, 2), indent=2)), file=sys.stderr)
    print(f"Type {expected} to delete them: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != expected:
        raise ConfigError("tables delete: not confirmed; nothing was deleted")


# -- the client


@contextmanager
def _connected(args: argparse.Namespace) -> Generator[_Place]:
    """The place that the store's URL names. Raises ConfigError if it is no DynamoDB store."""
    from ..stores import DynamoDBStore, open_store  # noqa: PLC0415
    from ..stores.tables import DEFAULT_PREFIX  # noqa: PLC0415

    url = store_url(args.store)
    store = open_store(url)
    if not isinstance(store, DynamoDBStore):
        raise ConfigError(
            f"--store: {url} needs no tables: it makes what it needs on first use. "
            "For those of DynamoDB give --store 'dynamodb://?region=us-east-1'"
        )
    named = dict(parse_qsl(store.url.partition("?")[2], keep_blank_values=True))
    prefix = named.get("prefix", DEFAULT_PREFIX)
    client = _client(named.get("region"), named.get("endpoint_url"), prefix, store.url)
    try:
        yield _Place(client, prefix, store.url)
    finally:
        client.close()


def _client(region: str | None, endpoint_url: str | None, prefix: str, url: str) -> Any:
    """A client with more patience than a store's: creating a table is slower than reading an item."""
    import boto3.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    from ..stores.dynamodb_errors import store_error  # noqa: PLC0415

    config = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 4, "mode": "standard"})
    session: Any = boto3.session.Session()
    try:
        return session.client("dynamodb", region_name=region, endpoint_url=endpoint_url, config=config)
    except Exception as exc:  # no region, no such profile
        raise store_error(exc, "DescribeTable", f"{prefix}*", region or "the default region", url) from exc

"""A Cost and Usage Report: CSV (``.csv``, ``.csv.gz``) or Parquet, of the first or the second version.

The versions name the same columns differently (``lineItem/UsageType``, ``line_item_usage_type``), so names are compared
without their punctuation. Parquet needs the extra ``parquet``.
"""

import csv
import gzip
import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from ..core.errors import ConfigError
from ..core.money import PICO_PER_USD
from .names import OTHER, ModelNames, kind_of, tokens_of
from .records import COST, Bill, Range, Reading

KINDS = frozenset({"input", "output", "cache_read", "cache_write_5m", "cache_write_1h", COST})

#: Line items that are use: not tax, credits, refunds and fees.
_USE = frozenset({"Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"})
_NEEDED = ("lineitemusagetype", "lineitemusageamount", "lineitemunblendedcost", "lineitemusagestartdate")
_FEW = 2_000

Line = Mapping[str, Any]


def read_cost_report(path: str, days: Range, names: ModelNames) -> Reading:
    """What a report says of Bedrock on these days. Raises ConfigError for a file that is no report."""
    first, last = days.utc_dates()
    bill = Bill()
    for number, line in enumerate(_lines(path), 1):
        if not _is_bedrock(line) or line.get("lineitemlineitemtype", "Usage") not in _USE:
            continue
        try:
            begins = _time(line["lineitemusagestartdate"])
            ends = _end(line, begins)
            amount = Decimal(str(line["lineitemusageamount"]))
            cost = Decimal(str(line["lineitemunblendedcost"]))
        except (ValueError, InvalidOperation) as exc:
            raise ConfigError(f"--cur: {path}, line item {number}: has a value that cannot be read ({exc})") from exc
        if first <= begins.date() <= last:
            add_use(
                bill,
                (begins, ends),
                names.of_line(_product(line), line["lineitemusagetype"], str(line.get("lineitemresourceid") or "")),
                line["lineitemusagetype"],
                amount,
                str(line.get("pricingunit") or ""),
                cost,
            )
    return Reading(f"the cost and usage report {path}", bill.records(), KINDS)


def add_use(
    bill: Bill,
    time: tuple[datetime, datetime],
    model: str,
    usage_type: str,
    amount: Decimal,
    unit: str,
    cost_usd: Decimal,
) -> None:
    """Add a line of a bill: its tokens, if it is of tokens, and its cost."""
    kind = kind_of(usage_type)
    if kind != OTHER:
        bill.add(*time, model, kind, tokens_of(amount, unit, usage_type))
    bill.add(*time, model, COST, int((cost_usd * PICO_PER_USD).to_integral_value()))


def _lines(path: str) -> Iterator[Line]:
    if not os.path.isfile(path):
        raise ConfigError(f"--cur: there is no file {path!r}; give a .csv, .csv.gz or .parquet file of a report")
    rows = _parquet_rows(path) if path.endswith(".parquet") else _csv_rows(path)
    for number, row in enumerate(rows):
        line = {_squeezed(name): value for name, value in row.items()}
        if number == 0 and (missing := [name for name in _NEEDED if name not in line]):
            raise ConfigError(
                f"--cur: {path} lacks columns of a Cost and Usage Report: {', '.join(missing)} (punctuation left out); "
                f"it has {', '.join(sorted(line)[:8])}..."
            )
        yield line


def _csv_rows(path: str) -> Iterator[Mapping[str, Any]]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.endswith(".gz")
            else open(path, encoding="utf-8-sig", newline="")
        ) as file:
            for row in csv.DictReader(file):
                yield {name: value for name, value in row.items() if isinstance(name, str)}  # pyright: ignore[reportUnnecessaryIsInstance]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"--cur: {path} cannot be read as CSV ({exc})") from exc


def _parquet_rows(path: str) -> Iterator[Mapping[str, Any]]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as exc:
        raise ConfigError(
            f"--cur: {path} is Parquet, which takes the extra: pip install 'bedrock-budget[parquet]' (or give CSV)"
        ) from exc
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=_FEW):
            yield from cast("list[dict[str, Any]]", batch.to_pylist())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"--cur: {path} cannot be read as Parquet ({exc})") from exc


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_bedrock(line: Line) -> bool:
    return "bedrock" in f"{line.get('lineitemproductcode')} {_product(line)}".lower()


def _product(line: Line) -> str:
    """The name of what is billed: a column of its own, or a part of the second version's column ``product``."""
    for name in ("productservicename", "productproductname", "productname"):
        if line.get(name):
            return str(line[name])
    product: object = line.get("product")
    if isinstance(product, str) and product.startswith("{"):
        product = cast(object, json.loads(product))
    if isinstance(product, list):  # a map of Parquet
        product = dict(cast("list[tuple[str, object]]", product))
    if isinstance(product, dict):
        parts = cast("dict[str, object]", product)
        return str(parts.get("servicename") or parts.get("product_name") or "")
    return ""


def _time(value: object) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _end(line: Line, begins: datetime) -> datetime:
    """When a line ends; a day after its beginning where it does not say."""
    value = line.get("lineitemusageenddate") or str(line.get("identitytimeinterval") or "").partition("/")[2]
    ends = _time(value) if value else begins + timedelta(days=1)
    if ends.second == 59:  # some reports give the last second
        ends += timedelta(seconds=1)
    return max(ends, begins)

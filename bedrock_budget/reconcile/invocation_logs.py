"""Bedrock's model-invocation logs: JSON lines in ``.json.gz`` files, in a folder or in S3.

AWS writes ``AWSLogs/ACCOUNT/BedrockModelInvocationLogs/REGION/YYYY/MM/DD/HH/NAME.json.gz``, bodies of large calls in a
``data`` folder beside them. A file whose path has no date is read as well; a call that is in two files counts once.
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, cast

from ..core.errors import ConfigError
from .names import ModelNames
from .records import CACHE_WRITE, REQUESTS, Bill, Range, Reading

KINDS = frozenset({"input", "output", "cache_read", CACHE_WRITE, REQUESTS})

_S3 = re.compile(r"s3://([^/]+)/?(.*)")
_DATED = re.compile(r"/(\d{4})/(\d{2})/(\d{2})/\d{2}/[^/]+$")
_NAMES = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
_COUNTS = (
    ("input", "input", "inputTokenCount"),
    ("cache_read", "input", "cacheReadInputTokenCount"),
    (CACHE_WRITE, "input", "cacheWriteInputTokenCount"),
    ("output", "output", "outputTokenCount"),
)

#: A path and how to read the file.
_File = tuple[str, Callable[[], bytes]]


def read_invocation_logs(place: str, days: Range, names: ModelNames) -> Reading:
    """What the logs in a folder, or under an ``s3://bucket/prefix``, say of these days.

    Raises ConfigError if there are none, or for a file that is no such log.
    """
    first, last = days.utc_dates()
    files = _in_s3(place) if place.startswith("s3://") else _in_folder(place)
    bill = Bill()
    seen: set[int] = set()
    found = skipped = 0
    for path, read in files:
        if "/data/" in path or not path.endswith(_NAMES):
            continue
        found += 1
        written = _date_in(path)
        if written is not None and not first <= written <= last:
            continue
        for number, line in enumerate(_lines(path, read), 1):
            if line.strip():
                skipped += not _add(bill, _record(line, path, number), seen, names)
    if not found:
        raise ConfigError(
            f"--invocation-logs: no log files (NAME.json.gz) in {place}; give the folder or s3://bucket/prefix that "
            "model invocation logging writes to"
        )
    notes = (f"{skipped} entries of the logs are no calls of a model and are left out",) if skipped else ()
    return Reading(f"the invocation logs in {place}", bill.records(), KINDS, notes)


def _add(bill: Bill, record: dict[str, Any], seen: set[int], names: ModelNames) -> bool:
    """Add a call. False if the entry is none; a call that failed or was counted before adds nothing."""
    try:
        moment = datetime.fromisoformat(record["timestamp"])
        model = names.of_id(record["modelId"])
    except (KeyError, TypeError, ValueError):
        return False
    if moment.tzinfo is None:
        return False
    request_id = record.get("requestId")
    if request_id is not None:
        known = hash(str(request_id))
        if known in seen:
            return True
        seen.add(known)
    if record.get("errorCode") or record.get("operation") == "CountTokens":
        return True
    bill.add_at(moment, model, REQUESTS, 1)
    for kind, part, name in _COUNTS:
        side = record.get(part)
        count: object = cast("dict[str, object]", side).get(name) if isinstance(side, dict) else None
        if isinstance(count, int | float) and count > 0:
            bill.add_at(moment, model, kind, int(count))
    return True


def _record(line: bytes, path: str, number: int) -> dict[str, Any]:
    try:
        record: object = json.loads(line)
    except ValueError as exc:
        raise ConfigError(
            f"--invocation-logs: {path}, line {number}: is no JSON ({exc}); logs have a JSON object a line"
        ) from exc
    return cast("dict[str, Any]", record) if isinstance(record, dict) else {}


def _lines(path: str, read: Callable[[], bytes]) -> list[bytes]:
    data = read()
    if path.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as exc:
            raise ConfigError(f"--invocation-logs: {path}: is no complete gzip file ({exc})") from exc
    return data.splitlines()


def _date_in(path: str) -> date | None:
    """The UTC date of the hour that a path names."""
    match = _DATED.search(path)
    try:
        return date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        return None


def _in_folder(place: str) -> Iterator[_File]:
    if not os.path.isdir(place):
        raise ConfigError(f"--invocation-logs: {place!r} is no folder, and no s3://bucket/prefix")
    for path in sorted(Path(place).rglob("*")):
        if path.is_file():
            yield path.as_posix(), path.read_bytes


def _in_s3(place: str) -> Iterator[_File]:
    import boto3.session  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    match = _S3.fullmatch(place)
    if match is None:
        raise ConfigError(f"--invocation-logs: {place!r} names no bucket; give s3://bucket/prefix")
    bucket, prefix = match.groups()
    try:
        session: Any = boto3.session.Session()
        s3: Any = session.client("s3")
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for listed in page.get("Contents", ()):
                key = listed.get("Key", "")

                def read(key: str = key) -> bytes:
                    return cast(bytes, s3.get_object(Bucket=bucket, Key=key)["Body"].read())

                yield f"s3://{bucket}/{key}", read
    except (BotoCoreError, ClientError) as exc:
        raise ConfigError(
            f"--invocation-logs: {place} cannot be read: {exc} (it takes s3:ListBucket and s3:GetObject)"
        ) from exc

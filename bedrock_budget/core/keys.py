"""Ids, table keys and shards. Key patterns: the Price Keeper schema specification, "Table Schemas"."""

import math
import zlib
from datetime import UTC, datetime
from typing import NamedTuple

MAX_ID_LENGTH = 128

#: How many index partitions the keys written in one slot of an hour are spread over.
ACTIVE_BUCKETS = 8

#: The index tells in which slot of the hour a shard was last written. A change of slot costs two index write units, as
#: much as ten consistent readings of the shard, which is how often a pass a minute reads it in ten minutes.
SLOT_SECS = 600
_SLOTS = 3600 // SLOT_SECS

#: Ends the scope in which shadow enforcement counts.
SHADOW_SUFFIX = "#SHADOW"

#: Labels of that scope that no id can have: calls that would have gone to another label, and been refused.
SHADOW_MOVED, SHADOW_REFUSED = "#moved", "#refused"

#: A writer's name: ``w`` and ten URL-safe characters, so that no other attribute of a shard item looks like one.
WRITER_ID_LENGTH = 11


class UsageKey(NamedTuple):
    """What usage is counted by: a scope, a label and an org day (``YYYYMMDD``)."""

    scope: str
    label: str
    day: str


def id_problem(value: object) -> str | None:
    """What is wrong with an org id, app id or label, as the end of a sentence; None if nothing is."""
    if not isinstance(value, str):
        return f"must be text, got {type(value).__name__} {value!r}; put it in quotes"
    if not value:
        return "must not be empty"
    if len(value) > MAX_ID_LENGTH:
        return f"must have at most {MAX_ID_LENGTH} characters, got {len(value)}: {value[:20]!r}..."
    if "#" in value or any(_is_control(ord(char)) for char in value):
        return f"must not contain '#' or control characters, got {value!r}"
    return None


def _is_control(code: int) -> bool:
    # Half of a surrogate pair is no character: it cannot be written as UTF-8.
    return code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000


def app_id_problem(value: object) -> str | None:
    """As `id_problem`, for an app id: ``OVERRIDE#*`` pins a label for all apps, so none may be called ``*``."""
    return (
        "must not be '*', which stands for all apps; leave the app out to mean them"
        if value == "*"
        else id_problem(value)
    )


def scope_key(org_id: str, app_id: str | None) -> str:
    """The scope of an org's quotas (``app_id`` None) or of one app's."""
    return f"ORG#{org_id}" if app_id is None else f"ORG#{org_id}#APP#{app_id}"


def shadow_of(scope: str) -> str:
    """The scope in which shadow enforcement counts what would have been spent. No id has a ``#``."""
    return scope + SHADOW_SUFFIX


def date_key(day: str) -> str:
    return f"DAY#{day}"


def usage_key(scope: str, label: str) -> str:
    return f"{scope}#LABEL#{label}"


def shard_key(scope: str, label: str, shard: int) -> str:
    return f"{scope}#LABEL#{label}#SH#{shard}"


def parse_shard_key(key: str, date: str) -> tuple[UsageKey, int]:
    """The usage key and the shard number of a shard item's two keys. Raises ValueError if they are none."""
    usage, mark, shard = key.rpartition("#SH#")
    scope, label_mark, label = usage.rpartition("#LABEL#")
    if not (mark and label_mark and shard.isdigit() and date.startswith("DAY#")):
        raise ValueError(f"not the keys of a shard item: {key!r}, {date!r}")
    return UsageKey(scope, label, date.removeprefix("DAY#")), int(shard)


def _stable_hash(text: str) -> int:
    # Python's own hash() differs per process.
    return zlib.crc32(text.encode())


def shard_of(writer_id: str, shard_count: int) -> int:
    """The shard that a writer adds to: always the same one for one (scope, label, day)."""
    return _stable_hash(writer_id) % shard_count


def is_writer_id(name: str) -> bool:
    """Whether an attribute of a shard item is a writer's sequence number."""
    return len(name) == WRITER_ID_LENGTH and name[0] == "w"


def utc_hour(epoch: float) -> str:
    """The UTC hour of a time, ``YYYYMMDDHH``."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%d%H")


def recent_hours(epoch: float, count: int) -> list[str]:
    """The last ``count`` UTC hours up to the one of ``epoch``, newest first."""
    return [utc_hour(epoch - 3600 * back) for back in range(count)]


def active_key(hour: str, bucket: int) -> str:
    """The index partition of what was written in a UTC hour."""
    return f"ACTIVE#{hour}#{bucket}"


def active_bucket(key: str) -> int:
    """The index bucket of a shard key, in its slot."""
    return _stable_hash(key) % ACTIVE_BUCKETS


def active_partition(epoch: float, key: str) -> str:
    """The index partition of a shard key written at this time."""
    slot = int(epoch % 3600) // SLOT_SECS
    return active_key(utc_hour(epoch), ACTIVE_BUCKETS * (1 + slot) + active_bucket(key))


def active_partitions(hour: str, since_epoch: float = -math.inf, until_epoch: float = math.inf) -> list[str]:
    """The index partitions that list what was last written in a UTC hour, between two times if they are given."""
    begins = datetime.strptime(f"{hour}+0000", "%Y%m%d%H%z").timestamp()
    buckets = list(range(ACTIVE_BUCKETS))  # of no slot: what a program wrote that knows none
    for slot in range(_SLOTS):
        start = begins + slot * SLOT_SECS
        if start + SLOT_SECS > since_epoch and start <= until_epoch:
            buckets += range(ACTIVE_BUCKETS * (1 + slot), ACTIVE_BUCKETS * (2 + slot))
    return [active_key(hour, bucket) for bucket in buckets]

"""The journal's format: a segment is a file of lines, one record each: ``crc32 json``.

The JSON is a list whose first element says what it is:

- ``V`` version, store, writer id, sequence number: who writes this segment, and the last number given before it.
- ``U`` usage of one settled call: key, shard count, cost, tokens, the service's request id (null if none came).
- ``S`` usage not in a batch when the segment began: key, shard count, cost, tokens, settled calls.
- ``B`` a batch: key, shard count, writer id, sequence number, shard, cost, tokens, settled calls; then, where it takes
  the place of a batch that the store refused, that one's writer id and sequence number. Covers all usage of its key
  that stands before it.
- ``A`` writer id, sequence number: the store has this batch.

Under strict enforcement also (see `core.holds`):

- ``L`` a slice when the segment began: key, holder id, sequence number, quota, when it expires, granted, held.
- ``G`` a grant: key, holder id, sequence number, change, quota (null: none), spent before, when it expires.
- ``K`` holder id, sequence number, 1 if it was applied: the store's answer to this grant.
- ``H`` the worst case of a call, and the holder ids of the slices that it is held out of: before the call is sent.
- ``R`` that worst case, what counts as spent, and the holder ids: the call is settled.

Costs are pico-USD, tokens in the order of `Usage`. A line whose checksum is wrong is torn: it was being written when
the process or the machine stopped.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from ..core.account import Amounts, Batch
from ..core.holds import Grant, Slice
from ..core.keys import UsageKey
from ..core.usage import Usage

VERSION = 1


class HeaderRecord(NamedTuple):
    """The first record of a segment. ``store``: the URL of the store that the usage belongs to."""

    version: int
    store: str
    writer_id: str
    sequence: int


class UsageRecord(NamedTuple):
    """One settled call. ``request_id``: the service's, None where it did not answer."""

    key: UsageKey
    shard_count: int
    cost_pico_usd: int
    usage: Usage
    request_id: str | None


class SumRecord(NamedTuple):
    """What was not in a batch yet when its segment began."""

    key: UsageKey
    shard_count: int
    amounts: Amounts


class BatchRecord(NamedTuple):
    """A batch, before it is sent for the first time. ``replaces``: writer id and sequence number of a refused one."""

    batch: Batch
    replaces: tuple[str, int] | None


class AckRecord(NamedTuple):
    """The store has this batch."""

    writer_id: str
    sequence: int


class SliceRecord(NamedTuple):
    """A slice when its segment began."""

    key: UsageKey
    holder_id: str
    sequence: int
    quota_pico_usd: int
    expires_at_epoch: int
    granted_pico_usd: int
    held_pico_usd: int

    @classmethod
    def of(cls, share: Slice) -> "SliceRecord":
        # What is being returned is told by the record of the grant in flight, which follows.
        granted = share.granted - (min(share.in_flight.change_pico_usd, 0) if share.in_flight else 0)
        return cls(
            *(share.key, share.holder_id, share.sequence, share.quota),
            *(share.expires_at_epoch, granted, share.held),
        )

    def slice(self) -> Slice:
        """The slice as it was."""
        share = Slice(self.key, self.holder_id, self.quota_pico_usd, self.expires_at_epoch)
        share.sequence, share.granted, share.held = self.sequence, self.granted_pico_usd, self.held_pico_usd
        return share


class GrantRecord(NamedTuple):
    """A grant, before it is sent for the first time."""

    grant: Grant


class GrantedRecord(NamedTuple):
    """The store's answer to a grant."""

    holder_id: str
    sequence: int
    applied: bool


class HoldRecord(NamedTuple):
    """The worst case of a call, set aside before it is sent."""

    worst_case_pico_usd: int
    holder_ids: tuple[str, ...]


class SettledRecord(NamedTuple):
    """A call that was held has cost ``charge_pico_usd``."""

    worst_case_pico_usd: int
    charge_pico_usd: int
    holder_ids: tuple[str, ...]


Record = (
    HeaderRecord
    | UsageRecord
    | SumRecord
    | BatchRecord
    | AckRecord
    | SliceRecord
    | GrantRecord
    | GrantedRecord
    | HoldRecord
    | SettledRecord
)


class Segment(NamedTuple):
    """What a segment holds. ``torn``: lines that cannot be read."""

    records: list[Record]
    torn: int


def encode_usage(key: UsageKey, shard_count: int, cost_pico_usd: int, usage: Usage, request_id: str | None) -> bytes:
    """The line of a `UsageRecord`."""
    return _line(["U", *key, shard_count, cost_pico_usd, *usage, request_id])


def encode(record: Record) -> bytes:
    """The line of a record."""
    match record:
        case HeaderRecord():
            return _line(["V", *record])
        case UsageRecord():
            return encode_usage(*record)
        case SumRecord(key, shard_count, amounts):
            return _line(["S", *key, shard_count, *_flat(amounts)])
        case BatchRecord(batch, replaces):
            numbered = (batch.writer_id, batch.sequence, batch.shard)
            return _line(["B", *batch.key, batch.shard_count, *numbered, *_flat(batch.amounts), *(replaces or ())])
        case AckRecord():
            return _line(["A", *record])
        case SliceRecord(key):
            return _line(["L", *key, *record[1:]])
        case GrantRecord(grant):
            return _line(["G", *grant.key, *grant[1:]])
        case GrantedRecord():
            return _line(["K", record.holder_id, record.sequence, int(record.applied)])
        case HoldRecord(worst_case, holder_ids):
            return _line(["H", worst_case, *holder_ids])
        case SettledRecord(worst_case, charge, holder_ids):
            return _line(["R", worst_case, charge, *holder_ids])


def decode(line: bytes) -> Record:
    """The record of a line. Raises ValueError for one that is torn or of another format."""
    checksum, text = line[:8], line[9:-1]
    if line != b"%b %b\n" % (checksum, text) or checksum != b"%08x" % crc32(text):
        raise ValueError("torn")
    kind, *fields = json.loads(text)
    match kind:
        case "V":
            return HeaderRecord(*fields)
        case "U":
            return UsageRecord(UsageKey(*fields[:3]), fields[3], fields[4], Usage(*fields[5:10]), fields[10])
        case "S":
            return SumRecord(UsageKey(*fields[:3]), fields[3], _amounts(fields[4:]))
        case "B":
            key, (shard_count, writer_id, sequence, shard) = UsageKey(*fields[:3]), fields[3:7]
            batch = Batch(key, writer_id, sequence, shard, shard_count, _amounts(fields[7:14]))
            return BatchRecord(batch, (fields[14], fields[15]) if len(fields) > 14 else None)
        case "A":
            return AckRecord(*fields)
        case "L":
            return SliceRecord(UsageKey(*fields[:3]), *fields[3:])
        case "G":
            return GrantRecord(Grant(UsageKey(*fields[:3]), *fields[3:]))
        case "K":
            return GrantedRecord(fields[0], fields[1], bool(fields[2]))
        case "H":
            return HoldRecord(fields[0], tuple(fields[1:]))
        case "R":
            return SettledRecord(fields[0], fields[1], tuple(fields[2:]))
        case _:
            raise ValueError(f"a record of kind {kind!r}: written by a later version")


def read_segment(path: Path) -> Segment:
    """All that can be read of a segment, in order. Raises OSError."""
    records: list[Record] = []
    torn = 0
    with path.open("rb") as file:
        for line in file:
            try:
                records.append(decode(line))
            except (ValueError, TypeError, IndexError, RecursionError):
                torn += 1
    return Segment(records, torn)


def _line(fields: list[Any]) -> bytes:
    text = _dumps(fields).encode()
    return b"%08x %s\n" % (crc32(text), text)


_dumps = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def _flat(amounts: Amounts) -> tuple[int, ...]:
    return (amounts.cost_pico_usd, *amounts.usage, amounts.requests)


def _amounts(fields: list[int]) -> Amounts:
    cost, *tokens, requests = fields
    return Amounts(cost, Usage(*tokens), requests)

"""Batches of the DynamoDB stream of ``UsageAggSharded``: daily totals a moment after the write, and none for idle keys.

A record says that a shard changed and what the item holds since (its new image); it is never taken for an addition.
The keys of a batch are summed by consistent reads, made after the changes that the records tell of. So records that
come twice, late or in another order change nothing, and a batch that failed can be repeated from any place.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from .clock import Clock
from .core.account import ZERO, Amounts
from .core.errors import StoreError
from .core.keys import UsageKey, parse_shard_key
from .stores import dynamodb_items as items
from .stores.contract import UnreadableItem
from .summing import Summing, higher

log = logging.getLogger("bedrock_budget.aggregator")


class _Change(NamedTuple):
    """What a record says of a shard. ``held``: what it held then, None if the stream carries no images."""

    key: UsageKey
    shard: int
    shard_count: int
    held: Amounts | None
    sequence_number: str | None
    at_epoch: float | None


def sum_records(records: Sequence[object], summing: Summing, clock: Clock) -> list[str]:
    """Bring the daily totals of the keys that these records name up to date.

    Returns the sequence numbers of the records whose totals could not be written, in order: repeat from the first. A
    record that can never be read is logged and left out, for a stream does not move past a record that fails; so is a
    key with an item that cannot be read, whose correction is a new record. Raises StoreError for a failed record
    without a number.
    """
    changes = [change for record in records if (change := _read(record))]
    keys: dict[UsageKey, int] = {}
    for change in changes:
        keys[change.key] = max(keys.get(change.key, 0), change.shard_count)
    sums = summing.sum_all(keys, _held(changes))
    summing.forget_all_but(())
    failed: set[UsageKey] = set()
    for key, exc in sums.failures.items():
        if isinstance(exc, UnreadableItem):
            log.error("no daily total of %s until this is mended: %s", key, exc)
        else:
            failed.add(key)
    times = [change.at_epoch for change in changes if change.at_epoch is not None]
    log.log(
        logging.WARNING if failed else logging.INFO,
        "%d records, %d keys, %d totals written, %d keys failed, lag up to %s s",
        *(len(records), len(keys), sums.totals_written, len(failed)),
        f"{clock.now().timestamp() - min(times):.1f}" if times else "?",
    )
    numbers = {change.sequence_number for change in changes if change.key in failed}
    if None in numbers:
        raise StoreError("records without a sequence number could not be summed; repeat the batch")
    return sorted((number for number in numbers if number is not None), key=_place)


def _held(changes: Sequence[_Change]) -> dict[UsageKey, Amounts]:
    """What the shards of each key add up to at least: a shard never goes down, so what an image held is in it for
    good."""
    shards: dict[tuple[UsageKey, int], Amounts] = {}
    for change in changes:
        if change.held is not None:
            place = (change.key, change.shard)
            shards[place] = higher(shards.get(place, change.held), change.held)
    keys: dict[UsageKey, Amounts] = {}
    for (key, _), held in shards.items():
        keys[key] = keys.get(key, ZERO).plus(held)
    return keys


def _place(sequence_number: str) -> tuple[int, str]:
    """Where a record stands in its stream: the numbers are whole, of up to 40 digits."""
    return (int(sequence_number) if sequence_number.isdecimal() else 0, sequence_number)


def _read(record: Any) -> _Change | None:
    """The change that a record tells of. None for an item's end, for totals do not go down, and for a record that
    cannot be read, which is logged."""
    try:
        if record["eventName"] == "REMOVE":
            return None
        change = record["dynamodb"]
        key, shard = parse_shard_key(change["Keys"]["shard_key"]["S"], change["Keys"]["date_key"]["S"])
        image = change.get("NewImage")
        held = None if image is None else items.counters(image)
        at = change.get("ApproximateCreationDateTime")
        return _Change(
            *(key, shard, max(shard + 1, items.shard_count(image)), held),
            change.get("SequenceNumber"),
            float(at) if isinstance(at, int | float) else None,
        )
    except (LookupError, ValueError, ArithmeticError, TypeError, AttributeError) as exc:
        log.error("a record of the stream cannot be read and is left out (%r): %.400r", exc, _names(record))
        return None


def _names(record: Any) -> Any:
    """What tells an unreadable record from others, without the values of its item."""
    try:
        return {name: record["dynamodb"].get(name) for name in ("Keys", "SequenceNumber")}
    except (LookupError, TypeError, AttributeError):
        return f"a {type(record).__name__}"

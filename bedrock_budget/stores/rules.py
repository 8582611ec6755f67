"""What every store checks and compares alike."""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from ..core.account import Batch
from ..core.errors import ConfigError
from ..core.holds import Grant, Granted
from ..core.keys import UsageKey, is_writer_id
from .contract import DailyTotal, SequenceConflict, Sticky, Stop

#: Attributes of a Config item that are the store's own; Config items do not expire.
RESERVED = frozenset({"org_key", "resource_key", "expires_at_epoch"})

#: ``OVERRIDE#*`` and ``STOP#*`` are for all apps of an org, so no app may have this id.
ALL_APPS = "*"

#: DynamoDB numbers: up to 38 digits, magnitude from 1e-130 to just below 1e126.
_MAX_WHOLE = 10**38
_MAX_FLOAT = 1e125
_MIN_FLOAT = 1e-129

_logger = logging.getLogger(__name__)


def check_batch(batch: Batch) -> None:
    """Raises ValueError for a batch that no store could count right."""
    if not is_writer_id(batch.writer_id):
        raise ValueError(f"a writer id is 'w' and ten URL-safe characters, got {batch.writer_id!r}")
    if batch.sequence < 1:
        raise ValueError(f"sequence numbers start at 1, got {batch.sequence}")
    if not 0 <= batch.shard < batch.shard_count:
        raise ValueError(f"shard {batch.shard} is not one of {batch.shard_count}")
    amounts = batch.amounts
    if amounts.cost_pico_usd < 0 or amounts.requests < 0 or min(amounts.usage) < 0:
        raise ValueError(f"amounts must not be negative, got {amounts}")


def check_grant(grant: Grant) -> None:
    """Raises ValueError for a grant that no store could apply right."""
    if not is_writer_id(grant.holder_id):
        raise ValueError(f"a holder id is 'w' and ten URL-safe characters, got {grant.holder_id!r}")
    if grant.sequence < 1:
        raise ValueError(f"sequence numbers start at 1, got {grant.sequence}")
    if grant.spent_pico_usd < 0:
        raise ValueError(f"what was spent must not be negative, got {grant.spent_pico_usd}")


def judge(grant: Grant, granted_pico_usd: int | None, sequence: int) -> Granted:
    """What becomes of a grant where so much is granted (None: no pool yet) and the last grant of its holder had this
    sequence number. Applied with a higher number than ``sequence``: it has to be written.

    Raises SequenceConflict if a later grant of the holder was applied.
    """
    if sequence > grant.sequence:
        raise SequenceConflict(
            f"grant {grant.sequence} of holder {grant.holder_id} for {grant.key} came after grant {sequence}"
        )
    if sequence == grant.sequence:
        return Granted(True, granted_pico_usd or 0)
    if granted_pico_usd is None and grant.change_pico_usd <= 0:
        return Granted(False, 0)
    before = grant.spent_pico_usd if granted_pico_usd is None else granted_pico_usd
    fits = grant.fits(before)
    return Granted(fits, before + grant.change_pico_usd if fits else before)


def expired(expires_at_epoch: float, now_epoch: float) -> bool:
    """Whether an item is no longer there for readers."""
    return expires_at_epoch <= now_epoch


def moves_forward(standing: Sticky | None, new: Sticky) -> bool:
    """Whether a sticky state takes the place of the standing one. "Now" is when the new one was activated."""
    return (
        standing is None
        or standing.position < new.position
        or expired(standing.expires_at_epoch, new.activated_at_epoch)
    )


def stop_in_force(stops: Iterable[Stop], now_epoch: float) -> Stop | None:
    """Of the stops that are in force the one that lasts longest: when it is over, so are the others. The first of
    equals; None if none is in force."""
    return max((stop for stop in stops if not stop_is_over(stop, now_epoch)), key=_end_of, default=None)


def stop_is_over(stop: Stop, now_epoch: float) -> bool:
    """Whether a stop has ended by itself."""
    return expired(_end_of(stop), now_epoch)


def _end_of(stop: Stop) -> float:
    return math.inf if stop.expires_at_epoch is None else stop.expires_at_epoch


def takes_place_of(standing: DailyTotal | None, new: DailyTotal) -> bool:
    """Whether a daily total is at least as high as the standing one. Both sums only grow; requests tell passes apart
    that cost nothing (tracked models without a price)."""
    return standing is None or (
        (standing.amounts.cost_pico_usd, standing.amounts.requests) <= (new.amounts.cost_pico_usd, new.amounts.requests)
    )


class MismatchLog:
    """Warns once per usage key whose shards were written under more shards than a reader asks for."""

    #: Forget and warn again beyond this many keys, so that a long-lived process does not collect keys of past days.
    MAX_KEYS = 1024

    def __init__(self) -> None:
        self._warned: set[UsageKey] = set()

    def note(self, key: UsageKey, asked: int, found: int) -> None:
        """Log the mismatch unless that was done."""
        if found <= asked or key in self._warned:
            return
        if len(self._warned) >= self.MAX_KEYS:
            self._warned.clear()
        self._warned.add(key)
        _logger.warning(
            "%s label %s day %s was written under %d shards, this process is configured for %d; reading all %d. "
            "Set agg_shard_count to the same number everywhere.",
            *(key.scope, key.label, key.day, found, asked, found),
        )


def check_app(app_id: str | None) -> None:
    """Raises ConfigError for an app id that means something else in the key of an override or stop."""
    if app_id == ALL_APPS:
        raise ConfigError(f"app id {app_id!r} stands for all apps of an org; leave the app out to mean them")


def plain_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a Config item in plain values that every store gives back equal.

    Raises ConfigError naming the place and the value of anything else, and for the store's own attributes.
    """
    reserved = RESERVED & item.keys()
    if reserved:
        raise ConfigError(f"{', '.join(sorted(reserved))}: set by the store itself; leave it out of the item")
    return {name: _plain(value, str(name)) for name, value in _text_keys(item, "the item").items()}


def _text_keys(value: Mapping[Any, object], path: str) -> Mapping[str, object]:
    for name in value:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{path}: a key must be text and not empty, got {name!r}")
    return cast("Mapping[str, object]", value)


def _plain(value: object, path: str) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if abs(value) < _MAX_WHOLE:
            return value
        raise ConfigError(f"{path}: a whole number has at most 38 digits, got {value!r}")
    if isinstance(value, float):
        if value == 0.0 or (math.isfinite(value) and _MIN_FLOAT < abs(value) < _MAX_FLOAT):
            return int(value) if value.is_integer() and abs(value) < _MAX_WHOLE else value
        raise ConfigError(f"{path}: not a number that can be stored: {value!r}")
    if isinstance(value, Mapping):
        mapping = _text_keys(cast("Mapping[object, object]", value), path)
        return {name: _plain(inner, f"{path}.{name}") for name, inner in mapping.items()}
    if isinstance(value, list | tuple):
        items = cast("list[object]", value)
        return [_plain(inner, f"{path}[{place}]") for place, inner in enumerate(items)]
    raise ConfigError(
        f"{path}: only text, numbers, booleans, null, lists and maps can be stored, got {type(value).__name__}"
    )

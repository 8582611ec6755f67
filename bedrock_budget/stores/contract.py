"""What a store promises. One suite (`tests/stores/test_contract.py`) holds every store to it.

Common to all methods:

- *Amounts* are exact: pico-USD and whole tokens go in and come out unchanged.
- *Errors*: anything that is not a definite answer raises `StoreError` with its cause; it is never read as zero or as
  "nothing there". `StoreSetupError` says that an operator has to act first (tables missing, no permission).
  Waiting is bounded by the store's own time-outs.
- *Threads and processes*: every method may be called by any number at once. After a fork the child may go on using
  the same object.
- *Expiry*: items whose ``expires_at_epoch`` has passed are not there for readers, deleted or not.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..core.account import Amounts, Batch
from ..core.cached_prices import CachedPrices, PriceKey
from ..core.errors import StoreError
from ..core.holds import Grant, Granted
from ..core.keys import UsageKey


class StoreSetupError(StoreError):
    """The store is not ready for use and will not become so by itself; the message names the remedy."""


class SequenceConflict(StoreError):
    """The item carries a higher sequence number of the batch's writer: another program uses the same writer id."""


class UnreadableItem(StoreError):
    """An item is not what the specification says. It stays unreadable until somebody corrects or deletes it."""


class ShardSum(NamedTuple):
    """The shards of one usage key, summed. ``shard_count``: the largest that a shard says it was written under, at
    least the one asked for. ``writer_sequence``: the asking writer's last applied sequence number, 0 if none."""

    amounts: Amounts
    writer_sequence: int
    shard_count: int


class DailyTotal(NamedTuple):
    """A consolidated sum of shards. ``updated_at_epoch``: when the pass that wrote it *began* to read."""

    amounts: Amounts
    updated_at_epoch: int


class Sticky(NamedTuple):
    """The label a scope has fallen back to for the rest of the day, and its place in the ordering."""

    label: str
    position: int
    reason: str
    previous_label: str
    activated_at_epoch: int
    expires_at_epoch: int


class Override(NamedTuple):
    """A label that an operator pinned for an org (all its apps) or one app."""

    label: str
    reason: str
    created_by: str
    created_at_epoch: int
    expires_at_epoch: int


class Stop(NamedTuple):
    """An order that no call of an app (``app_id`` None: of any app of the org) may go out.

    ``expires_at_epoch`` None: until it is lifted.
    """

    app_id: str | None
    stopped_by: str
    reason: str
    stopped_at_epoch: int
    expires_at_epoch: int | None


class Profile(NamedTuple):
    """An inference profile registered under a label, for an app or for all of the org's (``app_id`` None).

    ``created_at_epoch``: when the label was first registered there.
    """

    app_id: str | None
    label: str
    arn: str
    description: str
    created_at_epoch: int
    updated_at_epoch: int


class Controls(NamedTuple):
    """What operators and other processes have decided for a scope."""

    org_item: Mapping[str, Any] | None
    app_item: Mapping[str, Any] | None
    override: Override | None
    sticky: Sticky | None
    stop: Stop | None = None


class Store(ABC):
    """Counters, totals, sticky state and configuration that all processes share."""

    #: How many requests are worth having under way at once.
    parallel_requests: int = 1

    @property
    def url(self) -> str:
        """What tells this store from others, for journals: its URL, or the name of its class."""
        return type(self).__name__

    @abstractmethod
    def write_batch(self, batch: Batch, *, now_epoch: float) -> None:
        """Add a batch's amounts to its shard.

        Outcome: on return they are in the shard, durably. Atomic: all of them or none.
        Idempotent: the same batch (writer and sequence number) again changes nothing and returns; so does a lost
        reply repeated, by us or by the SDK. Ordering: batches of one writer to one item come with rising sequence
        numbers, one at a time. Marks the key as active in ``now_epoch``'s UTC hour.
        Raises SequenceConflict if the item has a higher number of this writer (nothing is added), StoreError if the
        outcome is unknown or the write failed: repeat the same batch.
        """

    def write_once(self, batch: Batch, *, now_epoch: float) -> None:
        """As `write_batch`, for writers that are many and short-lived: may leave nothing of the writer in the item.

        Idempotent only for 10 minutes from the first attempt, and only with the same ``now_epoch``; whoever does not
        know the outcome by then must not repeat it. Raises StoreError, and SequenceConflict if it is `write_batch`.
        """
        self.write_batch(batch, now_epoch=now_epoch)

    @abstractmethod
    def read_shards(self, keys: Mapping[UsageKey, int], *, writer_id: str | None = None) -> Mapping[UsageKey, ShardSum]:
        """The strongly consistent sums of the shards of each key (all keys are in the answer, zero where nothing was
        written). ``keys`` says under how many shards each is written; where an item says more, all are read.
        Atomic per shard, not over shards: every write acknowledged before the call is in its sum.
        """

    @abstractmethod
    def read_totals(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, DailyTotal]:
        """The daily totals of those keys that have one. May be a little old."""

    @abstractmethod
    def write_total(self, key: UsageKey, total: DailyTotal) -> bool:
        """Put a daily total in place of a lower or equal one. False: a higher one stands there and stays.
        Atomic; idempotent; any number of writers in any order leave the highest."""

    @abstractmethod
    def active_keys(self, hours: Iterable[str]) -> Mapping[UsageKey, int]:
        """The usage keys written in these UTC hours (``YYYYMMDDHH``) and since written in no other, each with the
        highest shard number seen plus one. May lack writes of the last seconds."""

    def active_keys_since(
        self, hours: Sequence[str], *, since_epoch: float, now_epoch: float
    ) -> Mapping[UsageKey, int]:
        """As `active_keys`; may leave out keys last written before ``since_epoch`` by the writers' clocks, which may be
        two minutes ahead of ``now_epoch``."""
        return self.active_keys(hours)

    @abstractmethod
    def read_controls(
        self, org_id: str, app_id: str | None, *, scope: str, day: str, now_epoch: float, consistent: bool = False
    ) -> Controls:
        """The org's and app's Config items, the override in force (the app's before the org's), the sticky state, and
        the stop in force: of the org's and the app's the one that lasts longer. May be a little old, unless
        ``consistent`` asks for what is there now."""

    @abstractmethod
    def advance_sticky(self, scope: str, day: str, sticky: Sticky) -> Sticky:
        """Move the sticky state forward. Returns the one in force afterwards: this one, or that of a writer who was
        as far or further (strongly consistent). Atomic; idempotent; never moves backward."""

    @abstractmethod
    def clear_sticky(self, scope: str, day: str) -> None:
        """Forget the day's sticky state. Idempotent."""

    @abstractmethod
    def put_override(self, org_id: str, app_id: str | None, override: Override) -> None:
        """Pin a label for an app, or for all of the org's (``app_id`` None), in place of an earlier pin."""

    @abstractmethod
    def clear_override(self, org_id: str, app_id: str | None) -> bool:
        """Remove a pin. False: there was none. Idempotent."""

    @abstractmethod
    def put_stop(self, org_id: str, stop: Stop) -> None:
        """Stop an app or org, in place of an earlier stop of the same. Idempotent. What is remembered of automatic
        stops stays."""

    @abstractmethod
    def put_automatic_stop(self, org_id: str, stop: Stop, *, day: str) -> Stop | None:
        """Stop an app or org that has spent too much, once per org day ``day``; "now" is when it was stopped.

        Returns the stop of the same app or org in force afterwards (strongly consistent): this one, or the standing
        one, which it leaves alone. None: an automatic stop of that day has been lifted, or is over; nothing changes.
        Atomic; idempotent.
        """

    @abstractmethod
    def lift_stop(self, org_id: str, app_id: str | None, *, lifted_by: str, now_epoch: int) -> Stop | None:
        """Lift the stop of an app, or the org's (``app_id`` None). Returns it; None: none was in force. Atomic;
        idempotent: the same arguments again return the same stop."""

    @abstractmethod
    def stops(self, org_id: str, *, now_epoch: float) -> list[Stop]:
        """All stops in force of an org and its apps, the org's own first, then by app id. Strongly consistent."""

    @abstractmethod
    def put_config(self, org_id: str, app_id: str | None, item: Mapping[str, Any]) -> None:
        """Replace an org's (``app_id`` None) or app's Config item: plain text, numbers, booleans, lists, maps."""

    # -- registered inference profiles; a store without them has none

    def put_profile(self, org_id: str, profile: Profile) -> None:
        """Register a profile, in place of an earlier one of the same app and label, whose ``created_at_epoch`` stays.
        Idempotent."""
        raise StoreSetupError(f"{type(self).__name__} has no put_profile, so no inference profile can be registered")

    def remove_profile(self, org_id: str, app_id: str | None, label: str) -> bool:
        """Forget a profile of an app, or the org's (``app_id`` None). False: there was none. Idempotent."""
        return False

    def profiles(self, org_id: str, app_id: str | None) -> list[Profile]:
        """The profiles of an org, by label, then those of the app, by label. May be a little old."""
        return []

    # -- strict enforcement; a store without it serves the other modes

    def write_grant(self, grant: Grant, *, once: bool = False) -> Granted:
        """Change what is granted of a quota, unless that would bring it above the quota.

        Atomic; idempotent: the same grant (holder and sequence number) again changes nothing and says what became of
        it, though one that was refused may be applied when it is repeated. Where nothing is granted yet that day,
        ``grant.spent_pico_usd`` counts as granted; but a grant that takes nothing opens no pool and is not applied.
        ``once``: may leave nothing of the holder in the item; then idempotent for 10 minutes only.
        Raises SequenceConflict if a later grant of this holder was applied, StoreError if the outcome is unknown:
        repeat the same grant.
        """
        raise StoreSetupError(f"{type(self).__name__} has no write_grant, which enforcement 'strict' needs")

    def read_granted(self, keys: Collection[UsageKey]) -> Mapping[UsageKey, int]:
        """What is granted of these pools, in pico-USD, strongly consistent; those of which nothing ever was are left
        out."""
        raise StoreSetupError(f"{type(self).__name__} has no read_granted, which enforcement 'strict' needs")

    # -- prices that were fetched; a store without them leaves the bundled table

    def read_prices(self, keys: Collection[PriceKey], *, now_epoch: float) -> Mapping[PriceKey, CachedPrices]:
        """The cached prices of those keys that have some. May be a little old."""
        return {}

    def write_prices(self, prices: Sequence[CachedPrices]) -> None:
        """Put cached prices in place of those with the same keys, in this order. Idempotent: the same again changes
        nothing. Atomic for each key; StoreError: some may be written, repeat all."""
        raise StoreSetupError(f"{type(self).__name__} has no write_prices: it keeps no prices")

    @abstractmethod
    def app_ids(self, org_id: str) -> list[str]:
        """The apps of an org that have a Config item, sorted."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections. The store may be used again; it then opens new ones."""

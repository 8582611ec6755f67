"""What a dead process had been granted under strict enforcement, and giving back what it cannot have spent.

What was held for calls under way stays granted: nobody learns what they cost. A journal that had failed may know less
than happened since; its process then wrote its slices under higher sequence numbers, so that what goes out from here
is turned down.
"""

import logging
from collections.abc import Callable

from ..core.holds import Granted, Slice
from ..stores.contract import SequenceConflict, Store, StoreSetupError
from .records import GrantedRecord, GrantRecord, HoldRecord, Record, SettledRecord, SliceRecord

log = logging.getLogger("bedrock_budget")


class Slices:
    """The slices of a segment, by their holder ids."""

    def __init__(self) -> None:
        self._slices: dict[str, Slice] = {}

    def take(self, record: Record) -> bool:
        """Take in the next record of the segment, if it is about slices."""
        match record:
            case SliceRecord():
                self._slices[record.holder_id] = record.slice()
            case GrantRecord(grant):
                share = self._slices.get(grant.holder_id)
                if share is None:
                    share = Slice(grant.key, grant.holder_id, grant.quota_pico_usd or 0, grant.expires_at_epoch)
                    self._slices[grant.holder_id] = share
                if share.in_flight is None:  # else it was sent again
                    share.send(grant)
            case GrantedRecord(holder_id, sequence, applied):
                share = self._slices.get(holder_id)
                if share is not None and share.in_flight is not None and share.in_flight.sequence == sequence:
                    share.answered(Granted(applied, 0))
            case HoldRecord(worst_case, holder_ids):
                for holder_id in holder_ids:
                    if holder_id in self._slices:
                        self._slices[holder_id].held += worst_case
            case SettledRecord(worst_case, charge, holder_ids):
                for holder_id in holder_ids:
                    if holder_id in self._slices:
                        self._slices[holder_id].settle(worst_case, charge)
            case _:
                return False
        return True

    @property
    def set_aside(self) -> int:
        """What was granted and is not known to be spent or returned, in pico-USD: calls under way may have spent what
        they held of it."""
        return sum(max(share.unused + share.held, 0) for share in self._slices.values())

    def give_back(self, store: Store, note: Callable[[Record], None], now_epoch: float) -> int:
        """Give back all that was not held. Returns how much, of the labels' own quotas and of caps alike, in pico-USD.

        Raises StoreError; it may be repeated from the same journal.
        """
        returned = 0
        for share in self._slices.values():
            if share.expires_at_epoch <= now_epoch:
                continue
            try:
                while (grant := share.in_flight or share.give_back()) is not None:
                    note(GrantRecord(grant))
                    outcome = store.write_grant(grant)
                    note(GrantedRecord(grant.holder_id, grant.sequence, outcome.applied))
                    share.answered(outcome)
                    if not outcome.applied and grant.change_pico_usd < 0:
                        break  # there is no such pool any more
                    if outcome.applied and grant.change_pico_usd < 0:
                        returned -= grant.change_pico_usd
            except SequenceConflict as exc:
                log.info("a slice of %s stays counted for the day: %s", share.key, exc)
            except StoreSetupError as exc:
                log.warning("a slice of %s stays counted for the day: %s", share.key, exc)
        return returned

"""What strict enforcement has set aside for one call."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .pool import Pool

if TYPE_CHECKING:
    from .pools import Pools


class Hold:
    """The worst case of one call, set aside in all of its pools until it is settled."""

    __slots__ = ("_life", "_owner", "keep", "pools", "worst_case")

    def __init__(self, owner: "Pools", pools: Sequence[Pool], worst_case: int) -> None:
        self._owner = owner
        self._life = owner.life
        self.pools = pools
        self.worst_case = worst_case
        self.keep = False  # all of it counts as spent, whatever the call says it cost

    def settle(self, cost_pico_usd: int) -> None:
        """The call has cost this much. Counts once. Never raises for the store's sake."""
        pools, self.pools = self.pools, ()
        if pools and self._life is self._owner.life:  # else it is the parent's, which settles it too
            charge = max(cost_pico_usd, self.worst_case) if self.keep else cost_pico_usd
            self._owner.settle(pools, self.worst_case, charge)

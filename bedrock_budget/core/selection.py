"""Which label a call goes to: the rules, all of them, in order.

1. A stop that has not expired refuses every call, those under an override and to unlabelled models too. It needs no
   chain, so it is looked at before `select` is called.
2. An unexpired override decides, whatever its quota. (Caps over all labels refuse every other call once they are
   reached, whatever label it asks for; so they are looked at before `select`, too.)
3. Else start at the later of the sticky label and the label asked for.
4. From there, the first label whose effective spend < quota: a quota of 0 never, no quota always. Labels that the
   call's body cannot go to are skipped. None left: refuse, or serve the last label whose quota is not 0.
   Under strict enforcement a label in which the call finds no hold counts as used up, for this call.

Why a label was chosen, by where it stands in the chain:

====================  ==============================================================================
``override``          rule 2
``requested``         the label that the call named
``default``           the head of the ordering; the call named none
``sticky``            the scope had already moved on; nothing after the sticky label was over
``quota``             at least one label from the start on was over its quota
``exhausted``         all are over; served because ``on_exhausted="last"``
``unlabelled``        the model is outside the configuration (``on_unknown_model="pass"``): no rules but the first
``stopped``           rule 1, in the record of the refused call
====================  ==============================================================================

A label that is mapped but not in the ordering is a chain of itself: no fallback, no sticky state, no override.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple, Protocol

Reason = Literal["requested", "default", "quota", "sticky", "override", "exhausted", "unlabelled", "stopped"]
Mode = Literal["normal", "tight"]


class Spender(Protocol):
    """What a label has spent today: effective spend in pico-USD."""

    @property
    def spend(self) -> int: ...


class Candidate(Protocol):
    """A label of a chain, what it has spent, and its quota in pico-USD (None: unlimited)."""

    @property
    def label(self) -> str: ...

    @property
    def account(self) -> Spender: ...

    @property
    def quota_pico_usd(self) -> int | None: ...


class Choice(NamedTuple):
    """The label a call goes to: its place in the chain (-1: an override from outside the chain), and why."""

    place: int
    reason: Reason


#: The commonest choices, made once: the head of the ordering, whether the call named it or no label at all.
HEAD = {False: Choice(0, "default"), True: Choice(0, "requested")}


class Refusal(NamedTuple):
    """No label: all exhausted, or only labels left that the body cannot go to (their places in ``skipped``)."""

    kind: Literal["exhausted", "not_portable"]
    skipped: tuple[int, ...]


Fits = Callable[[Candidate], bool]


def select(
    chain: Sequence[Candidate],
    asked: int = 0,
    explicit: bool = False,
    sticky: int = 0,
    override: Candidate | None = None,
    fits: Fits | None = None,
    serve_last: bool = False,
    unheld: Collection[int] = (),
) -> Choice | Refusal:
    """Apply the rules.

    ``asked`` and ``sticky``: places in the chain. ``unheld``: the places of labels that this call has found no hold
    in (strict enforcement; -1: an override from outside the chain); they count as used up.
    ``explicit``: the call named a label. ``fits``: whether the call's body can go to a label; None: to any.
    """
    if override is not None:
        index = next((i for i, candidate in enumerate(chain) if candidate.label == override.label), -1)
        if fits is not None and not fits(override):
            return Refusal("not_portable", (index,))
        return Refusal("exhausted", ()) if index in unheld else Choice(index, "override")
    start = max(asked, sticky)
    over = False
    skipped: list[int] = []
    for index in range(start, len(chain)):
        candidate = chain[index]
        quota = candidate.quota_pico_usd
        if (quota is not None and candidate.account.spend >= quota) or (unheld and index in unheld):
            over = True
        elif index == asked:  # which its body was made for
            return HEAD[explicit] if index == 0 else Choice(index, "requested" if explicit else "default")
        elif fits is not None and not fits(candidate):
            skipped.append(index)
        else:
            return Choice(index, "quota" if over else "sticky")
    if serve_last:
        for index in range(len(chain) - 1, start - 1, -1):
            if chain[index].quota_pico_usd != 0 and (fits is None or fits(chain[index])):
                return Choice(index, "exhausted")
    return Refusal("not_portable", tuple(skipped)) if skipped else Refusal("exhausted", ())


def mode_of(spend: int, quota: int | None, threshold_pct: int) -> Mode:
    """Tight at or above the threshold of the label's quota, else normal. Amounts in pico-USD."""
    return "tight" if quota is not None and spend * 100 >= quota * threshold_pct else "normal"


def sticky_target(chain: Sequence[Candidate], settled: Sequence[int], current: int) -> int | None:
    """Where the sticky state should move: the first label after ``current`` whose settled spend is below its quota,
    when every earlier one (from the chain's head) is over. None: it should stay.

    ``settled``: strongly consistent sums of the shards, in pico-USD.
    """
    for index, candidate in enumerate(chain):
        if candidate.quota_pico_usd is None or settled[index] < candidate.quota_pico_usd:
            return index if index > current else None
    return None

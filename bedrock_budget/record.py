"""What callers get to see: the record of a call, a decision, a label's status."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .core.outcomes import Outcome
from .core.selection import Mode, Reason

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a call goes, and why.

    ``spend_usd_micros``: effective spend of the label in this org day, rounded half up; ``quota_usd_micros`` is None
    if unlimited. ``degraded``: the store could not be read or written, so the figures may be old.
    """

    label: str
    model_id: str
    label_asked: str
    reason: Reason
    mode: Mode
    org_day: str
    spend_usd_micros: int
    quota_usd_micros: int | None
    degraded: bool
    explanation: str


@dataclass(frozen=True, slots=True)
class LabelStatus:
    """One label of the ordering today, read fresh: spend and quota in USD micros, tokens by kind, settled calls.

    ``outcomes``: how often calls of this process ended how today; see `core.outcomes`. Under strict enforcement
    ``granted_usd_micros``: what is spent or set aside. In shadow ``shadow_spend_usd_micros`` and ``shadow_requests``:
    what would have been spent on the label, and by how many calls; the sums over all labels tell the saving.
    Unlimited: ``quota_usd_micros`` and ``quota_pct`` are None. ``in_force``: the next call that names no label goes
    here.
    """

    label: str
    model_id: str
    spend_usd_micros: int
    quota_usd_micros: int | None
    quota_pct: float | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    requests: int
    in_force: bool
    mode: Mode
    outcomes: Mapping[Outcome, int] = field(hash=False)
    granted_usd_micros: int | None = None
    shadow_spend_usd_micros: int | None = None
    shadow_requests: int | None = None

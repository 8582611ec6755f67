"""When to look at the store again, and where.

``adaptive``: the first look is at the first call; then after 1 s, doubling up to the normal interval (the tight one
in tight mode), but never later than half the time in which the observed fleet-wide rate would use up what is left of
the label in force, and not more often than every 0.5 s. ``fixed``: the normal interval, in tight mode the tight one
(the Price Keeper schema specification, "Model Selection Decision").

A look is brought forward when this process alone spends more than was expected of the whole fleet (`is_surprising`);
the intervals then start again at 1 s.

Below 60 % of the quota the daily total is read; the shards above that, while the interval is still under 60 s, or
when the daily total is older than 3 aggregator intervals: a stopped aggregator costs reads, not control.
"""

from typing import NamedTuple

from .budget import Refresh

FIRST_SECS = 1.0
SHORTEST_SECS = 0.5
#: Sticky state, overrides and stops are read at least this often.
CONTROLS_SECS = 60.0
SHARDS_FROM_PCT = 60
TOTAL_GOOD_FOR_INTERVALS = 3


class Intervals(NamedTuple):
    """The configured refresh of a scope, in seconds."""

    refresh: Refresh
    normal_secs: float
    tight_secs: float
    aggregator_secs: float


def next_look_secs(
    intervals: Intervals,
    previous_secs: float | None,
    *,
    tight: bool,
    remaining_pico_usd: int | None,
    rate_pico_usd_per_sec: float,
) -> float:
    """Seconds from one look to the next.

    ``previous_secs``: the interval before (None at the first look). ``remaining_pico_usd``: what is left of the label
    in force, None if it is unlimited. ``rate_pico_usd_per_sec``: what the whole fleet spends on it.
    """
    longest = intervals.tight_secs if tight else intervals.normal_secs
    if intervals.refresh == "fixed":
        return longest
    secs = FIRST_SECS if previous_secs is None else previous_secs * 2
    if remaining_pico_usd is not None and rate_pico_usd_per_sec > 0:
        secs = min(secs, remaining_pico_usd / rate_pico_usd_per_sec / 2)
    return max(min(secs, longest), SHORTEST_SECS)


def look_at_shards(
    intervals: Intervals, interval_secs: float, *, spend_pico_usd: int, quota_pico_usd: int | None
) -> bool:
    """Whether the next look should sum the shards rather than trust the daily total."""
    if intervals.refresh == "adaptive" and interval_secs < CONTROLS_SECS:
        return True
    return quota_pico_usd is not None and spend_pico_usd * 100 >= quota_pico_usd * SHARDS_FROM_PCT


def is_surprising(own_pico_usd: int, expected_pico_usd: float, quota_pico_usd: int) -> bool:
    """Whether a look is out of date although the next one is not due: this process alone has spent twice what the
    whole fleet was expected to spend until then, and at least 0.01 % of the quota. So a burst after a quiet hour does
    not wait for the end of a long interval."""
    return own_pico_usd > 2 * expected_pico_usd and own_pico_usd * 10_000 >= quota_pico_usd


def total_is_stale(intervals: Intervals, *, now_epoch: float, updated_at_epoch: float | None) -> bool:
    """Whether a daily total (None: there is none) is too old to decide from."""
    if updated_at_epoch is None:
        return True
    return now_epoch - updated_at_epoch > TOTAL_GOOD_FOR_INTERVALS * intervals.aggregator_secs

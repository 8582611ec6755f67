"""One published price: what it is of, and how much. What all sources of prices are turned into, and tables made of.

Open sets stay open: a tier or kind that no rule knows is kept as it is, and matches nothing that is asked for.
"""

from datetime import date
from typing import NamedTuple

#: Kinds of token, in the order of `usage.Usage`. Their prices are pico-USD per token (USD micros per 1,000,000).
TOKEN_KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
#: Other units. Their prices are pico-USD per unit.
UNIT_KINDS = (
    "image",
    "input_image",
    "video_second",
    "input_video_second",
    "input_audio_second",
    "search_unit",
    "guardrail_text_unit",
    "server_tool_request",
)
TIERS = ("default", "priority", "flex", "batch")
LATENCIES = ("standard", "optimized")


class PriceFact(NamedTuple):
    """The price of one unit of one kind of one model under one set of conditions, from a day on.

    ``model``: base model id. ``profile``: None for in-region, a geographic prefix (``us``), or ``global``.
    ``region``: None where the source gives one price for all regions. ``tier``: of `TIERS`; ``latency``: of
    `LATENCIES`. ``above_tokens``: the price holds for prompts longer than this, cached tokens included; 0: for all
    that no higher threshold covers. ``kind``: of `TOKEN_KINDS` or `UNIT_KINDS`; ``detail`` tells sorts of a unit apart
    (``1024x1024/premium``; "" for tokens). ``pico_usd``: per unit, exact. ``since``: the first day of this price.
    ``source``: a key of the table's sources.
    """

    model: str
    profile: str | None
    region: str | None
    tier: str
    latency: str
    above_tokens: int
    kind: str
    detail: str
    pico_usd: int
    since: date
    source: str

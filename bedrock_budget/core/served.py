"""How a call was served, where that decides its price: the service tier and the latency, as the response says.

Converse has ``serviceTier.type`` and ``performanceConfig.latency`` in the response, ConverseStream in its ``metadata``
event; InvokeModel has two headers, which botocore also gives as the response's ``serviceTier`` and
``performanceConfigLatency``. What was asked for decides nothing: the service may serve otherwise, and charges for that.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

TIER_HEADER = "x-amzn-bedrock-service-tier"
LATENCY_HEADER = "x-amzn-bedrock-performanceconfig-latency"
#: Tiers that never cost more than the default one. (Reserved capacity is paid by the hour, whatever is used of it.)
CHEAP_TIERS = frozenset(("flex", "batch", "reserved"))


class Served(NamedTuple):
    """A tier and a latency, as in `price_facts`. Both sets are open."""

    tier: str = "default"
    latency: str = "standard"


DEFAULT = Served()


def served_of(source: Mapping[str, Any]) -> Served | None:
    """What a response, or the ``metadata`` event of a stream, says; None: the default tier at standard latency."""
    if "serviceTier" in source or "performanceConfig" in source or "performanceConfigLatency" in source:
        return _served(
            source.get("serviceTier"), source.get("performanceConfig", source.get("performanceConfigLatency"))
        )
    return None


def served_of_headers(headers: Mapping[str, str]) -> Served | None:
    """The same of an ``invoke_model`` response's headers (names lower-cased)."""
    if TIER_HEADER in headers or LATENCY_HEADER in headers:
        return _served(headers.get(TIER_HEADER), headers.get(LATENCY_HEADER))
    return None


def served_at_worst(request: Mapping[str, Any]) -> Served | None:
    """How a call was served whose response did not get as far as to say: as it asked for, unless that is cheaper."""
    asked = served_of(request)
    if asked is None or asked.tier not in CHEAP_TIERS:
        return asked
    return None if asked.latency == DEFAULT.latency else Served(latency=asked.latency)


def _served(tier: object, latency: object) -> Served | None:
    served = Served(_word(tier, "type") or DEFAULT.tier, _word(latency, "latency") or DEFAULT.latency)
    return None if served == DEFAULT else served


def _word(value: object, member: str) -> str:
    if isinstance(value, Mapping):
        value = cast("Mapping[str, object]", value).get(member)
    return "" if value is None else str(value)

"""LiteLLM's price map (``model_prices_and_context_window.json``) as single prices: what of it is Bedrock's."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple, cast

from ..core.model_ids import parse_model_id
from ..core.price_facts import PriceFact

LITELLM = "litellm"  # its key among the sources
#: The model that guardrails are listed under.
GUARDRAILS = "amazon.bedrock-guardrails"
#: A price with no better date holds from here on: the day Bedrock became generally available.
KNOWN_SINCE = date(2023, 9, 28)

_ID = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::[a-z0-9-]+)*")
_DATE_IN_ID = re.compile(r"-(20\d\d)(\d\d)(\d\d)(?![\d])")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d+")
_SIZE = re.compile(r"(?:(\d+)-x-(\d+)|(max)-x-max)/([a-z0-9]+)-steps/")
_TERM = re.compile(r"\d+-month-commitment")
_TOKENS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
}
_TOKEN_PRICE = re.compile(
    rf"({'|'.join(sorted(_TOKENS, key=len, reverse=True))})(?:_above_(\d+)k_tokens)?(?:_([a-z]+))?"
)
_UNITS = {
    "output_cost_per_image": "image",
    "input_cost_per_image": "input_image",
    "output_cost_per_video_per_second": "video_second",
    "input_cost_per_video_per_second": "input_video_second",
    "input_cost_per_audio_per_second": "input_audio_second",
    "input_cost_per_query": "search_unit",
}
_INPUTS = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
_PICO_PER_USD = 10**12


class Refused(ValueError):
    """An entry, or a price of one, that cannot be taken; the text says why."""


class Named(NamedTuple):
    """What the key of an entry names. ``mantle``: by the id that another endpoint of Bedrock has for the model."""

    model: str
    profile: str | None
    region: str | None
    detail: str
    mantle: bool


def is_bedrock(entry: object) -> bool:
    """Whether an entry of the map is of Bedrock."""
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    return str(fields.get("litellm_provider", "")).startswith("bedrock")


def pico_usd(usd: object) -> int:
    """An amount in USD as pico-USD, exactly. Raises `Refused` rather than round."""
    if isinstance(usd, bool) or not isinstance(usd, Decimal | int):
        raise Refused(f"{usd!r} is not a price")
    if isinstance(usd, Decimal) and not usd.is_finite():
        raise Refused(f"{usd} is not a price")
    numerator, denominator = usd.as_integer_ratio()
    pico, rest = divmod(numerator * _PICO_PER_USD, denominator)
    if rest:
        raise Refused(f"{usd} USD is not a whole number of pico-USD")
    if pico < 0:
        raise Refused(f"{usd} USD is negative")
    return pico


def default_since(model: str) -> date:
    """The first day of a price that has no date: the one in the model id, else `KNOWN_SINCE`."""
    match = _DATE_IN_ID.search(model)
    try:
        return date(*map(int, match.groups())) if match else KNOWN_SINCE
    except ValueError:
        return KNOWN_SINCE


def named(key: str, *, terms: bool = False) -> Named:
    """What a key of the map names. Raises `Refused` for what is no price of the runtime on demand.

    ``terms``: prices of a term are taken for their model's, to see whether it has a price at all.
    """
    region, detail, rest = None, "", key
    if size := _SIZE.match(rest):
        width, height, most, steps = size.groups()
        detail, rest = f"{most or f'{width}x{height}'}/{steps}-steps", rest[size.end() :]
    mantle = rest.startswith("bedrock_mantle/")
    rest = rest.removeprefix("bedrock_mantle/").removeprefix("bedrock/").removeprefix("invoke/")
    first, slash, more = rest.partition("/")
    if slash and (first == "*" or _REGION.fullmatch(first)):
        region, rest = None if first == "*" else first, more
    first, slash, more = rest.partition("/")
    if slash and _TERM.fullmatch(first):
        if not terms:
            raise Refused("provisioned throughput: a price by the hour, for a term")
        rest = more
    if rest.startswith("claude_platform/"):
        raise Refused("Claude Platform on AWS: another service, with model ids of its own")
    if rest == "guardrails":
        return Named(GUARDRAILS, None, None, "", False)
    parsed = parse_model_id(rest)
    if parsed.base is None or not _ID.fullmatch(rest):
        raise Refused("not a Bedrock model id")
    return Named(parsed.base, parsed.profile, region, detail, mantle)


def facts_of_entry(name: Named, entry: Mapping[str, Any]) -> list[PriceFact]:
    """The prices of one entry. Raises `Refused` if there are none, or one is not exact."""
    if entry.get("mode") == "realtime":
        raise Refused("mode realtime: speech is priced by tokens of its own, over a connection that is not metered")
    facts = [*_token_facts(name, entry), *_unit_facts(name, entry)]
    if not facts:
        raise Refused("no price of anything")
    return facts


def limits_of_entry(entry: Mapping[str, Any], facts: Sequence[PriceFact]) -> dict[str, Any]:
    """What one entry says beside prices: the members of `Limits`, as far as it has them.

    Surcharges are percentages of the entry's own plain prices, rounded up, the dearest of the kinds of token.
    """
    found: dict[str, Any] = {}
    if window := entry.get("max_input_tokens"):
        found["context_window_tokens"] = window
    if entry.get("mode") == "embedding":
        found["max_output_tokens"] = 0
    elif most := entry.get("max_output_tokens"):
        found["max_output_tokens"] = most
    plain = {fact.kind: fact.pico_usd for fact in facts if fact.tier == "default" and not fact.above_tokens}
    long = [fact for fact in facts if fact.tier == "default" and fact.above_tokens]
    if any(fact.kind == "input" for fact in long):
        found["long_context_above_tokens"] = min(fact.above_tokens for fact in long)
        found["long_context_input_pct"] = _percent(plain, [fact for fact in long if fact.kind in _INPUTS])
        found["long_context_output_pct"] = _percent(plain, [fact for fact in long if fact.kind == "output"])
    priority = [fact for fact in facts if fact.tier == "priority" and not fact.above_tokens]
    if any(fact.kind == "input" for fact in priority):
        found["priority_pct"] = _percent(plain, priority)
    return found


def _percent(plain: Mapping[str, int], dearer: Sequence[PriceFact]) -> int:
    """The dearest of some prices, in percent of the plain price of their kind."""
    known = [fact for fact in dearer if plain.get(fact.kind)]
    return max([100, *(math.ceil(Decimal(fact.pico_usd) * 100 / plain[fact.kind]) for fact in known)])


def _token_facts(name: Named, entry: Mapping[str, Any]) -> Iterator[PriceFact]:
    mode = entry.get("mode")
    if mode in ("rerank", "guardrail", "image_generation", "image_edit"):
        return  # tokens at 0 USD stand for prices by another unit
    found: list[PriceFact] = []
    for member, value in entry.items():
        match = _TOKEN_PRICE.fullmatch(member)
        if match is None or value is None:
            continue
        base, above, tier = match.groups()
        kind = _TOKENS[base]
        pico = pico_usd(value)
        if pico or (kind == "output" and mode == "embedding"):
            tier = "batch" if tier == "batches" else tier or "default"
            found.append(_fact(name, kind, "", pico, tier=tier, above=int(above or 0) * 1000))
    plain = {fact.kind for fact in found if fact.tier == "default" and not fact.above_tokens}
    if mode == "embedding" and "input" in plain and "output" not in plain:
        found.append(_fact(name, "output", "", 0))
    if mode == "embedding" and plain == {"output"}:
        return  # embeddings priced by other units
    if "input" in plain and "output" not in plain and mode != "embedding":
        raise Refused("no price for output tokens")
    if "input" not in plain and not any(entry.get(member) for member in _UNITS):
        raise Refused("no price for input tokens")
    yield from found


def _unit_facts(name: Named, entry: Mapping[str, Any]) -> Iterator[PriceFact]:
    for member, kind in _UNITS.items():
        if entry.get(member) and (pico := pico_usd(entry[member])):
            embeds = kind == "search_unit" and entry.get("mode") != "rerank"
            yield _fact(name, "request" if embeds else kind, name.detail, pico)
    guardrail: Mapping[str, Any] = entry.get("guardrail_cost_per_unit") or {}
    for policy, usd in guardrail.items():
        kind = "guardrail_image_unit" if "Image" in policy else "guardrail_text_unit"
        yield _fact(name, kind, policy, pico_usd(usd))
    searches: Mapping[str, Any] = entry.get("search_context_cost_per_query") or {}
    amounts = {pico_usd(usd) for usd in searches.values()}
    for size, usd in searches.items():
        detail = "web_search" if len(amounts) == 1 else f"web_search/{size.removeprefix('search_context_size_')}"
        yield _fact(name, "server_tool_request", detail, pico_usd(usd))
        if len(amounts) == 1:
            break


def _fact(name: Named, kind: str, detail: str, pico: int, *, tier: str = "default", above: int = 0) -> PriceFact:
    since = default_since(name.model)
    return PriceFact(name.model, name.profile, name.region, tier, "standard", above, kind, detail, pico, since, LITELLM)

"""Makes ``bundled.json``: ``python -m bedrock_budget.prices.build --litellm PATH --out PATH [--supplement PATH]``.

Two sources: LiteLLM's price map (``model_prices_and_context_window.json``), filtered to Bedrock's token prices, and
``supplement.json``, kept by hand: where the sources come from, models the map has dropped, dates and corrections.
The same inputs give the same bytes. What of the map was left out, and why, goes to standard output; a mistake in the
supplement is an error.
"""

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..core.model_ids import parse_model_id
from ..core.pricing import Price
from .table import CURRENCY, SCHEMA_VERSION, UNIT, PriceTable

#: A price with no better date holds from here on: the day Bedrock became generally available.
KNOWN_SINCE = "2023-09-28"
LITELLM = "litellm"  # its key among the sources

NOTE_IN_REGION = "price of the us. profile: LiteLLM lists the global price, in-region is 1.10 x that"
NOTE_NO_WRITE = "no cache write price listed: input price"
NOTE_NO_1H = "no 1 h cache write price listed: 2 x input"

_MODES = frozenset({"chat", "embedding"})  # the others are priced by the image, query or second, or speech apart
_ID = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::[a-z0-9-]+)*")
_DATE_IN_ID = re.compile(r"-(20\d\d)(\d\d)(\d\d)(?![\d])")
_LONG_INPUT = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")
_INPUTS = (
    "input_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
    "cache_creation_input_token_cost_above_1hr",
)
_OUTPUTS = ("output_cost_per_token",)
_MICROS_PER_1M = 10**12  # USD a token -> USD micros per 1,000,000 tokens

Row = dict[str, Any]


class Built(NamedTuple):
    """A table in its JSON form, and the ids of the price map that did not get into it, with the reason."""

    table: dict[str, Any]
    left_out: list[tuple[str, str]]


class Refused(ValueError):
    """An entry of the price map that cannot become a row; the text says why."""


def micros_per_1m(usd_per_token: object) -> int:
    """USD a token as USD micros per 1,000,000 tokens, exactly. Raises `Refused` rather than round."""
    if isinstance(usd_per_token, bool) or not isinstance(usd_per_token, Decimal | int):
        raise Refused(f"{usd_per_token!r} is not a price")
    if isinstance(usd_per_token, Decimal) and not usd_per_token.is_finite():
        raise Refused(f"{usd_per_token} is not a price")
    numerator, denominator = usd_per_token.as_integer_ratio()
    micros, rest = divmod(numerator * _MICROS_PER_1M, denominator)
    if rest:
        raise Refused(f"{usd_per_token} USD a token is not a whole number of micros per 1M tokens")
    if micros < 0:
        raise Refused(f"{usd_per_token} USD a token is negative")
    return micros


def default_from(model: str) -> str:
    """The first day of a price that has no date: the one in the model id, else `KNOWN_SINCE`."""
    match = _DATE_IN_ID.search(model)
    try:
        return date(*map(int, match.groups())).isoformat() if match else KNOWN_SINCE
    except ValueError:
        return KNOWN_SINCE


def litellm_row(model: str, profile: str | None, entry: Mapping[str, Any]) -> Row:
    """The row of one entry of the price map. Raises `Refused` if its tokens have no exact price."""
    mode = entry.get("mode")
    if mode not in _MODES:
        raise Refused(f"mode {mode}: not priced by the text token")

    def price(name: str) -> int | None:
        value = entry.get(name)
        return None if value is None else micros_per_1m(value)

    input_price, output_price = price("input_cost_per_token"), price("output_cost_per_token")
    if mode == "embedding" and not output_price:
        output_price = 0
    elif not output_price:
        raise Refused("no price for output tokens")
    if not input_price:
        raise Refused("no price for input tokens")
    read, write, write_1h = (
        price("cache_read_input_token_cost"),
        price("cache_creation_input_token_cost"),
        price("cache_creation_input_token_cost_above_1hr"),
    )
    note = None
    if read is not None and write is None and write_1h is None:
        write, write_1h, note = input_price, input_price, NOTE_NO_WRITE
    elif write is not None and write_1h is None:
        note = NOTE_NO_1H
    prices = Price.of(input_price, output_price, cache_read=read, cache_write_5m=write, cache_write_1h=write_1h)
    return _row(profile, default_from(model), LITELLM, prices, note)


def litellm_limits(entry: Mapping[str, Any]) -> Row:
    """What one entry of the price map says beside plain prices: the members of `Limits`, as far as it has them.

    Surcharges are percentages of the entry's own plain prices, rounded up, the dearest of the kinds of token.
    """
    found: Row = {}
    if window := entry.get("max_input_tokens"):
        found["context_window_tokens"] = window
    if entry["mode"] == "embedding":
        found["max_output_tokens"] = 0
    elif most := entry.get("max_output_tokens"):
        found["max_output_tokens"] = most
    if tiers := [int(match[1]) * 1000 for name in entry if (match := _LONG_INPUT.fullmatch(name))]:
        found["long_context_above_tokens"] = min(tiers)
        found["long_context_input_pct"] = _percent(entry, _INPUTS, r"_above_\d+k_tokens")
        found["long_context_output_pct"] = _percent(entry, _OUTPUTS, r"_above_\d+k_tokens")
    if "input_cost_per_token_priority" in entry:
        found["priority_pct"] = _percent(entry, (*_INPUTS, *_OUTPUTS), "_priority")
    return found


def _percent(entry: Mapping[str, Any], plain: Sequence[str], suffix: str) -> int:
    """The dearest of some prices with a suffix in their names, in percent of the price without it."""
    found = [100]
    for name in plain:
        for dearer in entry:
            if re.fullmatch(name + suffix, dearer) and entry.get(name):
                found.append(math.ceil(Decimal(entry[dearer]) * 100 / Decimal(entry[name])))
    return max(found)


def _widest(all_found: Sequence[Row]) -> Row:
    """What holds for all of a model's entries: the most of each, and the lowest threshold."""
    names = sorted({name for found in all_found for name in found})
    most: Row = {name: max(found[name] for found in all_found if name in found) for name in names}
    if (above := "long_context_above_tokens") in most:
        most[above] = min(found[above] for found in all_found if above in found)
    return most


def build(litellm: Mapping[str, Any], supplement: Mapping[str, Any], *, litellm_sha256: str) -> Built:
    """The table of both sources. Raises ValueError or KeyError for a supplement that is not as it should be."""
    rows: dict[str, list[Row]] = {}
    limits: dict[str, list[Row]] = {}
    left_out: list[tuple[str, str]] = []
    for model_id, entry in litellm.items():
        if not _is_bedrock(entry):
            continue
        try:
            model, profile = _taken_apart(model_id, supplement)
            row = litellm_row(model, profile, entry)
        except Refused as error:
            left_out.append((model_id, str(error)))
            continue
        row["from"] = supplement.get("effective", {}).get(model_id, row["from"])
        rows.setdefault(model, []).append(row)
        limits.setdefault(model, []).append(litellm_limits(entry))
    for found in rows.values():
        _correct_in_region(found)
    for model, entry in supplement.get("models", {}).items():
        for given in entry["rows"]:
            row = _supplement_row(model, given, supplement["sources"])
            kept = [old for old in rows.get(model, []) if _key(old) != _key(row)]
            rows[model] = [*kept, row]
    for model, known in supplement.get("limits", {}).items():
        if model not in rows:
            raise ValueError(f"limits.{model}: must be a model of the table")
        limits[model] = [{**_widest(limits.get(model, [])), **known}]
    sources = {name: dict(source) for name, source in sorted(supplement["sources"].items())}
    sources[LITELLM]["sha256"] = litellm_sha256
    table: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "generated": max(source["retrieved"] for source in sources.values()),
        "currency": CURRENCY,
        "unit": UNIT,
        "sources": sources,
        "aliases": dict(sorted(supplement.get("aliases", {}).items())),
        "models": {model: _entry(rows[model], _widest(limits.get(model, []))) for model in sorted(rows)},
    }
    for alias, model in table["aliases"].items():
        if alias in rows or model not in rows:
            raise ValueError(f"aliases.{alias}: must be no model of the table, and stand for one ({model})")
    PriceTable.from_json(table)  # what the library could not read is not written
    return Built(table, sorted(left_out))


def dump(table: Mapping[str, Any]) -> str:
    """The text of ``bundled.json``: one row a line, so that a change of price is a change of one line."""
    parts: list[str] = []
    for name, value in table.items():
        if name == "models":
            text = _block({model: _entry_lines(entry) for model, entry in value.items()})
        elif isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            text = _block({member: json.dumps(content) for member, content in members.items()})
        else:
            text = json.dumps(value)
        parts.append(f"  {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the sources, write the table, say what was left out. 0: written; 1: the sources are not usable."""
    parser = argparse.ArgumentParser(prog="python -m bedrock_budget.prices.build", description="Make bundled.json.")
    parser.add_argument("--litellm", type=Path, required=True, help="LiteLLM's price map (JSON)")
    parser.add_argument("--supplement", type=Path, default=Path(__file__).with_name("supplement.json"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        raw = options.litellm.read_bytes()
        supplement = json.loads(options.supplement.read_text(encoding="utf-8"))
        built = build(json.loads(raw, parse_float=Decimal), supplement, litellm_sha256=hashlib.sha256(raw).hexdigest())
    except (OSError, KeyError, ValueError) as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    options.out.write_text(dump(built.table), encoding="utf-8")
    models = built.table["models"].values()
    print(f"{options.out}: {len(models)} models, {sum(len(entry['rows']) for entry in models)} rows")
    for reason in sorted({reason for _, reason in built.left_out}):
        ids = [model_id for model_id, why in built.left_out if why == reason]
        print(f"left out, {reason}: {len(ids)}", *ids, sep="\n  ")
    return 0


def _is_bedrock(entry: object) -> bool:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    return str(fields.get("litellm_provider", "")).startswith("bedrock")


def _taken_apart(model_id: str, supplement: Mapping[str, Any]) -> tuple[str, str | None]:
    if "/" in model_id:
        raise Refused("keyed by region, endpoint, term or image size")
    parsed = parse_model_id(model_id)
    if parsed.base is None or not _ID.fullmatch(model_id):
        raise Refused("not a Bedrock model id")
    if model_id in supplement.get("drop", {}):
        raise Refused(supplement["drop"][model_id])
    return parsed.base, parsed.profile


def _row(profile: str | None, since: str, source: str, price: Price, note: str | None) -> Row:
    row: Row = {
        "profile": profile,
        "from": since,
        "source": source,
        "input": price.input,
        "output": price.output,
        "cache_read": price.cache_read,
        "cache_write_5m": price.cache_write_5m,
        "cache_write_1h": price.cache_write_1h,
    }
    if note:
        row["note"] = note
    return row


def _supplement_row(model: str, given: Mapping[str, Any], sources: Mapping[str, Any]) -> Row:
    """A row of the supplement: the form of the table, but ``from`` and cache prices may be left out."""
    caches = {name: given[name] for name in ("cache_read", "cache_write_5m", "cache_write_1h") if name in given}
    unknown = given.keys() - {"profile", "from", "source", "input", "output", "note", *caches}
    if unknown or given["source"] not in sources or parse_model_id(model).base != model:
        raise ValueError(f"models.{model}: unknown members {sorted(unknown)}, source or form of model id in {given}")
    price = Price.of(given["input"], given["output"], **caches)
    return _row(given["profile"], given.get("from", default_from(model)), given["source"], price, given.get("note"))


def _correct_in_region(rows: list[Row]) -> None:
    """LiteLLM gives some bare ids the global price. In-region costs what the us. profile does: 1.10 x global."""
    bare = next((row for row in rows if row["profile"] is None), None)
    us = next((row for row in rows if row["profile"] == "us"), None)
    if bare and us and all(us[name] * 10 == bare[name] * 11 for name in ("input", "output", "cache_read")):
        notes = [NOTE_IN_REGION, *([us["note"]] if "note" in us else [])]
        rows[rows.index(bare)] = {**us, "profile": None, "note": "; ".join(notes)}


def _key(row: Row) -> tuple[str, str]:
    return row["profile"] or "", row["from"]


def _block(members: Mapping[str, str]) -> str:
    lines = [f"    {json.dumps(name)}: {text}" for name, text in members.items()]
    return "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"


def _entry(rows: list[Row], limits: Row) -> dict[str, Any]:
    return {**({"limits": limits} if limits else {}), "rows": sorted(rows, key=_key)}


def _entry_lines(entry: Mapping[str, Any]) -> str:
    limits = f'"limits": {json.dumps(entry["limits"])}, ' if "limits" in entry else ""
    return "{" + limits + '"rows": [\n' + ",\n".join(f"      {json.dumps(row)}" for row in entry["rows"]) + "]}"


if __name__ == "__main__":
    sys.exit(main())

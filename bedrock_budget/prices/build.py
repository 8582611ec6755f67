"""Makes ``bundled.json``: ``python -m bedrock_budget.prices.build --litellm PATH --genai PATH --out PATH``.

Three sources: LiteLLM's price map (``model_prices_and_context_window.json``, or its wheel), filtered to Bedrock;
``supplement.json``, kept by hand: where the sources come from, models the map has dropped, dates and corrections; and
genai-prices (``data.py``, or its wheel) as a second opinion, which changes nothing: every disagreement is reported
with what was taken and why. The same inputs give the same bytes. What of the map was left out, and why, goes to
standard output too; a mistake in the supplement is an error.
"""

import argparse
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..core.model_ids import parse_model_id
from ..core.price_facts import TOKEN_KINDS, PriceFact
from ..core.price_lists import in_force
from .json_form import entry_of, facts_of
from .litellm_map import (
    LITELLM,
    Refused,
    default_since,
    facts_of_entry,
    is_bedrock,
    limits_of_entry,
    named,
)
from .second_opinion import NO_REASON, Disagreement, Opinion, disagreements, opinion_on, opinions
from .table import CURRENCY, SCHEMA_VERSION, UNIT, PriceTable

NOTE_IN_REGION = "price of the us. profile: LiteLLM lists the global price, in-region is 1.10 x that"
#: What the table is measured by: modes of the map's entries.
COVERED_MODES = ("chat", "responses", "embedding", "rerank", "image_generation", "image_edit")
_MAP = "litellm/model_prices_and_context_window_backup.json"
_GENAI = "genai_prices/data.py"

Facts = dict[str, list[PriceFact]]


class Built(NamedTuple):
    """A table in its JSON form; the ids of the price map that did not get into it, with the reason; what the second
    opinion says; and the ids that the table was measured by: all, and those whose model has no price in it."""

    table: dict[str, Any]
    left_out: list[tuple[str, str]]
    disagreements: list[Disagreement]
    measured: list[str]
    missed: list[tuple[str, str]]


def build(
    litellm: Mapping[str, Any],
    supplement: Mapping[str, Any],
    *,
    litellm_sha256: str,
    second: Sequence[Opinion] = (),
) -> Built:
    """The table of all sources. Raises ValueError or KeyError for a supplement that is not as it should be."""
    facts: Facts = {}
    limits: dict[str, list[dict[str, Any]]] = {}
    left_out: dict[str, str] = {}
    of_entries: dict[str, list[PriceFact]] = {}
    mantle: dict[str, list[PriceFact]] = {}
    for key, entry in litellm.items():
        if not is_bedrock(entry):
            continue
        try:
            if key in supplement.get("drop", {}):
                raise Refused(supplement["drop"][key])
            name = named(key)
            found = facts_of_entry(name, entry)
        except Refused as error:
            left_out[key] = str(error)
            continue
        if key in supplement.get("effective", {}):
            since = date.fromisoformat(supplement["effective"][key])
            found = [fact._replace(since=since) for fact in found]
        if name.mantle:
            mantle[key] = found
            continue
        of_entries[key] = found
        facts.setdefault(name.model, []).extend(found)
        if any(fact.kind == "input" for fact in found):
            limits.setdefault(name.model, []).append(limits_of_entry(entry, found))
    notes: dict[tuple[str, str | None], str]
    notes = {(model, None): NOTE_IN_REGION for model, found in facts.items() if _correct_in_region(found)}
    _add_mantle(facts, mantle, supplement.get("aliases", {}))
    facts = {model: _distinct(found) for model, found in facts.items()}
    _add_supplement(facts, notes, supplement)
    for model, known in supplement.get("limits", {}).items():
        if model not in facts:
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
        "models": {
            model: {
                **({"limits": widest} if (widest := _widest(limits.get(model, []))) else {}),
                **entry_of(facts[model], notes),
            }
            for model in sorted(facts)
        },
    }
    for alias, model in table["aliases"].items():
        if alias in facts or model not in facts:
            raise ValueError(f"aliases.{alias}: must be no model of the table, and stand for one ({model})")
    made = PriceTable.from_json(table)  # what the library could not read is not written
    day = date.fromisoformat(table["generated"])
    differing = list(_differing(of_entries, second, made, day, supplement.get("opinions", {})))
    measured = sorted(key for key, entry in litellm.items() if is_bedrock(entry) and entry.get("mode") in COVERED_MODES)
    missed = [(key, left_out.get(key, "no price")) for key in measured if not _is_covered(key, made, day)]
    return Built(table, sorted(left_out.items()), differing, measured, missed)


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
    parser.add_argument("--litellm", type=Path, required=True, help="LiteLLM's price map (JSON), or its wheel")
    parser.add_argument("--genai", type=Path, help="genai-prices' data.py, or its wheel: a second opinion")
    parser.add_argument("--supplement", type=Path, default=Path(__file__).with_name("supplement.json"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        built = built_from(options.litellm, options.genai, options.supplement)
    except (OSError, KeyError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    options.out.write_text(dump(built.table), encoding="utf-8")
    _report(built, options.out)
    return 0


def built_from(litellm: Path, genai: Path | None, supplement: Path) -> Built:
    """The table of these files. Raises OSError, ValueError, KeyError and others for what is none of them."""
    raw = _read(litellm, _MAP)
    by_hand = json.loads(supplement.read_text(encoding="utf-8"))
    day = max(date.fromisoformat(source["retrieved"]) for source in by_hand["sources"].values())
    second = opinions(_read(genai, _GENAI).decode(), day) if genai else ()
    return build(
        json.loads(raw, parse_float=Decimal),
        by_hand,
        litellm_sha256=hashlib.sha256(raw).hexdigest(),
        second=second,
    )


def _read(path: Path, member: str) -> bytes:
    if path.suffix != ".whl":
        return path.read_bytes()
    with zipfile.ZipFile(path) as wheel:
        return wheel.read(member)


def _report(built: Built, out: Path) -> None:
    models = built.table["models"].values()
    rows, units = (sum(len(entry.get(kind, ())) for entry in models) for kind in ("rows", "units"))
    print(f"{out}: {len(models)} models, {rows} rows, {units} unit prices")
    if built.measured:
        covered = len(built.measured) - len(built.missed)
        print(f"covered: {covered} of {len(built.measured)} ids, {100 * covered / len(built.measured):.1f} %")
    for key, reason in built.missed:
        print(f"missed: {key}: {reason}")
    for reason in sorted({reason for _, reason in built.left_out}):
        ids = [model_id for model_id, why in built.left_out if why == reason]
        print(f"left out, {reason}: {len(ids)}", *ids, sep="\n  ")
    unexplained = sum(one.reason == NO_REASON for one in built.disagreements)
    print(f"disagreements of LiteLLM and genai-prices: {len(built.disagreements)}, {unexplained} without a reason")
    for one in built.disagreements:
        print(f"  {one}")


def _widest(all_found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What holds for all of a model's entries: the most of each, and the lowest threshold."""
    names = sorted({name for found in all_found for name in found})
    most: dict[str, Any] = {name: max(found[name] for found in all_found if name in found) for name in names}
    if (above := "long_context_above_tokens") in most:
        most[above] = min(found[above] for found in all_found if above in found)
    return most


def _correct_in_region(facts: list[PriceFact]) -> bool:
    """LiteLLM gives some bare ids the global price. In-region costs what the us. profile does: 1.10 x global."""

    def plain(profile: str | None) -> dict[str, int]:
        place = (profile, None, "default", 0)
        return {f.kind: f.pico_usd for f in facts if (f.profile, f.region, f.tier, f.above_tokens) == place}

    bare, us = plain(None), plain("us")
    kinds = {"input", "output", "cache_read"} & bare.keys() & us.keys()
    if "input" not in kinds or not all(us[kind] * 10 == bare[kind] * 11 for kind in kinds):
        return False
    others = [fact for fact in facts if (fact.profile, fact.region) != (None, None) or fact.kind not in TOKEN_KINDS]
    facts[:] = others + [
        fact._replace(profile=None) for fact in others if fact.profile == "us" and fact.kind in TOKEN_KINDS
    ]
    return True


def _add_mantle(facts: Facts, mantle: Mapping[str, list[PriceFact]], aliases: Mapping[str, str]) -> None:
    """The mantle endpoint has ids and entries of its own for the same models at the same prices: they count where the
    runtime's id has none."""
    known = {(model, fact.profile, fact.region) for model, found in facts.items() for fact in found}
    for found in mantle.values():
        model = aliases.get(found[0].model, found[0].model)
        if (model, found[0].profile, found[0].region) not in known:
            facts.setdefault(model, []).extend(fact._replace(model=model) for fact in found)


def _add_supplement(facts: Facts, notes: dict[tuple[str, str | None], str], supplement: Mapping[str, Any]) -> None:
    for model, entry in supplement.get("models", {}).items():
        dated = [{"from": default_since(model).isoformat(), **row} for row in entry.get("rows", ())]
        units = [{"from": default_since(model).isoformat(), **row} for row in entry.get("units", ())]
        given = facts_of(model, {"rows": dated, "units": units})
        if parse_model_id(model).base != model or any(fact.source not in supplement["sources"] for fact in given):
            raise ValueError(f"models.{model}: a source that is not described, or no base model id")
        if any("output" not in row or "input" not in row for row in dated if "when" not in row):
            raise ValueError(f"models.{model}: a plain price has both input and output")
        replaced = {_row_key(fact) for fact in given}
        facts[model] = [fact for fact in facts.get(model, ()) if _row_key(fact) not in replaced] + given
        notes.update({(model, row["profile"]): row["note"] for row in dated if "note" in row})


def _row_key(fact: PriceFact) -> tuple[Any, ...]:
    unit = () if fact.kind in TOKEN_KINDS else (fact.kind, fact.detail)
    return (fact.profile, fact.region, fact.tier, fact.latency, fact.above_tokens, fact.since, *unit)


def _distinct(facts: Iterable[PriceFact]) -> list[PriceFact]:
    """The dearest of prices that are otherwise the same: entries that name one thing twice."""
    kept: dict[PriceFact, PriceFact] = {}
    for fact in facts:
        key = fact._replace(pico_usd=0)
        kept[key] = max(kept.get(key, fact), fact, key=lambda each: each.pico_usd)
    return list(kept.values())


def _differing(
    of_entries: Mapping[str, list[PriceFact]],
    second: Sequence[Opinion],
    table: PriceTable,
    day: date,
    reasons: Mapping[str, str],
) -> Iterable[Disagreement]:
    for key, found in sorted(of_entries.items()):
        opinion = opinion_on(key, second)
        if opinion is None or "/" in key:
            continue
        place = (found[0].profile, found[0].region)
        of_place = [fact for fact in table.facts(found[0].model) if (fact.profile, fact.region) == place]
        taken = {(f.kind, f.above_tokens): f for f in in_force(of_place, day) if f.tier == "default"}
        yield from disagreements(key, found, opinion, taken, reasons)


def _is_covered(key: str, table: PriceTable, day: date) -> bool:
    """Whether the model that a key of the map names has a price on demand."""
    try:
        name = named(key, terms=True)
    except Refused:
        return False
    model_id = name.model if name.profile is None else f"{name.profile}.{name.model}"
    where = {"region": name.region, "on": day}
    return table.find(model_id, **where) is not None or bool(table.units(model_id, **where))  # type: ignore[arg-type]


def _block(members: Mapping[str, str]) -> str:
    lines = [f"    {json.dumps(name)}: {text}" for name, text in members.items()]
    return "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"


def _entry_lines(entry: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for name, value in entry.items():
        if name in ("rows", "units"):
            text = "[\n" + ",\n".join(f"      {json.dumps(row)}" for row in value) + "]"
        else:
            text = json.dumps(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{" + ", ".join(parts) + "}"


if __name__ == "__main__":
    sys.exit(main())

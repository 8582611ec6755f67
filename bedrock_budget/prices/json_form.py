"""The JSON form of prices, which ``bundled.schema.json`` describes: rows of token prices, and single unit prices."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core.price_facts import TOKEN_KINDS, PriceFact

Row = dict[str, Any]
#: (model, profile) -> what is not as the source has it
Notes = Mapping[tuple[str, str | None], str]

_CONDITIONS = ("region", "tier", "latency", "input_above")


def facts_of(model: str, entry: Mapping[str, Any]) -> list[PriceFact]:
    """The prices of one model. Raises ValueError or KeyError, naming the place, for what is not in the form."""
    facts: list[PriceFact] = []
    for member, read in (("rows", _row_facts), ("units", _unit_facts)):
        for number, row in enumerate(entry.get(member, ())):
            try:
                facts.extend(read(model, row))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"models.{model}.{member}[{number}]: {error!r}") from error
    return facts


def entry_of(facts: Iterable[PriceFact], notes: Notes) -> Row:
    """The form of one model's prices, in order. Facts of the same place, day, source and conditions are one row."""
    rows: dict[tuple[Any, ...], Row] = {}
    units: list[Row] = []
    for fact in sorted(facts, key=_order):
        when = _when(fact)
        head: Row = {"profile": fact.profile, "from": fact.since.isoformat(), "source": fact.source}
        if fact.kind in TOKEN_KINDS:
            key = (fact.profile, fact.since, fact.source, *when.values(), *when)
            row = rows.setdefault(key, {**head, **({"when": when} if when else {})})
            row[fact.kind] = fact.pico_usd
            if not when and (fact.model, fact.profile) in notes:
                row["note"] = notes[fact.model, fact.profile]
        else:
            named = {"kind": fact.kind, **({"detail": fact.detail} if fact.detail else {})}
            units.append({**head, **({"when": when} if when else {}), **named, "pico_usd": fact.pico_usd})
    return {**({"rows": list(rows.values())} if rows else {}), **({"units": units} if units else {})}


def _order(fact: PriceFact) -> tuple[Any, ...]:
    kind = TOKEN_KINDS.index(fact.kind) if fact.kind in TOKEN_KINDS else len(TOKEN_KINDS)
    plain = (fact.tier != "default", fact.latency != "standard", fact.above_tokens)
    place = (fact.profile or "", fact.region or "")
    return (*place, *plain, fact.tier, fact.latency, fact.since, fact.source, kind, fact.kind, fact.detail)


def _when(fact: PriceFact) -> Row:
    found: Row = {}
    if fact.region is not None:
        found["region"] = fact.region
    if fact.tier != "default":
        found["tier"] = fact.tier
    if fact.latency != "standard":
        found["latency"] = fact.latency
    if fact.above_tokens:
        found["input_above"] = fact.above_tokens
    return found


def _row_facts(model: str, row: Mapping[str, Any]) -> Iterator[PriceFact]:
    head, tail = _ends(model, row)
    if unknown := row.keys() - {"profile", "from", "source", "when", "note", *TOKEN_KINDS}:
        raise ValueError(f"unknown members {sorted(unknown)}")
    for kind in TOKEN_KINDS:
        if kind in row:
            yield PriceFact(*head, kind, "", _price(row[kind]), *tail)


def _unit_facts(model: str, row: Mapping[str, Any]) -> Iterator[PriceFact]:
    head, tail = _ends(model, row)
    yield PriceFact(*head, _text(row["kind"]), row.get("detail", ""), _price(row["pico_usd"]), *tail)


_Head = tuple[str, str | None, str | None, str, str, int]


def _ends(model: str, row: Mapping[str, Any]) -> tuple[_Head, tuple[dt.date, str]]:
    profile = row["profile"]
    if profile is not None:
        _text(profile)
    when: Mapping[str, Any] = row.get("when", {})
    if unknown := when.keys() - set(_CONDITIONS):
        raise ValueError(f"when: unknown conditions {sorted(unknown)}")
    region = when.get("region")
    above = _price(when.get("input_above", 0))
    words = _text(when.get("tier", "default")), _text(when.get("latency", "standard"))
    return (model, profile, region, *words, above), (dt.date.fromisoformat(row["from"]), _text(row["source"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {value!r}")
    return value


def _price(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"prices must be whole numbers >= 0, got {value!r}")
    return value

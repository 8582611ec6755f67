"""The price table: which list price a model id has on a day."""

import datetime as dt
import importlib.resources
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.model_ids import parse_model_id
from ..core.price_facts import PriceFact
from ..core.price_lists import UnitPrice, in_force, price_list, unit_prices
from ..core.pricing import Price, Prices
from ..core.worst_case import Limits
from .json_form import facts_of

SCHEMA_VERSION = 2
CURRENCY = "USD"
UNIT = "usd_micros_per_1m_tokens"
#: Answers of `PriceTable.find` that are kept.
MOST_FOUND = 4_096

#: The geographies a region is in. First match wins. Where it has no price of its own, an in-region call costs what
#: theirs do; the commercial US regions are what rows without a region are of.
_GEOGRAPHIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("us-gov-", ("us-gov",)),
    ("eu-", ("eu",)),
    ("ap-northeast-1", ("jp", "apac")),
    ("ap-northeast-3", ("jp", "apac")),
    ("ap-southeast-2", ("au", "apac")),
    ("ap-southeast-4", ("au", "apac")),
    ("ap-south-", ("in", "apac")),
    ("ap-", ("apac",)),
    ("ca-", ("ca",)),
    ("sa-", ("sa",)),
    ("us-", ("us",)),
)

#: Inference profile (None: in-region) and source region (None: where the source has one price for all).
Place = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class PriceRow:
    """The list prices of one model in one place and what they are the prices of."""

    price: Price  # the plain one: default tier, standard latency, short prompts
    model: str  # base model id
    profile: str | None  # inference-profile prefix, "global" among them; None: in-region
    effective_from: dt.date  # the first day of the plain price
    source: str  # a key of the table's "sources"
    prices: Prices = field(compare=False, repr=False)  # the plain one and all others: what calls are priced by
    region: str | None = None  # None: one price for all regions


class PriceTable:
    """List prices of models. Immutable, so that any number of threads may share one."""

    __slots__ = ("_aliases", "_entries", "_found", "_limits", "_models", "_places")

    def __init__(
        self,
        facts: Iterable[PriceFact],
        aliases: Mapping[str, str] | None = None,
        limits: Mapping[str, Limits] | None = None,
    ) -> None:
        """A table of ``facts``; ``aliases`` maps further base ids to ones that have some, ``limits`` is by base id."""
        by_model: dict[str, list[PriceFact]] = {}
        for fact in facts:
            by_model.setdefault(fact.model, []).append(fact)
        self._places = {model: _by_place(found) for model, found in by_model.items()}
        self._entries: Mapping[str, Any] = {}  # of models whose facts nobody has asked for yet
        self._models = tuple(sorted(by_model))
        self._aliases = dict(aliases or {})
        self._limits = dict(limits or {})
        self._found: dict[tuple[str, str | None, str | None, dt.date], PriceRow | None] = {}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, lazily: bool = False) -> "PriceTable":
        """A table from the form that ``bundled.schema.json`` describes. ``lazily``: each model when it is asked for.

        Raises ValueError, naming the place, for anything that is not a table of this version, prices in US dollars.
        """
        for name, expected in (("schema_version", SCHEMA_VERSION), ("currency", CURRENCY), ("unit", UNIT)):
            if data.get(name) != expected:
                raise ValueError(f"{name}: expected {expected!r}, got {data.get(name)!r}")
        limits: dict[str, Limits] = {}
        where = "models"
        try:
            entries: Mapping[str, Any] = data["models"]
            for model, entry in entries.items():
                if "limits" in entry:
                    where = f"models.{model}.limits"
                    limits[model] = _limits(entry["limits"])
            where = "aliases"
            table = cls((), data.get("aliases"), limits)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error!r}") from error
        table._entries = entries
        table._models = tuple(sorted(entries))
        if not lazily:
            for model in entries:
                table._places_of(model)
        return table

    def find(self, model_id: str, *, region: str | None, on: dt.date) -> PriceRow | None:
        """The list price of ``model_id`` on the day ``on``; None if it is not known.

        ``model_id`` is what a call takes: a base id, an inference profile's id, or the ARN of either. ``region`` is
        the one the client calls; an ARN's own counts before it. The first of these that has a price on that day:

        - of a bare id, in-region: 1. this region's price; 2. that of the geography this region is in, if it is not
          the commercial US; 3. the price that is not of a certain region (list prices of the commercial US regions,
          so others may cost more); 4. the dearest geographic one, for models that are served through profiles only;
        - of a geographic profile, which costs what its source region does: 1. this region's price, if it is in that
          geography; 2. the profile's; then as of a bare id;
        - of ``global.``: 1. the global price, this region's first; 2. as of a bare id, which never costs less.

        A day before the first of all these takes the oldest price: a model is not used before its launch, so only a
        clock that is set back can ask for it. None for a model that has no price by the token, for one of which only
        a global price is known (anything else would cost more), and for an ARN that does not name its model.
        """
        parsed = parse_model_id(model_id)
        if parsed.base is None:
            return None
        model = self._aliases.get(parsed.base, parsed.base)
        key = (model, parsed.profile, parsed.region or region, on)
        try:
            return self._found[key]
        except KeyError:
            found = self._chosen(*key)
        if len(self._found) >= MOST_FOUND:
            self._found.clear()
        self._found[key] = found
        return found

    def units(self, model_id: str, *, region: str | None, on: dt.date) -> tuple[UnitPrice, ...]:
        """The prices of ``model_id`` by other units than tokens, on the day ``on``, of the first place in the order of
        `find` that has any; none if none is known."""
        parsed = parse_model_id(model_id)
        if parsed.base is None:
            return ()
        places = self._places_of(self._aliases.get(parsed.base, parsed.base))
        order = [*_order(places, parsed.profile, parsed.region or region), *_geographic(places)]
        for day in (on, None):
            for place in order:
                if found := unit_prices(in_force(places[place], day)):
                    return found
        return ()

    def limits(self, model_id: str) -> Limits | None:
        """What is listed of a model beside its prices; None if nothing is. ``model_id``: as in `find`."""
        base = parse_model_id(model_id).base
        return None if base is None else self._limits.get(self._aliases.get(base, base))

    def models(self) -> tuple[str, ...]:
        """The base ids of all models that have a price, sorted."""
        return self._models

    def facts(self, model: str) -> tuple[PriceFact, ...]:
        """All prices of a base model id; none if it is unknown."""
        return tuple(fact for facts in self._places_of(model).values() for fact in facts)

    def _places_of(self, model: str) -> Mapping[Place, Sequence[PriceFact]]:
        places = self._places.get(model)
        if places is None:
            if model not in self._entries:
                return {}
            places = self._places[model] = _by_place(facts_of(model, self._entries[model]))
        return places

    def _chosen(self, model: str, profile: str | None, region: str | None, on: dt.date) -> PriceRow | None:
        places = self._places_of(model)
        for day in (on, None):
            rows = (_row(model, place, places[place], day) for place in _order(places, profile, region))
            if (row := next(filter(None, rows), None)) is not None:
                return row
            dearest = (_row(model, place, places[place], day) for place in _geographic(places))
            # Profiles of one model differ by a factor, so that any order of the prices agrees on the dearest.
            row = max(filter(None, dearest), key=lambda found: found.price.rates(), default=None)
            if row is not None:
                return row
        return None


def _by_place(facts: Iterable[PriceFact]) -> dict[Place, list[PriceFact]]:
    places: dict[Place, list[PriceFact]] = {}
    for fact in facts:
        places.setdefault((fact.profile, fact.region), []).append(fact)
    return places


def _order(places: Mapping[Place, Any], profile: str | None, region: str | None) -> Iterator[Place]:
    """The places that `PriceTable.find` tries in turn, of those that there are."""
    order: list[Place] = []
    geographies = next((names for prefix, names in _GEOGRAPHIES if region and region.startswith(prefix)), ())
    if profile is not None:
        order += [(profile, region), *([(None, region)] if profile in geographies else []), (profile, None)]
    order += [(None, region), *((name, None) for name in geographies if name != "us"), (None, None)]
    return (place for place in dict.fromkeys(order) if place in places)


def _geographic(places: Mapping[Place, Any]) -> Iterator[Place]:
    return (place for place in places if place[0] not in (None, "global"))


def _row(model: str, place: Place, facts: Iterable[PriceFact], on: dt.date | None) -> PriceRow | None:
    found = price_list(in_force(facts, on))
    if found is None:
        return None
    prices = found.prices
    plain = Price(*prices.rates())
    return PriceRow(plain, model, place[0], found.effective_from, found.source, prices, place[1])


def _limits(listed: Mapping[str, int]) -> Limits:
    if not all(type(value) is int and value >= 0 for value in listed.values()):
        raise ValueError(f"limits must be whole numbers >= 0, got {dict(listed)}")
    return Limits(**listed)


_loaded: dict[str, PriceTable] = {}


def bundled() -> PriceTable:
    """The table that comes with the library, read at the first call."""
    # setdefault is atomic: racing threads may read the file twice but all get one table, with no lock to fork with.
    return _loaded.get("bundled") or _loaded.setdefault("bundled", _load())


def _load() -> PriceTable:
    text = importlib.resources.files("bedrock_budget.prices").joinpath("bundled.json").read_text(encoding="utf-8")
    return PriceTable.from_json(json.loads(text), lazily=True)

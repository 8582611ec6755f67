"""The price table: which list price a model id has on a day."""

import datetime as dt
import importlib.resources
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from ..core.model_ids import parse_model_id
from ..core.pricing import Price
from ..core.worst_case import Limits

SCHEMA_VERSION = 1
CURRENCY = "USD"
UNIT = "usd_micros_per_1m_tokens"


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One list price and what it is the price of."""

    price: Price  # USD micros per 1,000,000 tokens
    model: str  # base model id
    profile: str | None  # inference-profile prefix, "global" among them; None: in-region
    effective_from: dt.date  # the first day of this price
    source: str  # a key of the table's "sources"


#: The rows of one model: by profile, newest first.
_Rows = dict[str | None, tuple[PriceRow, ...]]


class PriceTable:
    """List prices of models. Immutable, so that any number of threads may share one."""

    __slots__ = ("_aliases", "_limits", "_rows")

    def __init__(
        self,
        rows: Iterable[PriceRow],
        aliases: Mapping[str, str] | None = None,
        limits: Mapping[str, Limits] | None = None,
    ) -> None:
        """A table of ``rows``; ``aliases`` maps further base ids to ones that have rows, ``limits`` is by base id."""
        found: dict[str, dict[str | None, list[PriceRow]]] = {}
        for row in rows:
            found.setdefault(row.model, {}).setdefault(row.profile, []).append(row)
        self._rows: dict[str, _Rows] = {
            model: {
                profile: tuple(sorted(dated, key=lambda row: row.effective_from, reverse=True))
                for profile, dated in profiles.items()
            }
            for model, profiles in found.items()
        }
        self._aliases = dict(aliases or {})
        self._limits = dict(limits or {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PriceTable":
        """A table from the form that ``bundled.schema.json`` describes.

        Rows with a ``when`` hold only under its conditions, which this version does not know: they are left out.
        Raises ValueError, naming the place, for anything that is not a table of this version.
        """
        for name, expected in (("schema_version", SCHEMA_VERSION), ("currency", CURRENCY), ("unit", UNIT)):
            if data.get(name) != expected:
                raise ValueError(f"{name}: expected {expected!r}, got {data.get(name)!r}")
        rows: list[PriceRow] = []
        limits: dict[str, Limits] = {}
        where = "models"
        try:
            for model, entry in data["models"].items():
                if "limits" in entry:
                    where = f"models.{model}.limits"
                    limits[model] = _limits(entry["limits"])
                for number, row in enumerate(entry["rows"]):
                    where = f"models.{model}.rows[{number}]"
                    if "when" not in row:
                        rows.append(_row(model, row))
            where = "aliases"
            return cls(rows, data.get("aliases"), limits)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error!r}") from error

    def find(self, model_id: str, *, region: str | None, on: dt.date) -> PriceRow | None:
        """The list price of ``model_id`` on the day ``on``; None if it is not known.

        ``model_id`` is what a call takes: a base id, an inference profile's id, or the ARN of either. The first of
        these that has a price on that day counts:

        1. the row of the very profile (or of the bare, in-region id);
        2. the in-region row: a geographic profile has no price of its own, it costs what its source region costs,
           and ``global`` never costs more than that;
        3. the dearest geographic row, for models that are served through profiles only.

        A day before the first row of all three takes the oldest price: a model is not used before its launch, so
        only a clock that is set back can ask for it. None for a model that is not in the table, for one of which
        only a global price is known (anything else would cost more), and for an ARN that does not name its model.

        ``region`` is the place for regional rows, which the table does not have yet, and makes no difference now.
        In-region rows are list prices of the commercial US regions; other regions, and GovCloud, may cost more.
        """
        parsed = parse_model_id(model_id)
        if parsed.base is None:
            return None
        rows = self._rows.get(self._aliases.get(parsed.base, parsed.base))
        if rows is None:
            return None
        return _choose(rows, parsed.profile, on) or _choose(rows, parsed.profile, None)

    def limits(self, model_id: str) -> Limits | None:
        """What is listed of a model beside its prices; None if nothing is. ``model_id``: as in `find`."""
        base = parse_model_id(model_id).base
        return None if base is None else self._limits.get(self._aliases.get(base, base))

    def models(self) -> tuple[str, ...]:
        """The base ids of all models that have a price, sorted."""
        return tuple(sorted(self._rows))

    def rows(self, model: str) -> tuple[PriceRow, ...]:
        """All rows of a base model id, in-region first, then by profile, newest first; none if it is unknown."""
        profiles = self._rows.get(model, {})
        return tuple(row for profile in sorted(profiles, key=lambda name: name or "") for row in profiles[profile])


def _row(model: str, row: Mapping[str, Any]) -> PriceRow:
    prices = [row[name] for name in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")]
    if not all(type(price) is int and price >= 0 for price in prices):
        raise ValueError(f"prices must be whole numbers >= 0, got {prices}")
    profile, source = row["profile"], row["source"]
    if not (profile is None or isinstance(profile, str)) or not isinstance(source, str):
        raise ValueError(f"profile must be text or null, source text, got {profile!r} and {source!r}")
    return PriceRow(Price(*prices), model, profile, dt.date.fromisoformat(row["from"]), source)


def _limits(listed: Mapping[str, int]) -> Limits:
    if not all(type(value) is int and value >= 0 for value in listed.values()):
        raise ValueError(f"limits must be whole numbers >= 0, got {dict(listed)}")
    return Limits(**listed)


def _choose(rows: _Rows, profile: str | None, on: dt.date | None) -> PriceRow | None:
    """The row that `PriceTable.find` describes; ``on`` None: each profile's oldest."""
    row = _in_force(rows.get(profile, ()), on) or _in_force(rows.get(None, ()), on)
    if row is not None:
        return row
    geographic = (_in_force(dated, on) for name, dated in rows.items() if name != "global")
    # Profiles of one model differ by a factor, so that any order of the prices agrees on the dearest.
    return max((row for row in geographic if row), key=lambda row: astuple(row.price), default=None)


def _in_force(dated: tuple[PriceRow, ...], on: dt.date | None) -> PriceRow | None:
    if on is None:
        return dated[-1] if dated else None
    return next((row for row in dated if row.effective_from <= on), None)


_loaded: dict[str, PriceTable] = {}


def bundled() -> PriceTable:
    """The table that comes with the library, read at the first call."""
    # setdefault is atomic: racing threads may read the file twice but all get one table, with no lock to fork with.
    return _loaded.get("bundled") or _loaded.setdefault("bundled", _load())


def _load() -> PriceTable:
    text = importlib.resources.files("bedrock_budget.prices").joinpath("bundled.json").read_text(encoding="utf-8")
    return PriceTable.from_json(json.loads(text))

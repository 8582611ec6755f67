"""The values a configuration may hold: one check per kind, each adding ``path: problem; remedy`` to a list."""

from collections.abc import Callable, Mapping
from datetime import tzinfo
from decimal import Decimal
from typing import Any, cast

from .budget import ALL_LABELS, AUTO, UNLABELLED, HandPrice, ModelLabel
from .keys import id_problem
from .pricing import Price

Check = Callable[[Any, str, list[str]], Any]

#: Stands for any org or app that is not listed when the defaults are checked.
UNLISTED = "<any other>"
MAX_SHARDS = 1024

_PRICE_KEYS = {
    "input_price_usd_micros_per_1m": "input",
    "output_price_usd_micros_per_1m": "output",
    "cache_read_price_usd_micros_per_1m": "cache_read",
    "cache_write_5m_price_usd_micros_per_1m": "cache_write_5m",
    "cache_write_1h_price_usd_micros_per_1m": "cache_write_1h",
}
_LIMIT_KEYS = ("context_window_tokens", "max_output_tokens")


def whole(value: Any) -> int | None:
    """A whole number, from an int or an integral Decimal (DynamoDB's numbers); None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    return value if isinstance(value, int) else None


def mapping(value: Any, path: str, problems: list[str]) -> bool:
    if isinstance(value, Mapping):
        return True
    problems.append(f"{path}: must be a mapping, got {type(value).__name__} {value!r}")
    return False


def text(value: Any, path: str, problems: list[str]) -> str | None:
    if isinstance(value, str) and value:
        return value
    problems.append(f"{path}: must be text, got {value!r}; put it in quotes")
    return None


def boolean(value: Any, path: str, problems: list[str]) -> bool | None:
    if isinstance(value, bool):
        return value
    problems.append(f"{path}: must be true or false, got {value!r}")
    return None


def whole_number(low: int, high: int | None = None) -> Check:
    """A check for a whole number from ``low`` to ``high``."""
    allowed = f">= {low}" if high is None else f"from {low} to {high}"

    def check(value: Any, path: str, problems: list[str]) -> int | None:
        number = whole(value)
        if number is None or number < low or (high is not None and number > high):
            problems.append(f"{path}: must be a whole number {allowed}, got {value!r}")
            return None
        return number

    return check


_tokens = whole_number(1)


def one_of(*words: str) -> Check:
    """A check for one of some words."""

    def check(value: Any, path: str, problems: list[str]) -> str | None:
        if isinstance(value, str) and value in words:
            return value
        problems.append(f"{path}: must be {' or '.join(map(repr, words))}, got {value!r}")
        return None

    return check


def quota_scope(value: Any, path: str, problems: list[str]) -> str | None:
    return cast("str | None", one_of("ORG", "APP")(value, path, problems))


def timezone(zone_of: Callable[[str], tzinfo]) -> Check:
    """A check for the name of a time zone; gives the name and its zone."""

    def check(value: Any, path: str, problems: list[str]) -> tuple[str, tzinfo] | None:
        name = text(value, path, problems)
        if name is None:
            return None
        try:
            return name, zone_of(name)
        except (ValueError, KeyError, OSError):
            problems.append(f"{path}: unknown time zone {name!r}; use an IANA name such as 'America/New_York' or 'UTC'")
            return None

    return check


def model_ordering(value: Any, path: str, problems: list[str]) -> list[str] | None:
    if not isinstance(value, list | tuple) or not value:
        problems.append(f"{path}: must be a list of at least one label, got {value!r}")
        return None
    ordering: list[Any] = list(cast("list[Any]", value))
    if not all(isinstance(label, str) for label in ordering):
        problems.append(f"{path}: labels must be text, got {value!r}; put them in quotes")
        return None
    if len(set(ordering)) < len(ordering):
        problems.append(f"{path}: names a label twice: {value!r}; list each label once")
        return None
    return ordering


def quotas(value: Any, path: str, problems: list[str]) -> dict[str, int | None]:
    if not mapping(value, path, problems):
        return {}
    result: dict[str, int | None] = {}
    for label, quota in cast(Mapping[Any, Any], value).items():
        number = whole(quota)
        if quota is not None and (number is None or number < 0):
            problems.append(
                f"{path}.{label}: {quota!r} is not a quota; give a whole number >= 0 of USD micros a day "
                "(10000000 is $10), or null for unlimited"
            )
        else:
            result[label] = number
    return result


def model_labels(value: Any, path: str, problems: list[str]) -> dict[str, ModelLabel] | None:
    if not mapping(value, path, problems):
        return None
    labels: dict[str, ModelLabel] = {}
    for label, entry in cast(Mapping[Any, Any], value).items():
        where = f"{path}.{label}"
        if problem := id_problem(label):
            problems.append(f"{where}: a label {problem}")
        elif label in (AUTO, UNLABELLED, ALL_LABELS):
            problems.append(f"{where}: {label!r} has a meaning of its own; choose another label")
        elif mapping(entry, where, problems):
            for key in entry:
                if key != "id" and key not in _PRICE_KEYS and key not in _LIMIT_KEYS:
                    known = ", ".join(("id", *_PRICE_KEYS, *_LIMIT_KEYS))
                    problems.append(f"{where}.{key}: unknown key; known here: {known}")
            model_id = text(entry["id"], f"{where}.id", problems) if "id" in entry else None
            if "id" not in entry:
                problems.append(f"{where}.id: missing; give a model id, inference profile id or ARN")
            price = hand_price({key: entry[key] for key in _PRICE_KEYS if key in entry}, where, problems)
            limits = {key: _tokens(entry[key], f"{where}.{key}", problems) for key in _LIMIT_KEYS if key in entry}
            if model_id is not None:
                labels[label] = ModelLabel(label, model_id, price, **limits)
    if not value:
        problems.append(f"{path}: is empty; map at least one label to a model id")
    return labels


def hand_price(entry: Mapping[str, Any], path: str, problems: list[str]) -> HandPrice | None:
    """The price given by the price keys of ``entry``; None if it has none of them."""
    if not entry:
        return None
    rates: dict[str, int] = {}
    for key, value in entry.items():
        rate = whole(value)
        if rate is None or rate < 0:
            problems.append(f"{path}.{key}: must be a whole number >= 0 of USD micros per 1M tokens, got {value!r}")
            return None
        rates[_PRICE_KEYS[key]] = rate
    for key, kind in list(_PRICE_KEYS.items())[:2]:
        if kind not in rates:
            problems.append(f"{path}.{key}: missing; a price by hand needs input and output (0 for embeddings)")
            return None
    return HandPrice(**rates)


def on_unknown_price(value: Any, path: str, problems: list[str]) -> Any:
    """``"reject"``, ``"track"``, or a price: a mapping with the price keys, or one number for all kinds of token."""
    if value in ("reject", "track"):
        return value
    number = whole(value)
    if number is not None and number >= 0:
        return Price(number, number, number, number, number)
    if isinstance(value, Mapping) and value and set(cast(Mapping[str, Any], value)) <= set(_PRICE_KEYS):
        price = hand_price(cast(Mapping[str, Any], value), path, problems)
        return price.over(None) if price else None
    problems.append(
        f"{path}: must be 'reject', 'track' or a price ({{input_price_usd_micros_per_1m: ..., "
        f"output_price_usd_micros_per_1m: ...}}), got {value!r}"
    )
    return None


def on_store_error(value: Any, path: str, problems: list[str]) -> Any:
    """``"open"``, ``"closed"``, or the USD micros that may be spent blind."""
    if value in ("open", "closed"):
        return value
    number = whole(value)
    if number is None or number < 0:
        problems.append(f"{path}: must be a whole number >= 0 of USD micros, 'open' or 'closed', got {value!r}")
        return None
    return number


def _optional_micros(value: Any, path: str, problems: list[str]) -> int | None:
    """USD micros, or None for no limit."""
    if value is None:
        return None
    number = whole(value)
    if number is None or number < 0:
        problems.append(
            f"{path}: must be a whole number >= 0 of USD micros (10000000 is $10), or null for no limit, got {value!r}"
        )
        return None
    return number


def stop_at_pct(value: Any, path: str, problems: list[str]) -> int | None:
    """A percentage of the daily total, which may be above 100; None switches the automatic stop off."""
    return None if value is None else whole_number(1)(value, path, problems)


def check_total(
    pct: int | None, ordering: list[str], quotas: Mapping[str, int | None], path: str, problems: list[str]
) -> None:
    """A percentage of a scope's daily total needs a total."""
    unlimited = [label for label in ordering if label in quotas and quotas[label] is None]
    if pct is not None and unlimited:
        problems.append(
            f"{path}: {pct} % of what? The quotas of the ordering have no sum while one is unlimited "
            f"({', '.join(unlimited)}); give each label a quota, set daily_total_usd_micros, or leave stop_at_pct out"
        )


NUMBERS: dict[str, Check] = {
    "agg_shard_count": whole_number(1, MAX_SHARDS),
    "tight_mode_threshold_pct": whole_number(1, 100),
    "refresh_interval_normal_secs": whole_number(1),
    "refresh_interval_tight_secs": whole_number(1),
    "aggregator_interval_secs": whole_number(1),
}

SETTINGS: dict[str, Check] = {
    "refresh": one_of("adaptive", "fixed"),
    "on_exhausted": one_of("raise", "last"),
    "on_unknown_model": one_of("reject", "pass"),
    "on_unknown_price": on_unknown_price,
    "on_store_error": on_store_error,
    "enforcement": one_of("normal", "strict", "shadow"),
    "max_cost_usd_micros": _optional_micros,
}

CAPS: dict[str, Check] = {
    "daily_total_usd_micros": _optional_micros,
    "org_daily_total_usd_micros": _optional_micros,
}

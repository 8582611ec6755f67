"""The keywords of the client and of calls that no configuration can set: checked here."""

from typing import cast

from botocore.exceptions import ParamValidationError

from .core.errors import ConfigError
from .core.money import PICO_PER_MICRO
from .stores import Store, default_store_url, open_store


def max_cost_pico_usd(given: object) -> int | None:
    """The limit of one call, from its ``max_cost_usd_micros``; None: the client's, if there is one."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ParamValidationError(
            report=f"Invalid value for parameter max_cost_usd_micros: {given!r}; give a whole number >= 0 of USD micros"
        )
    return given * PICO_PER_MICRO


def store_of(store: str | Store | None) -> Store:
    """The store that ``store=`` means. Raises ConfigError."""
    if store is None:
        store = default_store_url()
    if isinstance(store, str):
        return open_store(store)
    if not isinstance(cast(object, store), Store):
        raise ConfigError(f"store: must be a URL or a Store, got {type(store).__name__}")
    return store


def check_process_keywords(*, metering: object, drain_abandoned: object, clock: object) -> None:
    """The keywords that are the process's alone, which no configuration can set."""
    if metering not in ("background", "sync"):
        raise ConfigError(f"metering: must be 'background' or 'sync', got {metering!r}")
    if not isinstance(drain_abandoned, bool):
        raise ConfigError(f"drain_abandoned: must be True or False, got {drain_abandoned!r}")
    if clock is not None and not all(callable(getattr(clock, name, None)) for name in ("now", "monotonic")):
        raise ConfigError(f"clock: must be an object with now() and monotonic(), got {clock!r}")

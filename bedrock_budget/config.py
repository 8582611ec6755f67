"""Reading configurations: a YAML file, a mapping, or nothing but the Config table."""

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

from .core.budget_rules import Budgets, check
from .core.errors import ConfigError

CONFIG_VARIABLE = "BEDROCK_BUDGET_CONFIG"

ConfigSource = str | os.PathLike[str] | Mapping[str, Any]


def load_budgets(config: ConfigSource | None) -> Budgets | None:
    """The checked configuration of a path, a mapping, or ``$BEDROCK_BUDGET_CONFIG`` (``config`` None).

    None if there is none: then every org must have its item in the Config table.
    Raises ConfigError with all the mistakes found.
    """
    if config is None:
        config = os.environ.get(CONFIG_VARIABLE) or None
        if config is None:
            return None
    if isinstance(config, Mapping):
        return check(_copied(config), source="config", zone_of=ZoneInfo)  # the caller may change it later
    if not isinstance(cast(object, config), str | os.PathLike):
        raise ConfigError(f"config: must be the path of a YAML file, a mapping or None, got {config!r}")
    return check(_read_yaml(Path(config)), source=str(config), zone_of=ZoneInfo)


def _copied(value: Any) -> Any:
    given: Any = value
    if isinstance(value, Mapping):
        return {key: _copied(given[key]) for key in given}
    return [_copied(inner) for inner in cast("list[Any]", value)] if isinstance(value, list | tuple) else value


def table_budgets() -> Budgets:
    """The empty configuration under the Config table's items."""
    return Budgets("the Config table", {}, ZoneInfo)


def _read_yaml(path: Path) -> object:
    import yaml  # noqa: PLC0415 - not on the way of programs that give a mapping

    class Loader(yaml.SafeLoader):
        """A safe loader that refuses a key given twice, of which YAML would silently keep the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys: list[Any] = [cast(Any, self).construct_object(key, deep=True) for key, _ in node.value]
            twice = {str(key) for key in keys if keys.count(key) > 1}
            if twice:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {', '.join(sorted(twice))} is given twice", node.start_mark
                )
            return super().construct_mapping(node, deep)

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:  # no UTF-8, or no path
        raise ConfigError(
            f"{path}: cannot be read ({exc.strerror if isinstance(exc, OSError) else exc}); "
            f"give the path of a budget.yaml as config= or in ${CONFIG_VARIABLE}"
        ) from exc
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except Exception as exc:  # PyYAML also lets through what its values raised, for an impossible date say
        raise ConfigError(f"{path}: is not valid YAML: {exc}") from exc

"""``bundled.schema.json`` and the data agree. The checker knows the keywords that the schema uses, and no others."""

import copy
import importlib.resources
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bedrock_budget.core.model_ids import PROFILE_PREFIXES
from bedrock_budget.core.price_facts import TOKEN_KINDS, UNIT_KINDS
from bedrock_budget.core.worst_case import Limits
from bedrock_budget.prices import table

FOLDER = importlib.resources.files("bedrock_budget.prices")
SCHEMA: dict[str, Any] = json.loads(FOLDER.joinpath("bundled.schema.json").read_text(encoding="utf-8"))
DATA: dict[str, Any] = json.loads(FOLDER.joinpath("bundled.json").read_text(encoding="utf-8"))

TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}
SIMPLE: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda rule, value: TYPES[rule](value),
    "const": lambda rule, value: rule == value and type(rule) is type(value),
    "enum": lambda rule, value: value in rule,
    "pattern": lambda rule, value: re.search(rule, value) is not None,
    "required": lambda rule, value: set(rule) <= value.keys(),
    "minimum": lambda rule, value: value >= rule,
    "minLength": lambda rule, value: len(value) >= rule,
    "minItems": lambda rule, value: len(value) >= rule,
    "minProperties": lambda rule, value: len(value) >= rule,
}
ANNOTATIONS = {"$schema", "$defs", "title", "description"}


def problems(schema: Any, value: Any, path: str = "$") -> Iterator[str]:
    if schema is False:
        yield f"{path} is not allowed"
        return
    for keyword, rule in schema.items():
        if keyword in SIMPLE:
            if not SIMPLE[keyword](rule, value):
                yield f"{path} {keyword}"
                if keyword == "type":
                    return
        elif keyword == "$ref":
            yield from problems(SCHEMA["$defs"][rule.removeprefix("#/$defs/")], value, path)
        elif keyword == "items":
            for number, item in enumerate(value):
                yield from problems(rule, item, f"{path}[{number}]")
        elif keyword == "propertyNames":
            for name in value:
                yield from problems(rule, name, f"{path} key {name}")
        elif keyword == "properties":
            for name in rule.keys() & value.keys():
                yield from problems(rule[name], value[name], f"{path}.{name}")
        elif keyword == "additionalProperties":
            for name in value.keys() - schema.get("properties", {}).keys():
                yield from problems(rule, value[name], f"{path}.{name}")
        else:
            assert keyword in ANNOTATIONS, f"the checker does not know {keyword}"


def test_the_bundled_table_is_valid() -> None:
    assert list(problems(SCHEMA, DATA)) == []


NOVA = ("models", "amazon.nova-pro-v1:0", "rows", 0)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), 1),
        (("schema_version",), True),
        (("generated",), "21 November"),
        (("currency",), "EUR"),
        (("unit",), "usd_per_token"),
        (("extra",), 1),
        (("sources", "litellm", "licence"), ""),
        (("sources", "litellm", "url"), "http://example.com"),
        (("aliases", "amazon.nova"), "nova"),
        (("models", "nova"), {"rows": []}),
        (("models", "amazon.nova-pro-v1:0", "rows"), []),
        (("models", "amazon.nova-pro-v1:0", "extra"), 1),
        (("models", "amazon.nova-pro-v1:0", "limits", "context_window_tokens"), 0),
        (("models", "amazon.nova-pro-v1:0", "limits", "priority_pct"), 99),
        (("models", "amazon.nova-pro-v1:0", "limits", "extra"), 1),
        ((*NOVA, "profile"), "mars"),
        ((*NOVA, "from"), "2025-1-1"),
        ((*NOVA, "input"), 0.8),
        ((*NOVA, "output"), -1),
        ((*NOVA, "cache_read"), None),
        ((*NOVA, "cache_write_1h"), True),
        (("models", "amazon.nova-pro-v1:0", "units"), []),
        (("models", "amazon.nova-pro-v1:0", "units"), [{"kind": "image"}]),
        ((*NOVA, "tier"), "flex"),
        ((*NOVA, "when"), {}),
        ((*NOVA, "when"), {"tier": ""}),
        ((*NOVA, "when"), {"moon": "full"}),
        ((*NOVA, "when"), {"input_above": 0}),
    ],
)
def test_a_broken_table_is_not(place: tuple[str | int, ...], value: object) -> None:
    broken: Any = copy.deepcopy(DATA)
    inner = broken
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    assert list(problems(SCHEMA, broken)) != []


@pytest.mark.parametrize("name", SCHEMA["$defs"]["row"]["required"])
def test_a_row_without_a_member_is_not(name: str) -> None:
    broken = copy.deepcopy(DATA)
    del broken["models"]["amazon.nova-pro-v1:0"]["rows"][0][name]
    assert list(problems(SCHEMA, broken)) == ["$.models.amazon.nova-pro-v1:0.rows[0] required"]


@pytest.mark.parametrize(
    "when", [{"tier": "flex"}, {"region": "eu-west-1", "latency": "optimized"}, {"input_above": 200_000}]
)
def test_there_is_a_place_for_conditions(when: dict[str, object]) -> None:
    extended = copy.deepcopy(DATA)
    rows = extended["models"]["amazon.nova-pro-v1:0"]["rows"]
    rows.append({**rows[0], "when": when})
    assert list(problems(SCHEMA, extended)) == []


def test_the_schema_says_what_the_code_does() -> None:
    properties = SCHEMA["properties"]
    assert properties["schema_version"]["const"] == table.SCHEMA_VERSION
    assert properties["currency"]["const"] == table.CURRENCY
    assert properties["unit"]["const"] == table.UNIT
    assert set(SCHEMA["$defs"]["limits"]["properties"]) == set(Limits._fields)
    assert set(SCHEMA["$defs"]["profile"]["enum"]) == {None, *PROFILE_PREFIXES}
    assert set(TOKEN_KINDS) < set(SCHEMA["$defs"]["row"]["properties"])
    assert set(UNIT_KINDS) <= set(SCHEMA["$defs"]["unit"]["properties"]["kind"]["description"].rstrip(".").split(", "))

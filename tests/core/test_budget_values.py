"""Single values of a configuration, where a whole configuration would be in the way."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core import budget_values as values


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0),
        (-5, -5),
        (10**30, 10**30),
        (Decimal(5), 5),
        (Decimal("5.0"), 5),
        (Decimal("1E+3"), 1000),
        (Decimal("5.5"), None),
        (Decimal("NaN"), None),
        (Decimal("sNaN"), None),
        (Decimal("Infinity"), None),
        (5.0, None),
        ("5", None),
        (True, None),
        (False, None),
        (None, None),
        ([5], None),
    ],
)
def test_whole_numbers(value: Any, number: int | None) -> None:
    found = values.whole(value)
    assert found == number
    assert found is None or type(found) is int


@given(st.integers(), st.integers(-5, 5), st.one_of(st.none(), st.integers(5, 15)))
def test_a_whole_number_is_taken_exactly_between_its_bounds(value: int, low: int, high: int | None) -> None:
    problems: list[str] = []
    found = values.whole_number(low, high)(value, "path", problems)
    inside = value >= low and (high is None or value <= high)
    assert found == (value if inside else None)
    assert bool(problems) is not inside
    assert all(line.startswith("path: must be a whole number") and repr(value) in line for line in problems)


def test_a_word_is_one_of_those_allowed() -> None:
    problems: list[str] = []
    check = values.one_of("now", "today")
    assert check("now", "path", problems) == "now"
    assert check("today", "path", problems) == "today"
    assert problems == []
    assert check("never", "path", problems) is None
    assert check(["now"], "path", problems) is None
    assert problems == [
        "path: must be 'now' or 'today', got 'never'",
        "path: must be 'now' or 'today', got ['now']",
    ]


@pytest.mark.parametrize("value", [["a", "b"], ("a", "b")])
def test_an_ordering_is_a_list_or_a_tuple(value: Any) -> None:
    problems: list[str] = []
    assert values.model_ordering(value, "path", problems) == ["a", "b"]
    assert problems == []


def test_no_price_keys_mean_no_price_by_hand() -> None:
    problems: list[str] = []
    assert values.hand_price({}, "path", problems) is None
    assert problems == []


def test_quotas_that_are_wrong_are_left_out() -> None:
    problems: list[str] = []
    assert values.quotas({"a": 1, "b": "2", "c": None, "d": Decimal(3)}, "path", problems) == {
        "a": 1,
        "c": None,
        "d": 3,
    }
    assert len(problems) == 1
    assert problems[0].startswith("path.b: '2' is not a quota")


def test_limits_of_a_model() -> None:
    problems: list[str] = []
    entry = {"id": "acme.m", "context_window_tokens": Decimal(1_000_000), "max_output_tokens": 1}
    labels = values.model_labels({"premium": entry, "economy": {"id": "acme.n"}}, "model_labels", problems)
    assert problems == []
    assert labels is not None
    assert (labels["premium"].context_window_tokens, labels["premium"].max_output_tokens) == (1_000_000, 1)
    assert (labels["economy"].context_window_tokens, labels["economy"].max_output_tokens) == (None, None)


@pytest.mark.parametrize("key", ["context_window_tokens", "max_output_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "200000", True, None])
def test_limits_of_a_model_are_whole_numbers(key: str, value: Any) -> None:
    problems: list[str] = []
    values.model_labels({"premium": {"id": "acme.m", key: value}}, "model_labels", problems)
    assert problems == [f"model_labels.premium.{key}: must be a whole number >= 1, got {value!r}"]

"""How a response says that it was served."""

from typing import Any

import pytest

from bedrock_budget.core.served import (
    LATENCY_HEADER,
    TIER_HEADER,
    Served,
    served_at_worst,
    served_of,
    served_of_headers,
)


@pytest.mark.parametrize(
    ("said", "served"),
    [
        ({}, None),
        ({"serviceTier": {"type": "default"}}, None),
        ({"serviceTier": {"type": "default"}, "performanceConfig": {"latency": "standard"}}, None),
        ({"serviceTier": {}, "performanceConfig": {}}, None),
        ({"serviceTier": None, "performanceConfig": None}, None),
        ({"serviceTier": {"type": "flex"}}, Served("flex")),
        ({"serviceTier": {"type": "express"}}, Served("express")),
        ({"serviceTier": {"type": 5}}, Served("5")),
        ({"performanceConfig": {"latency": "optimized"}}, Served(latency="optimized")),
        ({"serviceTier": "priority", "performanceConfigLatency": "optimized"}, Served("priority", "optimized")),
        ({"serviceTier": "default", "performanceConfigLatency": "standard"}, None),
    ],
)
def test_responses(said: dict[str, Any], served: Served | None) -> None:
    assert served_of({"usage": {}, **said}) == served


def test_headers() -> None:
    assert served_of_headers({"content-type": "application/json"}) is None
    assert served_of_headers({TIER_HEADER: "default"}) is None
    assert served_of_headers({TIER_HEADER: "flex"}) == Served("flex")
    assert served_of_headers({LATENCY_HEADER: "optimized"}) == Served(latency="optimized")


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ({}, None),
        ({"serviceTier": {"type": "priority"}}, Served("priority")),
        ({"serviceTier": {"type": "flex"}}, None),
        ({"serviceTier": "reserved", "performanceConfigLatency": "optimized"}, Served(latency="optimized")),
        ({"performanceConfig": {"latency": "optimized"}}, Served(latency="optimized")),
    ],
)
def test_a_call_that_said_nothing_was_not_served_cheaper_than_usual(
    asked: dict[str, Any], served: Served | None
) -> None:
    assert served_at_worst(asked) == served

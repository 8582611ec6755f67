"""The stream of the usage table, which `bedrock_budget.aggregator.stream_handler` can follow."""

from collections.abc import Mapping
from typing import Any, NamedTuple

#: What a record of a new stream carries: the item's keys and what it holds after the change.
VIEW = "NEW_IMAGE"


class TableStream(NamedTuple):
    """A table's stream: its ARN, for an event source mapping, and what its records carry."""

    arn: str
    view: str


def stream_of(description: Mapping[str, Any]) -> TableStream | None:
    """The stream that a table's description names, None if it has none or it is switched off."""
    specification: Mapping[str, Any] = description.get("StreamSpecification") or {}
    if not specification.get("StreamEnabled"):
        return None
    return TableStream(description.get("LatestStreamArn", ""), specification.get("StreamViewType", ""))


def stream_update(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters of UpdateTable that give a table a stream. None: it has one, whose records serve whatever they
    carry, for the keys are in all of them; another program may depend on the rest."""
    if stream_of(description) is not None:
        return None
    return {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": VIEW}}

"""pytest fixtures. Opt in with ``pytest_plugins = ["bedrock_budget.testing.pytest_plugin"]``."""

from collections.abc import Iterator

import pytest

from .clock import ManualClock
from .local_bedrock import LocalBedrock


@pytest.fixture
def local_bedrock() -> Iterator[LocalBedrock]:
    """A running `LocalBedrock` of this test's own."""
    with LocalBedrock() as server:
        yield server


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock at a fixed date that moves only when told to."""
    return ManualClock()

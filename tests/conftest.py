"""Fixtures of the whole suite."""

import os

from hypothesis import settings

pytest_plugins = ["bedrock_budget.testing.pytest_plugin", "engines.fixtures"]

# No test depends on how fast a machine is. In CI hypothesis has a profile of its own, which says the same.
settings.register_profile("no deadline", deadline=None)
if os.environ.get("CI") != "true":
    settings.load_profile("no deadline")

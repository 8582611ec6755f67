"""Fixtures of the whole suite."""

pytest_plugins = ["bedrock_budget.testing.pytest_plugin", "engines.fixtures"]

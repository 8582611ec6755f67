"""Errors that need nothing of botocore. ``bedrock_budget.errors`` adds the rest and re-exports these."""


class BudgetError(Exception):
    """Base of every error this library raises."""


class ConfigError(BudgetError):
    """A mistake in a configuration, an id or a keyword: names where, what was given, and the remedy."""


class UnknownModel(BudgetError):
    """The ``modelId`` of a call is neither a label nor the model id of one (``on_unknown_model="reject"``)."""


class UnknownPrice(BudgetError):
    """No price is known for the model of a call (``on_unknown_price="reject"``)."""


class BodyNotPortable(BudgetError):
    """A fixed ``invoke_model`` body can go to none of the labels that still have quota."""


class CostLimitExceeded(BudgetError):
    """The worst case of one call is above ``max_cost_usd_micros``."""


class StoreError(BudgetError):
    """The store did not answer, or its answer cannot be trusted. Never means "no spend".

    ``refused``: it answered, and what it was asked to write was certainly not written.
    """

    refused = False

"""List prices of Bedrock models: the bundled table and how a model id finds its row.

The data is ``bundled.json``: ``bundled.schema.json`` describes it, ``python -m bedrock_budget.prices.build`` makes it.
"""

from .table import PriceRow, PriceTable, bundled

__all__ = ["PriceRow", "PriceTable", "bundled"]

from dataclasses import dataclass

import pytest

from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import Ledger, LedgerEntry


@dataclass(frozen=True)
class FivePrices:
    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int


def entry(model: str, usage: Usage, *, status: int = 200, operation: str = "Converse") -> LedgerEntry:
    return LedgerEntry("id", operation, model, usage, 1.5, True, status)


def test_sums_billed_entries_per_model() -> None:
    ledger = Ledger()
    ledger.record(entry("a", Usage(1, 2, 3, 4, 5)))
    ledger.record(entry("a", Usage(10, 20, 30, 40, 50)))
    ledger.record(entry("b", Usage(7)))
    ledger.record(entry("b", Usage(), status=429))
    ledger.record(entry("c", Usage(), operation="CountTokens"))
    assert len(ledger) == 5
    assert ledger.usage_by_model() == {"a": Usage(11, 22, 33, 44, 55), "b": Usage(7)}


def test_cost_counts_every_kind_at_its_price() -> None:
    ledger = Ledger()
    ledger.record(entry("a", Usage(1, 10, 100, 1_000, 10_000)))
    ledger.record(entry("b", Usage(20, 5)))
    prices = {"a": FivePrices(2, 3, 5, 7, 11), "b": FivePrices(35_000, 140_000, 0, 0, 0)}
    assert ledger.cost_pico_usd(prices) == 117_532 + 1_400_000
    with pytest.raises(KeyError, match="'b'"):
        ledger.cost_pico_usd({"a": prices["a"]})


def test_entries_is_a_copy_and_clear_forgets() -> None:
    ledger = Ledger()
    ledger.record(entry("a", Usage(1)))
    ledger.entries().clear()
    assert len(ledger) == 1
    ledger.clear()
    assert ledger.entries() == []


def test_an_entry_as_json_values() -> None:
    assert entry("m", Usage(1, 2)).as_dict() == {
        "request_id": "id",
        "operation": "Converse",
        "model_id": "m",
        "usage": {
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_read_tokens": 0,
            "cache_write_5m_tokens": 0,
            "cache_write_1h_tokens": 0,
        },
        "started_at": 1.5,
        "complete": True,
        "status": 200,
    }

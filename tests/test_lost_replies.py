"""A reply lost after the store applied the write is not a double count, through the whole library."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from engines import proxy

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.prices import bundled
from bedrock_budget.stores import DynamoDBStore
from bedrock_budget.testing import LocalBedrock

CALLS = 1_000
MODEL = "amazon.nova-micro-v1:0"
CONFIG: dict[str, Any] = {
    "model_labels": {"economy": {"id": MODEL}},
    "org_defaults": {"timezone": "UTC", "model_ordering": ["economy"], "quotas": {"economy": None}},
}


def test_a_thousand_calls_with_replies_lost_sum_exactly(
    dynamodb_store: DynamoDBStore, dynamodb_endpoint: str, table_prefix: str
) -> None:
    lose = random.Random(20261121)
    lost = 0

    def rule(request: proxy.Request) -> proxy.Answer | str:
        nonlocal lost
        if request.operation == "UpdateItem" and lose.random() < 0.3:
            lost += 1
            return proxy.DROP_REPLY
        return proxy.FORWARD

    day = datetime.now(UTC).strftime("%Y%m%d")
    with LocalBedrock(usage=Usage(20, 5)) as server, proxy.running(dynamodb_endpoint, rule) as between:
        url = f"dynamodb://?region=us-east-1&prefix={table_prefix}&endpoint_url={between.url}"
        bedrock = PriceKeeperClient(
            server.client(), org_id="acme", app_id="lost", config=CONFIG, store=url, metering="sync"
        )
        for _ in range(CALLS):  # "sync": one write a call, so that every call meets the proxy
            bedrock.converse(messages=[{"role": "user", "content": [{"text": "hello"}]}])
        assert bedrock.flush(timeout=30)
        row = bundled().find(MODEL, region=None, on=datetime.now(UTC).date())
        assert row is not None
        served_pico = server.ledger.cost_pico_usd({MODEL: row.price})
        bedrock.close()
    if datetime.now(UTC).strftime("%Y%m%d") != day:
        pytest.skip("midnight UTC fell into the run")
    key = UsageKey("ORG#acme#APP#lost", "economy", day)
    found = dynamodb_store.read_shards({key: 8})[key].amounts
    print(f"{lost} replies lost of {between.count('UpdateItem')} writes")
    assert lost > CALLS // 5
    assert found.requests == CALLS
    assert found.cost_pico_usd == served_pico == CALLS * 1_400_000

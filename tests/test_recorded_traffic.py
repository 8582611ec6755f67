"""Real recorded interactions, served over loopback HTTP to an unchanged boto3 client, meter the expected tokens."""

import base64
import datetime as dt
import gzip
import json
import os
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.model_ids import request_format
from bedrock_budget.core.pricing import cost_pico_usd
from bedrock_budget.core.request_bounds import request_bounds
from bedrock_budget.core.usage import Usage
from bedrock_budget.core.worst_case import WorstCase
from bedrock_budget.prices import bundled
from bedrock_budget.testing import LocalBedrock, RawReply

RECORDED = Path(__file__).parents[2] / "shared" / "recorded" / "bedrock-traffic.jsonl.gz"

CONFIG: dict[str, Any] = {
    "model_labels": {"premium": {"id": "not.called"}},
    "org_defaults": {
        "timezone": "UTC",
        "model_ordering": ["premium"],
        "quotas": {"premium": None},
        "on_unknown_model": "pass",
        "on_unknown_price": "track",
    },
}


def records() -> list[dict[str, Any]]:
    if not RECORDED.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{RECORDED} is absent")
        pytest.skip(f"no recorded traffic at {RECORDED}")
    with gzip.open(RECORDED, "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def metered(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    client = local_bedrock.client()
    with PriceKeeperClient(client, org_id="acme", app_id="recorded", config=CONFIG, store="memory://") as bedrock:
        yield bedrock


def call(bedrock: PriceKeeperClient, record: dict[str, Any]) -> dict[str, Any]:
    """The record's interaction, read to its end as an application would; the library's own record of it."""
    operation, model_id = record["operation"], record["model_id"]
    messages = [{"role": "user", "content": [{"text": "hello"}]}]
    if operation == "Converse":
        response = bedrock.converse(modelId=model_id, messages=messages)
    elif operation == "ConverseStream":
        response = bedrock.converse_stream(modelId=model_id, messages=messages)
        list(response["stream"])
    elif operation == "InvokeModel":
        response = bedrock.invoke_model(modelId=model_id, body=b"{}")
        assert response["body"].read() == base64.b64decode(record["response_body_b64"])
    else:
        response = bedrock.invoke_model_with_response_stream(modelId=model_id, body=b"{}")
        list(response["body"])
    return dict(response["ResponseMetadata"]["PriceKeeper"])


def serve(server: LocalBedrock, record: dict[str, Any]) -> None:
    server.on_request = lambda request: RawReply(
        record["status"], record["response_headers"], base64.b64decode(record["response_body_b64"])
    )


def test_every_record_with_expected_tokens_meters_exactly_them(
    local_bedrock: LocalBedrock, metered: PriceKeeperClient
) -> None:
    wrong: list[str] = []
    counted = [record for record in records() if record["expected"]]
    for record in counted:
        serve(local_bedrock, record)
        usage = call(metered, record)["usage"]
        expected = record["expected"]
        got = {
            "input": usage["input_tokens"],
            "output": usage["output_tokens"],
            "cache_read": usage["cache_read_tokens"],
            "cache_write": usage["cache_write_5m_tokens"] + usage["cache_write_1h_tokens"],
            "cache_write_1h": usage["cache_write_1h_tokens"],
        }
        if got != {key: expected[key] for key in got}:
            wrong.append(f"{record['id']} {record['model_id']}: {got} != {expected}")
    print(f"{len(counted) - len(wrong)} of {len(counted)} recorded responses metered exactly")
    assert not wrong, "\n".join(wrong)
    assert len(counted) == 413


def test_records_without_usage_are_refusals_at_no_cost_or_estimates_that_say_so(
    local_bedrock: LocalBedrock, metered: PriceKeeperClient
) -> None:
    seen = 0
    for record in records():
        if record["expected"] or record["operation"] == "CountTokens":
            continue
        serve(local_bedrock, record)
        seen += 1
        try:
            noted = call(metered, record)
        except EventStreamError:
            continue  # a real stream that broke off; its settlement is tested in test_streams
        except ClientError as error:
            assert record["status"] >= 400
            noted = error.response["ResponseMetadata"]["PriceKeeper"]
            assert noted["cost_pico_usd"] == 0
            assert not noted["estimated"]
            assert set(noted["usage"].values()) == {0}
        else:
            if "guardrail_invoke_stream" in record["id"]:  # its input was blocked: no model ran
                assert not noted["estimated"]
                assert noted["cost_pico_usd"] == 0
                continue
            assert noted["estimated"], record["id"]
            assert noted["usage"]["input_tokens"] + noted["usage"]["output_tokens"] > 0
    assert seen == 20


def test_recorded_counts_of_tokens_are_never_charged(local_bedrock: LocalBedrock, metered: PriceKeeperClient) -> None:
    for record in records():
        if record["operation"] != "CountTokens":
            continue
        serve(local_bedrock, record)
        try:
            metered.count_tokens(modelId=record["model_id"], input={"invokeModel": {"body": b"{}"}})
        except ClientError:
            assert record["status"] >= 400
    with warnings.catch_warnings():
        assert sum(row.requests for row in metered.status()) == 0


def cut_or_edited(record: dict[str, Any]) -> bool:
    """Whether text is missing from the recorded request: a prompt cache filled by 80 bytes is not what was sent."""
    expected = record["expected"]
    tokens = sum(expected[kind] for kind in ("input", "cache_read", "cache_write"))
    return "very very long system prompt" in record["request_body"] and tokens == 18_135


def test_no_recorded_call_cost_more_than_its_worst_case() -> None:
    ratios: dict[str, list[float]] = {"limit and text": [], "no limit, or media": []}
    for record in records():
        price = bundled().find(record["model_id"], region=None, on=dt.date(2026, 11, 21))
        if not record["expected"] or price is None or cut_or_edited(record):
            continue
        expected = record["expected"]
        long = expected["cache_write_1h"]
        usage = Usage(
            expected["input"], expected["output"], expected["cache_read"], expected["cache_write"] - long, long
        )
        if record["operation"].startswith("Invoke"):
            request = {"modelId": record["model_id"], "body": record["request_body"]}
        else:
            try:
                request = json.loads(record["request_body"])
            except ValueError:
                continue  # two were edited by hand, and are no JSON
        worst = WorstCase(record["model_id"], price.price, bundled().limits(record["model_id"]))
        cost, bound = cost_pico_usd(usage, price.price), worst.pico_usd(request)
        assert cost <= bound, f"{record['id']} {record['model_id']}: {usage} in {record['request_body'][:500]}"
        if cost:
            counted = request_bounds(request, request_format(record["model_id"]))
            kind = "no limit, or media" if counted.others or counted.output_tokens is None else "limit and text"
            ratios[kind].append(bound / cost)
            # The input's bound alone holds too.
            tokens = usage.input_tokens + usage.cache_read_tokens + expected["cache_write"]
            assert counted.others or tokens <= counted.text_tokens, record["id"]
    for kind, found in ratios.items():
        print(f"{kind}: worst case / cost of {len(found)} calls: median {statistics.median(found):.1f}")
    assert sum(map(len, ratios.values())) >= 350

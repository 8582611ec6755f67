"""What is asked of the budget, what becomes of arguments, and many threads: over real HTTP, an unchanged boto3."""

import threading
from collections.abc import Iterator
from copy import deepcopy

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from metered import (
    HELLO,
    PREMIUM,
    PRICES,
    metered,
    record_of,
    served,
    spent,
)

from bedrock_budget import PriceKeeperClient, UnknownModel
from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import LocalBedrock, Request


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    with metered(local_bedrock) as client:
        yield client


# --- what is asked of the budget


def test_decide_is_a_dry_run(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    bedrock.converse(messages=HELLO)
    decision = bedrock.decide()
    assert (decision.label, decision.model_id, decision.label_asked) == ("premium", PREMIUM, "premium")
    assert (decision.reason, decision.mode, decision.org_day) == ("default", "normal", "20260115")
    assert decision.degraded is False
    assert decision.spend_usd_micros == 3 * 3 + 20 * 15
    assert bedrock.decide("standard").reason == "requested"
    with pytest.raises(UnknownModel):
        bedrock.decide("nonsense")
    assert "ORG#acme#APP#chat" in decision.explanation
    assert len(served(local_bedrock)) == 1
    assert [row.requests for row in bedrock.status()] == [1, 0, 0]


def test_refusals_are_no_requests_of_the_status(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    local_bedrock.fail_next(status=400, code="ValidationException")
    with pytest.raises(ClientError, match="ValidationException"):
        bedrock.converse(messages=HELLO)
    with pytest.raises(ParamValidationError):
        bedrock.converse(messages="Hello")
    assert [row.requests for row in bedrock.status()] == [0, 0, 0]


# --- arguments


def test_arguments_are_neither_changed_nor_sent_otherwise(local_bedrock: LocalBedrock) -> None:
    seen: list[Request] = []
    local_bedrock.on_request = seen.append  # type: ignore[assignment] - None leaves the request to the server
    image = {"format": "png", "source": {"bytes": b"1"}}
    arguments = {
        "messages": [{"role": "user", "content": [{"text": "hé"}, {"image": image}]}],
        "system": [{"text": "be brief"}],
        "inferenceConfig": {"maxTokens": 5, "stopSequences": ["\n"]},
        "toolConfig": {"tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": {"type": "object"}}}}]},
        "additionalModelRequestFields": {"top_k": 3, "nested": {"list": [1, {"a": None}]}},
        "requestMetadata": {"team": "a"},
    }
    before = deepcopy(arguments)
    client = local_bedrock.client()
    with metered(local_bedrock, client=client) as bedrock:
        for name in ("converse", "converse_stream"):
            for response in (getattr(client, name)(modelId=PREMIUM, **arguments), getattr(bedrock, name)(**arguments)):
                list(response.get("stream", ()))
            assert arguments == before
            plain, ours = seen
            assert (ours.model_id, ours.body) == (plain.model_id, plain.body)
            assert set(ours.headers) == set(plain.headers)
            seen.clear()


def test_positional_arguments_are_refused_as_boto3_does_and_cost_nothing(bedrock: PriceKeeperClient) -> None:
    for name in ("converse", "converse_stream", "invoke_model", "invoke_model_with_response_stream", "count_tokens"):
        with pytest.raises(TypeError, match=rf"{name}\(\) only accepts keyword arguments"):
            getattr(bedrock, name)("premium")
    assert spent(bedrock) == [(0, 0)] * 3


# --- many threads, many apps


def test_threads_that_share_a_client_meter_to_the_pico_dollar(local_bedrock: LocalBedrock) -> None:
    local_bedrock.usage = lambda request: Usage(len(request.body["messages"][0]["content"][0]["text"]), 7, 1, 2, 3)
    models = [None, "standard", "economy"]
    sums = [0] * 16
    with metered(local_bedrock) as bedrock:

        def work(number: int) -> None:
            for i in range(50):
                messages = [{"role": "user", "content": [{"text": "x" * (1 + number * 50 + i)}]}]
                sums[number] += record_of(bedrock.converse(modelId=models[i % 3], messages=messages))["cost_pico_usd"]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        figures = spent(bedrock)
        assert sum(requests for requests, _ in figures) == 800
        assert sum(cost for _, cost in figures) == sum(sums) == local_bedrock.ledger.cost_pico_usd(PRICES)

"""All operations of LocalBedrock, through an unchanged boto3 client over HTTP."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from bedrock_budget.core import usage as read
from bedrock_budget.core.usage import Usage
from bedrock_budget.testing import LocalBedrock, ManualClock, Request

pytest_plugins = ["bedrock_budget.testing.pytest_plugin"]

NOVA = "amazon.nova-micro-v1:0"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CLAUDE_ARN = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{CLAUDE}"
EVERY_KIND = Usage(11, 22, 33, 44, 55)

TEXT_REQUESTS: dict[str, dict[str, Any]] = {
    CLAUDE: {"anthropic_version": "bedrock-2023-05-31", "messages": [{"role": "user", "content": "a long question"}]},
    "anthropic.claude-v2:1": {"prompt": "a long question"},
    NOVA: {"messages": [{"role": "user", "content": [{"text": "a long question"}]}]},
    "amazon.titan-text-lite-v1": {"inputText": "a long question"},
    "meta.llama3-8b-instruct-v1:0": {"prompt": "a long question"},
    "mistral.mistral-7b-instruct-v0:2": {"prompt": "a long question"},
    "mistral.mistral-large-2407-v1:0": {"messages": [{"role": "user", "content": "a long question"}]},
    "cohere.command-text-v14": {"prompt": "a long question"},
    "cohere.command-r-v1:0": {"message": "a long question"},
    "ai21.jamba-1-5-mini-v1:0": {"messages": [{"role": "user", "content": "a long question"}]},
    "openai.gpt-oss-20b-1:0": {"messages": [{"role": "user", "content": "a long question"}]},
    "us.deepseek.r1-v1:0": {"prompt": "a long question"},
    "writer.palmyra-x4-v1:0": {"prompt": "a long question"},
}
# An id that does not say its model: the request's own shape decides.
OPAQUE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456"
EMBEDDING_REQUESTS: dict[str, dict[str, Any]] = {
    "amazon.titan-embed-text-v2:0": {"inputText": "a long question", "dimensions": 256},
    "amazon.nova-2-multimodal-embeddings-v1:0": {"singleEmbeddingParams": {"text": {"value": "a long question"}}},
    "cohere.embed-english-v3": {"texts": ["a long", " question"]},
    OPAQUE: {"inputText": "a long question"},
}


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[Any]:
    client = local_bedrock.client(config=Config(retries={"total_max_attempts": 1}))
    yield client
    client.close()


def messages(text: str = "What is it?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": text}]}]


def usage_of_invoke(reply: dict[str, Any]) -> Usage | None:
    """What the library reads from an invoke reply: headers, then the body."""
    headers = read.counts_from_headers(reply["ResponseMetadata"]["HTTPHeaders"])
    return headers.over(read.counts_from_body(json.loads(reply["body"].read()))).usage()


def usage_of_chunks(chunks: list[dict[str, Any]]) -> Usage | None:
    counts = read.counts_from_metrics(chunks[-1][read.INVOCATION_METRICS])
    for chunk in chunks:
        counts = counts.over(read.counts_from_body(chunk))
    return counts.usage()


def chunks_of(reply: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(event["chunk"]["bytes"]) for event in reply["body"]]


def test_converse(local_bedrock: LocalBedrock, bedrock: Any) -> None:
    reply = bedrock.converse(modelId=CLAUDE_ARN, messages=messages("x" * 41), system=[{"text": "y" * 3}])
    assert reply["usage"] == {"inputTokens": 11, "outputTokens": 20, "totalTokens": 31}
    assert len(reply["output"]["message"]["content"][0]["text"].split()) == 20
    assert reply["stopReason"] == "end_turn"
    assert not any("token" in name for name in reply["ResponseMetadata"]["HTTPHeaders"])
    (entry,) = local_bedrock.ledger.entries()
    assert (entry.operation, entry.model_id, entry.usage) == ("Converse", CLAUDE_ARN, Usage(11, 20))
    assert (entry.complete, entry.status) == (True, 200)
    assert entry.request_id == reply["ResponseMetadata"]["RequestId"]


def test_converse_usage_of_every_kind(local_bedrock: LocalBedrock, bedrock: Any) -> None:
    local_bedrock.usage = EVERY_KIND
    usage = bedrock.converse(modelId=CLAUDE, messages=messages())["usage"]
    assert usage["totalTokens"] == sum(EVERY_KIND)
    assert usage["cacheWriteInputTokens"] == 99
    assert usage["cacheDetails"] == [{"ttl": "1h", "inputTokens": 55}, {"ttl": "5m", "inputTokens": 44}]
    assert read.from_token_usage(usage) == EVERY_KIND
    local_bedrock.usage = Usage(1, 1, cache_read_tokens=9)
    usage = bedrock.converse(modelId=CLAUDE, messages=messages())["usage"]
    assert (usage["cacheReadInputTokens"], "cacheDetails" in usage) == (9, False)


def test_converse_stream(local_bedrock: LocalBedrock, bedrock: Any) -> None:
    local_bedrock.usage = EVERY_KIND
    local_bedrock.stream_events = 7
    reply = bedrock.converse_stream(
        modelId=NOVA, messages=messages(), serviceTier={"type": "flex"}, performanceConfig={"latency": "optimized"}
    )
    events = list(reply["stream"])
    assert [next(iter(event)) for event in events] == [
        "messageStart",
        *["contentBlockDelta"] * 7,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events[1:8])
    assert text == local_bedrock.reply_text()
    metadata = events[-1]["metadata"]
    assert read.from_token_usage(metadata["usage"]) == EVERY_KIND
    assert (metadata["serviceTier"], metadata["performanceConfig"]) == ({"type": "flex"}, {"latency": "optimized"})
    assert local_bedrock.ledger.usage_by_model() == {NOVA: EVERY_KIND}


@pytest.mark.parametrize("model", TEXT_REQUESTS)
def test_invoke_every_text_family(local_bedrock: LocalBedrock, bedrock: Any, model: str) -> None:
    body = json.dumps(TEXT_REQUESTS[model])
    reply = bedrock.invoke_model(modelId=model, body=body)
    headers = reply["ResponseMetadata"]["HTTPHeaders"]
    assert (headers[read.INPUT_HEADER], headers[read.OUTPUT_HEADER]) == ("3", "20")
    raw = reply["body"].read()
    assert local_bedrock.reply_text() in json.dumps(json.loads(raw))
    counted = read.counts_from_body(json.loads(raw)).usage()
    assert counted in (None, Usage(3, 20))
    chunks = chunks_of(bedrock.invoke_model_with_response_stream(modelId=model, body=body))
    assert usage_of_chunks(chunks) == Usage(3, 20)
    assert sum(read.INVOCATION_METRICS in chunk for chunk in chunks) == 1
    assert local_bedrock.ledger.usage_by_model() == {model: Usage(6, 40)}


@pytest.mark.parametrize("model", [CLAUDE, NOVA, "openai.gpt-oss-20b-1:0", "meta.llama3-8b-instruct-v1:0"])
def test_invoke_with_cache_tokens(local_bedrock: LocalBedrock, bedrock: Any, model: str) -> None:
    # Only Anthropic's bodies tell 1 h writes from 5 min ones, so only there can a caller know.
    usage = EVERY_KIND if model == CLAUDE else Usage(11, 22, 33, 44)
    local_bedrock.usage = usage
    body = json.dumps(TEXT_REQUESTS[model])
    assert usage_of_invoke(bedrock.invoke_model(modelId=model, body=body)) == usage
    reply = bedrock.invoke_model_with_response_stream(modelId=model, body=body)
    assert usage_of_chunks(chunks_of(reply)) == usage
    assert local_bedrock.ledger.usage_by_model() == {model: usage.plus(usage)}


@pytest.mark.parametrize("model", EMBEDDING_REQUESTS)
def test_invoke_every_embedding_family(local_bedrock: LocalBedrock, bedrock: Any, model: str) -> None:
    local_bedrock.usage = Usage(5, 99)
    body = json.dumps(EMBEDDING_REQUESTS[model])
    reply = bedrock.invoke_model(modelId=model, body=body)
    assert read.OUTPUT_HEADER not in reply["ResponseMetadata"]["HTTPHeaders"]
    assert usage_of_invoke(reply) == Usage(5)
    assert local_bedrock.ledger.usage_by_model() == {model: Usage(5)}
    with pytest.raises(bedrock.exceptions.ValidationException, match="unsupported for streaming"):
        bedrock.invoke_model_with_response_stream(modelId=model, body=body)
    assert local_bedrock.ledger.usage_by_model() == {model: Usage(5)}


def test_embeddings_have_the_size_and_number_asked_for(bedrock: Any) -> None:
    def invoke(model: str) -> Any:
        return json.loads(
            bedrock.invoke_model(modelId=model, body=json.dumps(EMBEDDING_REQUESTS[model]))["body"].read()
        )

    assert len(invoke("amazon.titan-embed-text-v2:0")["embedding"]) == 256
    assert len(invoke("cohere.embed-english-v3")["embeddings"]) == 2


@pytest.mark.parametrize(
    ("model", "body", "key"),
    [
        ("cohere.rerank-v3-5:0", {"query": "q", "documents": ["a", "b"]}, "results"),
        ("amazon.nova-canvas-v1:0", {"imageGenerationConfig": {"numberOfImages": 2}}, "images"),
    ],
)
def test_models_priced_by_other_units_say_no_tokens(
    local_bedrock: LocalBedrock, bedrock: Any, model: str, body: Any, key: str
) -> None:
    reply = bedrock.invoke_model(modelId=model, body=json.dumps(body))
    assert not any("token" in name for name in reply["ResponseMetadata"]["HTTPHeaders"])
    assert len(json.loads(reply["body"].read())[key]) == 2
    assert local_bedrock.ledger.usage_by_model() == {model: Usage()}


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (TEXT_REQUESTS[CLAUDE], "stop_reason"),
        ({"inputText": "q", "textGenerationConfig": {}}, "results"),
        ({"messages": [], "inferenceConfig": {}}, "output"),
        ({"messages": []}, "choices"),
        ({"prompt": "q"}, "completion"),
    ],
)
def test_an_opaque_arn_answers_in_the_shape_it_is_asked_in(bedrock: Any, body: Any, key: str) -> None:
    reply = bedrock.invoke_model(modelId=OPAQUE, body=json.dumps(body))
    assert key in json.loads(reply["body"].read())


def test_ai21_j2(bedrock: Any) -> None:
    reply = bedrock.invoke_model(modelId="ai21.j2-mid-v1", body=json.dumps({"prompt": "why?"}))
    body = json.loads(reply["body"].read())
    assert body["prompt"]["text"] == "why?"
    assert body["completions"][0]["data"]["text"]


def test_count_tokens_is_free(local_bedrock: LocalBedrock, bedrock: Any) -> None:
    converse = {"converse": {"messages": messages("x" * 40)}}
    invoke = {"invokeModel": {"body": json.dumps({"prompt": "x" * 40})}}
    assert bedrock.count_tokens(modelId=CLAUDE, input=converse)["inputTokens"] == 10
    assert bedrock.count_tokens(modelId=CLAUDE, input=invoke)["inputTokens"] == 10
    local_bedrock.usage = EVERY_KIND
    assert bedrock.count_tokens(modelId=CLAUDE, input=converse)["inputTokens"] == sum(EVERY_KIND) - 22
    with pytest.raises(bedrock.exceptions.ValidationException):
        bedrock.count_tokens(modelId=CLAUDE, input={"invokeModel": {"body": b"not JSON"}})
    assert len(local_bedrock.ledger) == 4
    assert local_bedrock.ledger.usage_by_model() == {}


def test_service_tier_and_latency_come_back_when_asked_for(bedrock: Any) -> None:
    body = json.dumps(TEXT_REQUESTS[NOVA])
    asked: dict[str, Any] = {"serviceTier": "priority", "performanceConfigLatency": "optimized"}
    for call in (bedrock.invoke_model, bedrock.invoke_model_with_response_stream):
        for wanted in (asked, {}):
            reply = call(modelId=NOVA, body=body, **wanted)
            list(reply["body"])  # read to the end: botocore leaves a socket open otherwise
            assert {name: reply[name] for name in asked if name in reply} == wanted
    reply = bedrock.converse(modelId=NOVA, messages=messages(), serviceTier={"type": "flex"})
    assert reply["serviceTier"] == {"type": "flex"}
    assert "performanceConfig" not in reply


def test_usage_from_a_callable_and_text(local_bedrock: LocalBedrock, bedrock: Any) -> None:
    seen: list[Request] = []

    def usage(request: Request) -> Usage:
        seen.append(request)
        return Usage(len(seen), 3)

    local_bedrock.usage = usage
    local_bedrock.text = "Grüße"
    for expected in (1, 2):
        reply = bedrock.converse(modelId=CLAUDE_ARN, messages=messages())
        assert reply["usage"]["inputTokens"] == expected
        assert reply["output"]["message"]["content"] == [{"text": "Grüße"}]
    assert (seen[0].operation, seen[0].model_id) == ("Converse", CLAUDE_ARN)
    assert seen[0].body["messages"] == messages()
    assert seen[0].headers["content-type"] == "application/json"


def test_the_requests_own_limit_caps_the_output(bedrock: Any) -> None:
    for limit, expected in ((7, 7), (1000, 20)):
        reply = bedrock.converse(modelId=NOVA, messages=messages(), inferenceConfig={"maxTokens": limit})
        assert reply["usage"]["outputTokens"] == expected
        body = json.dumps({**TEXT_REQUESTS[CLAUDE], "max_tokens": limit})
        assert usage_of_invoke(bedrock.invoke_model(modelId=CLAUDE, body=body)) == Usage(3, expected)


def test_a_mistake_in_a_callable_shows_as_an_error(local_bedrock: LocalBedrock, bedrock: Any) -> None:
    def broken(request: Request) -> Any:
        raise LookupError(request.operation)

    local_bedrock.usage = broken
    with pytest.raises(ClientError, match=r"LookupError\('Converse'\)"):
        bedrock.converse(modelId=NOVA, messages=messages())
    local_bedrock.on_request = broken
    with pytest.raises(ClientError, match="LookupError"):
        bedrock.converse(modelId=NOVA, messages=messages())
    assert [entry.status for entry in local_bedrock.ledger.entries()] == [400, 400]
    assert local_bedrock.ledger.usage_by_model() == {}


def test_a_body_that_is_no_json_object_is_refused(bedrock: Any) -> None:
    for body in (b"\xff", b"[1]"):
        with pytest.raises(bedrock.exceptions.ValidationException):
            bedrock.invoke_model(modelId=NOVA, body=body)


def test_concurrent_calls_are_all_in_the_ledger(local_bedrock: LocalBedrock) -> None:
    local_bedrock.latency_secs = 0.005
    local_bedrock.usage = lambda request: Usage(int(request.body["messages"][0]["content"][0]["text"]), 1)
    client = local_bedrock.client(config=Config(max_pool_connections=50))

    def call(number: int) -> tuple[str, Usage | None]:
        model = (NOVA, CLAUDE)[number % 2]
        if number % 3:
            reply = client.converse(modelId=model, messages=messages(str(number)))
            return model, read.from_token_usage(reply["usage"])
        events = list(client.converse_stream(modelId=model, messages=messages(str(number)))["stream"])
        return model, read.from_token_usage(events[-1]["metadata"]["usage"])

    with ThreadPoolExecutor(50) as pool:
        seen = list(pool.map(call, range(200)))
    client.close()
    entries = local_bedrock.ledger.entries()
    assert sorted(seen, key=repr) == sorted(((entry.model_id, entry.usage) for entry in entries), key=repr)
    assert len({entry.request_id for entry in entries}) == 200


def test_a_client_takes_keywords_and_ignores_proxies(
    local_bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    client = local_bedrock.client(region_name="eu-west-1", config=Config(user_agent_extra="mine"))
    assert client.meta.region_name == "eu-west-1"
    assert "mine" in client.meta.config.user_agent_extra
    assert client.converse(modelId=NOVA, messages=messages())["usage"]["outputTokens"] == 20
    client.close()


def test_start_stop_and_start_again() -> None:
    server = LocalBedrock()
    server.stop()
    server.start()
    url = server.url
    with pytest.raises(RuntimeError, match="running"):
        server.start()
    with pytest.raises(OSError, match="in use"):
        LocalBedrock(port=server.port).start()
    client = server.client()
    client.converse(modelId=NOVA, messages=messages())
    server.stop()
    server.stop()
    server.start()
    client.converse(modelId=NOVA, messages=messages())
    client.close()
    server.stop()
    assert (server.url, len(server.ledger)) == (url, 2)


def test_the_manual_clock_fixture(manual_clock: ManualClock) -> None:
    assert manual_clock.monotonic() == 0.0


def test_the_package_has_nothing_else() -> None:
    from bedrock_budget import testing

    with pytest.raises(AttributeError, match="LocalBed"):
        testing.LocalBed  # noqa: B018

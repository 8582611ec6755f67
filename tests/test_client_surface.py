"""The wrapper looks and behaves like the client that it wraps, and leaves that one alone."""

import copy
import gc
import pickle
import threading
import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError, ParamValidationError
from botocore.paginate import Paginator
from botocore.response import StreamingBody
from botocore.stub import Stubber
from metered import ECONOMY, HELLO, PREMIUM, STANDARD, budget, metered, record_of, served, spent, stored

from bedrock_budget import ConfigError, PriceKeeperClient
from bedrock_budget.client import UNMETERED
from bedrock_budget.testing import LocalBedrock


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    with metered(local_bedrock) as client:
        yield client


COUNTED = {"converse": {"messages": HELLO}}


# --- what it is


def test_it_is_an_instance_of_botocores_client_and_of_its_own_class(bedrock: PriceKeeperClient) -> None:
    assert isinstance(bedrock, BaseClient)
    assert isinstance(bedrock, PriceKeeperClient)
    assert type(bedrock) is PriceKeeperClient
    assert bedrock.__class__ is type(bedrock._client)
    assert not issubclass(PriceKeeperClient, BaseClient)
    with pytest.raises(TypeError, match="cannot be changed"):
        bedrock.__class__ = object  # type: ignore[assignment]


def test_copies_are_itself_and_pickling_is_refused(bedrock: PriceKeeperClient) -> None:
    assert copy.copy(bedrock) is bedrock
    assert copy.deepcopy(bedrock) is bedrock
    assert copy.deepcopy({"client": [bedrock]})["client"][0] is bedrock
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="make one in each process"):
            pickle.dumps(bedrock, protocol)
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps({"view": bedrock.for_app("billing")})
    with pytest.raises(TypeError, match="make one in each process"):
        bedrock.__reduce__()


def test_dunders_and_own_fields_are_not_looked_up_in_the_client(bedrock: PriceKeeperClient) -> None:
    for name in ("__len__", "__fspath__", "__array__", "__getstate__x__"):
        assert not hasattr(bedrock, name)
    bare = object.__new__(PriceKeeperClient)  # as copy and pickle make one
    for name in ("_client", "_keeper", "_scope", "_warned", "_is_view", "__class__"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(bare, name)
    with pytest.raises(AttributeError, match="no_such_operation"):
        bedrock.no_such_operation()


def test_everything_else_works_through_it(bedrock: PriceKeeperClient) -> None:
    client = bedrock._client
    assert bedrock.meta is client.meta
    assert bedrock.meta.region_name == "us-east-1"
    assert bedrock.exceptions.ThrottlingException is client.exceptions.ThrottlingException
    assert bedrock.can_paginate("list_async_invokes") is True
    assert bedrock.can_paginate("converse") is False
    assert isinstance(bedrock.get_paginator("list_async_invokes"), Paginator)
    assert bedrock.waiter_names == []
    with pytest.raises(ValueError, match="Waiter does not exist"):
        bedrock.get_waiter("anything")
    url = bedrock.generate_presigned_url("converse", Params={"modelId": PREMIUM, "messages": HELLO})
    assert url.startswith(client.meta.endpoint_url)


def test_paginators_and_free_operations_reach_the_service(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as bedrock:
        for call in (
            lambda: bedrock.get_async_invoke(invocationArn="arn:aws:bedrock:us-east-1:123456789012:async-invoke/a1"),
            lambda: list(bedrock.get_paginator("list_async_invokes").paginate()),
        ):
            with pytest.raises(ClientError, match="no operation GET /async-invoke") as caught:
                call()
            assert "PriceKeeper" not in caught.value.response["ResponseMetadata"]


def test_every_operation_of_this_botocore_is_metered_free_or_warned_of(bedrock: PriceKeeperClient) -> None:
    metered_operations = {"converse", "converse_stream", "invoke_model", "invoke_model_with_response_stream"}
    free = {"count_tokens", "get_async_invoke", "list_async_invokes"}
    known = metered_operations | free | set(UNMETERED)
    assert set(bedrock.meta.method_to_api_mapping) <= known, "a new operation: does it cost money?"


def test_dir_has_the_wrappers_names_and_the_clients(bedrock: PriceKeeperClient) -> None:
    names = dir(bedrock)
    assert names == sorted(set(names))
    assert {"for_app", "decide", "status", "flush", "close", "_keeper"} <= set(names)
    assert {"converse", "apply_guardrail", "get_paginator", "meta", "exceptions"} <= set(names)


def test_repr_says_who_spends_where_and_no_secret(local_bedrock: LocalBedrock) -> None:
    client = local_bedrock.client(aws_access_key_id="AKIDSECRET", aws_secret_access_key="hush")
    with metered(local_bedrock, client=client) as bedrock:
        shown = repr(bedrock)
        assert "org_id='acme', app_id='chat'" in shown
        assert "MemoryStore" in shown
        assert "SECRET" not in shown
        assert "hush" not in shown
    with metered(local_bedrock, app_id=None, config=budget(quota_scope="ORG")) as bedrock:
        assert "app_id" not in repr(bedrock)


def test_a_wrapper_is_not_wrapped_again_nor_anything_but_a_runtime_client(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as bedrock, pytest.raises(ConfigError, match=r"use its for_app\(\)"):
        metered(local_bedrock, client=bedrock)
    for given in ("bedrock-runtime", object()):
        with pytest.raises(ConfigError, match=r"must be a boto3 'bedrock-runtime' client .* got (str|object)"):
            metered(local_bedrock, client=given)


# --- the client that is wrapped


def handlers(client: Any) -> str:
    return str(sorted(str(found) for found in gc.get_referents(client.meta.events._emitter._handlers)))


def test_the_wrapped_client_stays_as_it_was_and_open(local_bedrock: LocalBedrock) -> None:
    client = local_bedrock.client()
    client.converse(modelId=ECONOMY, messages=HELLO)
    fields, registered = dict(vars(client)), handlers(client)
    with metered(local_bedrock, client=client) as bedrock:
        list(bedrock.converse_stream(messages=HELLO)["stream"])
        bedrock.converse(messages=HELLO)
    assert vars(client) == fields
    assert handlers(client) == registered
    bedrock.close()  # twice is fine
    response = client.converse(modelId=ECONOMY, messages=HELLO)
    assert "PriceKeeper" not in response["ResponseMetadata"]
    assert spent(bedrock)[2] == (0, 0)


def test_calls_after_close_still_work_and_are_written_at_once(local_bedrock: LocalBedrock) -> None:
    bedrock = metered(local_bedrock)
    bedrock.converse(messages=HELLO)
    bedrock.close()
    bedrock.converse(messages=HELLO)
    list(bedrock.converse_stream(messages=HELLO)["stream"])
    key = next(iter(bedrock._keeper.scopes._days.values())).snapshot.chain[0].account.key
    assert bedrock._keeper.store.read_shards({key: 8})[key].amounts.requests == 3


# --- operations that cost money and are not metered


def test_an_unmetered_operation_warns_once_and_passes_through(
    local_bedrock: LocalBedrock, caplog: pytest.LogCaptureFixture
) -> None:
    content = [{"text": {"text": "hello"}}]
    arguments = {"guardrailIdentifier": "g1", "guardrailVersion": "1", "source": "INPUT", "content": content}
    with metered(local_bedrock) as bedrock:
        operation = bedrock.apply_guardrail  # to look at it is no use of it
        with (
            pytest.warns(RuntimeWarning, match="apply_guardrail costs money and is not metered") as warned,
            pytest.raises(ClientError, match="no operation POST /guardrail"),
        ):
            operation(**arguments)
        assert warned[0].filename == __file__
        for view in (bedrock, bedrock.for_app("billing")):
            with pytest.raises(ClientError, match="no operation POST /guardrail"):
                view.apply_guardrail(**arguments)
        with (
            pytest.warns(RuntimeWarning, match="start_async_invoke costs money"),
            pytest.raises(ClientError, match="no operation POST /async-invoke"),
        ):
            bedrock.start_async_invoke(
                modelId="amazon.nova-reel-v1:0",
                modelInput={"a": 1},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://a-bucket"}},
            )
        assert spent(bedrock) == [(0, 0)] * 3
    assert [record.levelname for record in caplog.records if "not metered" in record.message] == ["WARNING"] * 2


@pytest.mark.parametrize(
    ("asked", "model_id"),
    [
        ({}, STANDARD),
        ({"modelId": "auto"}, STANDARD),
        ({"modelId": "economy"}, ECONOMY),
        ({"modelId": PREMIUM}, PREMIUM),
    ],
)
def test_count_tokens_goes_to_a_label_or_the_one_in_force(
    local_bedrock: LocalBedrock, asked: dict[str, str], model_id: str
) -> None:
    with metered(local_bedrock, config=budget({"premium": 0})) as bedrock:
        response = bedrock.count_tokens(input=COUNTED, **asked)
        assert response["inputTokens"] == 3
        assert "PriceKeeper" not in response["ResponseMetadata"]
        assert spent(bedrock) == [(0, 0)] * 3
    assert served(local_bedrock) == [model_id]


def test_count_tokens_of_an_unknown_model_passes_and_costs_nothing(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as bedrock:
        assert bedrock.count_tokens(modelId="some.model-v1:0", input=COUNTED)["inputTokens"] == 3
        local_bedrock.fail_next(status=400, code="ValidationException")
        with pytest.raises(ClientError, match="ValidationException"):
            bedrock.count_tokens(input=COUNTED)
        assert spent(bedrock) == [(0, 0)] * 3
    assert served(local_bedrock) == ["some.model-v1:0", PREMIUM]


def test_count_tokens_with_all_quotas_used_up_asks_the_head_of_the_ordering(local_bedrock: LocalBedrock) -> None:
    config = budget(dict.fromkeys(("premium", "standard", "economy"), 0))
    with metered(local_bedrock, config=config) as bedrock:
        bedrock.count_tokens(input=COUNTED)
    assert served(local_bedrock) == [PREMIUM]


# --- views


def test_a_view_spends_for_another_app_or_org(local_bedrock: LocalBedrock) -> None:
    config = budget()
    config["orgs"] = {"globex": {"timezone": "Pacific/Kiritimati"}}
    with metered(local_bedrock, config=config) as bedrock:
        billing, elsewhere = bedrock.for_app("billing"), bedrock.for_app("chat", org_id="globex")
        assert isinstance(billing, BaseClient)
        for client in (bedrock, billing, billing, elsewhere):
            client.converse(messages=HELLO)
        assert stored(bedrock, "premium").requests == 1
        assert stored(bedrock, "premium", "ORG#acme#APP#billing").requests == 2
        assert stored(bedrock, "premium", "ORG#globex#APP#chat", "20260116").requests == 1
        assert billing.status()[0].requests == 2
        assert "app_id='billing'" in repr(billing)
        assert "org_id='globex', app_id='chat'" in repr(elsewhere)
        assert "org_id='globex', app_id='other'" in repr(elsewhere.for_app("other"))
        for ids in (("a#b", None), ("", None), ("x" * 129, None), ("a", "b\n"), ("a", ""), (None, None)):
            with pytest.raises(ConfigError, match=r"app_id|org_id"):
                bedrock.for_app(*ids)


def test_closing_a_view_only_flushes(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as bedrock:
        with bedrock.for_app("billing") as view:
            view.converse(messages=HELLO)
        assert not bedrock._keeper.meter._outbox.dirty
        assert not bedrock._keeper.meter._closing.is_set()
        bedrock.converse(messages=HELLO)
    assert bedrock._keeper.meter._closing.is_set()
    assert not bedrock._keeper.meter._outbox.dirty


def test_with_flushes_and_stops_the_meter_even_after_an_error(local_bedrock: LocalBedrock) -> None:
    bedrock = metered(local_bedrock)
    with pytest.raises(ParamValidationError), bedrock:
        bedrock.converse(messages=bedrock.converse(messages=HELLO)["stopReason"])
    assert bedrock.status()[0].requests == 1
    assert not bedrock._keeper.meter._outbox.dirty


def test_a_thousand_views_share_everything(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as bedrock:
        bedrock.converse(messages=HELLO)
        threads = threading.active_count()
        tracemalloc.start()
        try:
            views = [bedrock.for_app(f"app-{number}") for number in range(1_000)]
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert threading.active_count() == threads
        assert held < 5_000_000
        assert all(view._keeper is bedrock._keeper and view._client is bedrock._client for view in views)
        for view in views[::50]:
            view.converse(messages=HELLO)
        for view in views[::50]:
            assert view.status()[0].requests == 1


def test_apps_share_one_quota_where_it_is_the_orgs(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock, app_id=None, config=budget(quota_scope="ORG")) as bedrock:
        bedrock.converse(messages=HELLO)
        bedrock.for_app("billing").converse(messages=HELLO)
        bedrock.for_app(None).converse(messages=HELLO)
        assert bedrock.status()[0].requests == 3
        assert stored(bedrock, "premium", "ORG#acme").requests == 3


# --- the end


def test_flush_says_whether_all_is_written(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock) as bedrock:
        bedrock.converse(messages=HELLO)
        assert bedrock.flush() is True
        assert bedrock.flush(timeout=0) is True
        assert not bedrock._keeper.meter._outbox.dirty


@pytest.mark.parametrize("lambda_runtime", [False, True])
def test_sync_metering_writes_before_the_call_returns(
    local_bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch, lambda_runtime: bool
) -> None:
    if lambda_runtime:
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    keywords: dict[str, Any] = {} if lambda_runtime else {"metering": "sync"}
    with metered(local_bedrock, **keywords) as bedrock:
        for count in (1, 2):
            bedrock.converse(messages=HELLO)
            assert bedrock._keeper.meter._outbox.dirty == {}
            assert bedrock.status()[0].requests == count


def test_a_stubbed_client_whose_answers_have_no_metadata_is_metered_too(local_bedrock: LocalBedrock) -> None:
    client = local_bedrock.client()
    message = {"role": "assistant", "content": [{"text": "hi"}]}
    usage = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    answer = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 1}}
    body = b'{"usage": {"input_tokens": 5, "output_tokens": 6}}'
    with Stubber(client) as stubber, metered(local_bedrock, client=client) as bedrock:
        stubber.add_response("converse", answer)
        stubber.add_response("invoke_model", {"body": StreamingBody(BytesIO(body), len(body)), "contentType": "x"})
        assert record_of(bedrock.converse(messages=HELLO))["cost_pico_usd"] == 1 * 3_000_000 + 2 * 15_000_000
        response = bedrock.invoke_model(body=b"{}")
        assert record_of(response)["cost_pico_usd"] == 5 * 3_000_000 + 6 * 15_000_000
        assert response["body"].read() == body
    assert served(local_bedrock) == []

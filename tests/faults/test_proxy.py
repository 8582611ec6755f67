"""The proxy's faults, each seen from both sides; and the plans that choose among them."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pytest
from engines import proxy
from faults.plan import BEDROCK_FAULTS, STORE_FAULTS, Plan

from bedrock_budget.testing import LocalBedrock

MODEL = "amazon.nova-micro-v1:0"
BODY = json.dumps({"messages": [{"role": "user", "content": [{"text": "hello"}]}]}).encode()


@pytest.fixture
def bedrock() -> Iterator[LocalBedrock]:
    with LocalBedrock() as server:
        yield server


@pytest.fixture
def between(bedrock: LocalBedrock) -> Iterator[proxy.Proxy]:
    with proxy.running(bedrock.url) as running:
        yield running


@contextmanager
def post(url: str, operation: str = "converse") -> Iterator[http.client.HTTPResponse]:
    """One request on a connection of its own."""
    target = urlsplit(url)
    with closing(http.client.HTTPConnection(str(target.hostname), target.port, timeout=10)) as connection:
        connection.request("POST", f"/model/{MODEL}/{operation}", BODY)
        with connection.getresponse() as response:
            yield response


def test_request_and_reply_pass_unchanged(bedrock: LocalBedrock, between: proxy.Proxy) -> None:
    with post(between.url) as response:
        assert json.loads(response.read())["output"]
    assert response.status == 200
    assert response.headers["x-amzn-requestid"] == bedrock.ledger.entries()[0].request_id
    assert [(request.operation, request.body) for request in between.requests] == [("converse", BODY)]


def test_an_event_stream_passes_as_it_comes(bedrock: LocalBedrock, between: proxy.Proxy) -> None:
    bedrock.stream_events, bedrock.event_latency_secs = 10, 0.05
    began = time.monotonic()
    with post(between.url, "converse-stream") as response:
        first = response.read1(64)
        assert first
        took = time.monotonic() - began
        assert b"metadata" in first + response.read()
    assert took < 0.6 * (time.monotonic() - began)


def test_a_request_can_be_lost(bedrock: LocalBedrock, between: proxy.Proxy) -> None:
    between.rule = lambda _: proxy.DROP_REQUEST
    with pytest.raises(http.client.RemoteDisconnected), post(between.url):
        pass
    assert len(bedrock.ledger) == 0


def test_a_reply_can_be_lost(bedrock: LocalBedrock, between: proxy.Proxy) -> None:
    between.rule = lambda _: proxy.DROP_REPLY
    with pytest.raises(http.client.RemoteDisconnected), post(between.url):
        pass
    assert len(bedrock.ledger) == 1


@pytest.mark.parametrize("operation", ["converse", "converse-stream"])
def test_a_reply_can_be_cut(bedrock: LocalBedrock, between: proxy.Proxy, operation: str) -> None:
    between.rule = lambda _: proxy.CUT_REPLY
    with post(between.url, operation) as response:
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead) as cut:
            response.read()
    assert cut.value.partial or operation == "converse-stream"  # http.client keeps no part of a chunk
    assert len(bedrock.ledger) == 1


def test_a_request_can_be_sent_twice_for_one_answer(bedrock: LocalBedrock, between: proxy.Proxy) -> None:
    between.rule = lambda _: proxy.DUPLICATE
    with post(between.url) as response:
        answered = response.headers["x-amzn-requestid"]
    assert [entry.request_id for entry in bedrock.ledger.entries()][1:] == [answered]


def test_a_request_can_be_sent_again_later(bedrock: LocalBedrock, between: proxy.Proxy) -> None:
    between.rule = lambda _: proxy.SentAgain(0.2)
    with post(between.url) as response:
        assert response.status == 200
    assert len(bedrock.ledger) == 1
    assert not between.wait_idle(0)
    assert between.wait_idle(10)
    assert len(bedrock.ledger) == 2


def test_a_request_can_be_late_and_then_meet_another_fault(bedrock: LocalBedrock, between: proxy.Proxy) -> None:
    between.rule = lambda _: proxy.Delayed(0.2, proxy.DROP_REPLY)
    began = time.monotonic()
    with pytest.raises(http.client.RemoteDisconnected), post(between.url):
        pass
    assert time.monotonic() - began >= 0.2
    assert len(bedrock.ledger) == 1


@pytest.mark.parametrize(("status", "body"), [(400, b'{"__type": "x"}'), (503, b"<html>"), (200, b'{"Attr')])
def test_the_proxy_can_answer_itself(bedrock: LocalBedrock, between: proxy.Proxy, status: int, body: bytes) -> None:
    between.rule = lambda _: proxy.Answer(body, status)
    with post(between.url) as response:
        assert (response.status, response.read()) == (status, body)
    assert len(bedrock.ledger) == 0


def test_a_client_that_goes_away_in_mid_request_is_not_passed_on(bedrock: LocalBedrock, between: proxy.Proxy) -> None:
    target = urlsplit(between.url)
    connection = http.client.HTTPConnection(str(target.hostname), target.port)
    connection.putrequest("POST", f"/model/{MODEL}/converse")
    connection.putheader("Content-Length", str(len(BODY)))
    connection.endheaders(BODY[:10])
    connection.close()
    time.sleep(0.1)
    assert between.wait_idle(10)
    assert len(bedrock.ledger) == 0


def test_a_plan_does_what_its_seed_says() -> None:
    request = proxy.Request("UpdateItem", b"{}")
    first, second, other = Plan(1, STORE_FAULTS), Plan(1, STORE_FAULTS), Plan(2, STORE_FAULTS)
    actions = [first(request) for _ in range(2_000)]
    assert actions == [second(request) for _ in range(2_000)]
    assert actions != [other(request) for _ in range(2_000)]
    assert first.done.keys() == {*STORE_FAULTS, "passed on"}


def test_one_reply_in_twenty_is_lost_and_one_call_in_twenty_fails() -> None:
    requests = 50_000
    plan = Plan("rates", STORE_FAULTS)
    for _ in range(requests):
        plan(proxy.Request("UpdateItem", b"{}"))
    done = plan.done
    lost = done["reply lost"] + done["reply cut in its body"]
    failing = sum(done[name] for name in ("request lost", "throttled", "500", "503 in HTML", "200 with truncated JSON"))
    assert lost / requests == pytest.approx(0.05, abs=0.005)
    assert failing / requests == pytest.approx(0.05, abs=0.005)


def test_no_fault_before_bedrock_is_billed() -> None:
    plan = Plan(3, BEDROCK_FAULTS)
    for _ in range(5_000):
        action = plan(proxy.Request("converse", b"{}"))
        assert action in (proxy.FORWARD, proxy.DROP_REQUEST) or isinstance(action, (proxy.Answer, proxy.Delayed))

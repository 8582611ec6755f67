"""Application inference profiles and prompt routers: looked up once over real HTTP, priced as what they stand for."""

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import pytest
from metered import HELLO, ONE_ATTEMPT, PLENTY, metered, priced, record_of, stored

from bedrock_budget import BodyNotPortable, PriceKeeperClient, UnknownPrice
from bedrock_budget.control_plane import ControlPlane, LookupFailed
from bedrock_budget.core.equivalents import Equivalent
from bedrock_budget.core.model_ids import ModelId, parse_model_id
from bedrock_budget.core.pricing import Price
from bedrock_budget.core.usage import Usage
from bedrock_budget.prices import bundled
from bedrock_budget.profiles import FAILED_SECS, FRESH_SECS, Profiles
from bedrock_budget.testing import LocalBedrock, ManualClock
from bedrock_budget.testing.exchange import RawReply, Request

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA = "amazon.nova-micro-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr"
OTHER = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/zzzzzzzzzzzz"
ROUTER = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1"
USAGE = Usage(1000, 100, 10, 20, 30)
GEOGRAPHIC = [f"arn:aws:bedrock:{region}::foundation-model/{CLAUDE}" for region in ("us-east-1", "us-west-2")]


def list_price(model_id: str) -> Price:
    row = bundled().find(model_id, region="us-east-1", on=date(2026, 1, 15))
    assert row is not None
    return row.price


def cost(usage: Usage, price: Price) -> int:
    kinds = (price.input, price.output, price.cache_read, price.cache_write_5m, price.cache_write_1h)
    return sum(count * each for count, each in zip(usage, kinds, strict=True))


def config(labels: Mapping[str, Any], **org_defaults: Any) -> dict[str, Any]:
    return {
        "model_labels": dict(labels),
        "org_defaults": {
            "timezone": "UTC",
            "model_ordering": list(labels),
            "quotas": dict.fromkeys(labels, PLENTY),
            **org_defaults,
        },
    }


class Lookups:
    """Which ids a server was asked about; the replies are its own."""

    def __init__(self, server: LocalBedrock) -> None:
        self.asked: list[str] = []
        server.on_request = self.note

    def note(self, request: Request) -> RawReply | None:
        if request.operation.startswith("Get"):
            self.asked.append(request.model_id)
        return None


@pytest.fixture
def lookups(local_bedrock: LocalBedrock) -> Lookups:
    local_bedrock.usage = USAGE
    return Lookups(local_bedrock)


# --- over HTTP


@pytest.mark.parametrize(
    ("models", "stands_for"),
    [
        ([CLAUDE], CLAUDE),
        (GEOGRAPHIC, f"us.{CLAUDE}"),
        ([f"arn:aws:bedrock:::foundation-model/{CLAUDE}", *GEOGRAPHIC], f"global.{CLAUDE}"),
    ],
)
def test_an_application_profile_costs_what_it_stands_for(
    local_bedrock: LocalBedrock, lookups: Lookups, models: list[str], stands_for: str
) -> None:
    local_bedrock.inference_profiles = {PROFILE: models}
    with metered(local_bedrock, config=config({"premium": {"id": PROFILE}})) as bedrock:
        for asked in ("premium", PROFILE, None):  # the label, the ARN that maps to it, none
            record = record_of(bedrock.converse(modelId=asked, messages=HELLO))
            assert (record["label"], record["model_id"]) == ("premium", PROFILE)
            assert record["cost_pico_usd"] == cost(USAGE, list_price(stands_for))
            assert not record["estimated"]
        assert lookups.asked == [PROFILE]
        assert bedrock.decide("premium").explanation.count(f"{PROFILE}, priced as {stands_for}\n") == 1
        assert stored(bedrock, "premium").requests == 3


def test_a_system_profile_that_does_not_name_its_model_is_looked_up(
    local_bedrock: LocalBedrock, lookups: Lookups
) -> None:
    unknown_prefix = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/xx.{CLAUDE}"
    local_bedrock.inference_profiles = {unknown_prefix: GEOGRAPHIC}
    with metered(local_bedrock, config=config({"premium": {"id": unknown_prefix}})) as bedrock:
        record = record_of(bedrock.converse(messages=HELLO))
        assert record["cost_pico_usd"] == cost(USAGE, list_price(f"us.{CLAUDE}"))


def test_what_says_its_model_is_not_looked_up(local_bedrock: LocalBedrock, lookups: Lookups) -> None:
    named = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{CLAUDE}"
    with metered(local_bedrock, config=config({"premium": {"id": named}, "economy": {"id": NOVA}})) as bedrock:
        record = record_of(bedrock.converse(messages=HELLO))
        assert record["cost_pico_usd"] == cost(USAGE, list_price(f"us.{CLAUDE}"))
        assert "priced as" not in bedrock.decide().explanation
    assert lookups.asked == []


def test_an_application_profile_outside_the_configuration(local_bedrock: LocalBedrock, lookups: Lookups) -> None:
    local_bedrock.inference_profiles = {PROFILE: [CLAUDE]}
    with metered(local_bedrock, on_unknown_model="pass") as bedrock:
        for _ in range(2):
            record = record_of(bedrock.converse(modelId=PROFILE, messages=HELLO))
            assert (record["label"], record["model_id"]) == ("unlabelled", PROFILE)
            assert record["cost_pico_usd"] == cost(USAGE, list_price(CLAUDE))
    assert lookups.asked == [PROFILE]


def test_bodies_go_to_labels_of_the_family_that_a_profile_stands_for(
    local_bedrock: LocalBedrock, lookups: Lookups
) -> None:
    local_bedrock.inference_profiles = {PROFILE: [CLAUDE], OTHER: [NOVA]}
    body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": []})
    labels = {"claude": {"id": HAIKU}, "nova": {"id": OTHER}, "profile": {"id": PROFILE}}
    with metered(local_bedrock, config=config(labels, quotas={"claude": 0, "nova": PLENTY, "profile": 1})) as bedrock:
        record = record_of(bedrock.invoke_model(body=body))
        assert (record["label"], record["label_asked"]) == ("profile", "claude")
        with pytest.raises(BodyNotPortable, match=r"nova \(takes amazon-nova\)"):
            bedrock.invoke_model(body=body)


def test_a_hand_price_needs_no_lookup_to_succeed(local_bedrock: LocalBedrock, lookups: Lookups) -> None:
    labels = {"premium": {**priced(NOVA), "id": PROFILE}}
    with metered(local_bedrock, config=config(labels)) as bedrock:
        record = record_of(bedrock.converse(messages=HELLO))
        assert record["cost_pico_usd"] == cost(USAGE, Price(35_000, 140_000, 8_750, 35_000, 35_000))


def test_strict_enforcement_holds_by_the_limits_of_what_it_stands_for(
    local_bedrock: LocalBedrock, lookups: Lookups
) -> None:
    local_bedrock.inference_profiles = {PROFILE: [NOVA]}
    most = []
    for model_id in (NOVA, PROFILE):
        with metered(local_bedrock, config=config({"it": {"id": model_id}}), enforcement="strict") as bedrock:
            call = bedrock._keeper.admit(bedrock._scope, "it", "Converse", {"messages": HELLO})
            assert call.hold is not None
            most.append(call.hold.worst_case)
            call.free()
    assert most[0] == most[1] > 0


# --- what goes wrong


def test_without_the_permission_a_call_is_refused_and_told_what_to_allow(
    local_bedrock: LocalBedrock, lookups: Lookups
) -> None:
    denied = "User: arn:aws:iam::123456789012:user/app is not authorized to perform: bedrock:GetInferenceProfile"
    local_bedrock.inference_profiles = {PROFILE: [CLAUDE]}
    local_bedrock.fail_next(status=403, code="AccessDeniedException", message=denied, operation="GetInferenceProfile")
    clock = ManualClock()
    with metered(local_bedrock, config=config({"premium": {"id": PROFILE}}), clock=clock) as bedrock:
        for _ in range(2):
            with pytest.raises(UnknownPrice) as caught:
                bedrock.converse(messages=HELLO)
            text = str(caught.value)
            assert f"allow bedrock:GetInferenceProfile on {PROFILE} in IAM" in text
            assert "give it model_labels.premium: input_price_usd_micros_per_1m" in text
        assert lookups.asked == [PROFILE]  # the failure is remembered for a while
        clock.advance(FAILED_SECS + 1)
        bedrock._keeper.scopes._look(bedrock._scope.day)  # type: ignore[arg-type]
        assert record_of(bedrock.converse(messages=HELLO))["cost_pico_usd"] == cost(USAGE, list_price(CLAUDE))
        assert lookups.asked == [PROFILE] * 2


@pytest.mark.parametrize(("policy", "micros"), [("track", 0), (1_000_000, 1160)])
def test_what_cannot_be_looked_up_goes_by_on_unknown_price(
    local_bedrock: LocalBedrock, lookups: Lookups, policy: Any, micros: int
) -> None:
    with metered(local_bedrock, config=config({"premium": {"id": PROFILE}}), on_unknown_price=policy) as bedrock:
        record = record_of(bedrock.converse(messages=HELLO))
        assert record["cost_usd_micros"] == micros
        assert "bedrock:GetInferenceProfile does not know it" in bedrock.decide().explanation


def test_an_unknown_prefix_is_no_guess(local_bedrock: LocalBedrock, lookups: Lookups) -> None:
    with (
        metered(local_bedrock, config=config({"premium": {"id": f"xx.{CLAUDE}"}})) as bedrock,
        pytest.raises(UnknownPrice, match="unknown inference profile prefix 'xx'"),
    ):
        bedrock.converse(messages=HELLO)
    assert lookups.asked == []


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"status": 404, "code": "ResourceNotFoundException"}, "bedrock:GetInferenceProfile does not know it"),
        ({"status": 400, "code": "ValidationException"}, "bedrock:GetInferenceProfile failed: ValidationException"),
        ({"status": 500, "code": "InternalServerException", "n": 2}, "failed: InternalServerException"),
    ],
)
def test_the_message_says_what_aws_said(local_bedrock: LocalBedrock, fault: dict[str, Any], text: str) -> None:
    local_bedrock.fail_next(operation="GetInferenceProfile", message="so it is", **fault)
    with pytest.raises(LookupFailed, match=f"{text}.*so it is"):
        ControlPlane(local_bedrock.client()).look_up(parse_model_id(PROFILE))


def test_an_answer_that_is_none_is_no_answer(local_bedrock: LocalBedrock) -> None:
    local_bedrock.inference_profiles = {PROFILE: [CLAUDE, NOVA]}
    plane = ControlPlane(local_bedrock.client())
    with pytest.raises(LookupFailed, match=f"not understood: it lists {NOVA}, {CLAUDE}, where one model"):
        plane.look_up(parse_model_id(PROFILE))
    local_bedrock.raw_next(200, {"content-type": "application/json"}, b"{}", operation="GetInferenceProfile")
    with pytest.raises(LookupFailed, match="not understood"):
        plane.look_up(parse_model_id(PROFILE))
    port = local_bedrock.port
    local_bedrock.stop()
    with pytest.raises(LookupFailed, match=f"bedrock:GetInferenceProfile failed .*{port}.*check credentials, region"):
        plane.look_up(parse_model_id(PROFILE))


def test_a_lookup_signs_as_the_wrapped_client_does_in_the_region_of_the_arn(local_bedrock: LocalBedrock) -> None:
    signed: list[str] = []

    def note(request: Request) -> None:
        signed.append(request.headers["authorization"] + request.headers.get("x-amz-security-token", ""))

    local_bedrock.on_request = note
    local_bedrock.inference_profiles = {PROFILE.replace("us-east-1", "eu-west-1"): [CLAUDE]}
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "s", "aws_session_token": "the-token"}
    plane = ControlPlane(local_bedrock.client(**keys))
    for _ in range(2):
        plane.look_up(parse_model_id(PROFILE.replace("us-east-1", "eu-west-1")))
    assert len(signed) == 2
    assert "Credential=AKIDEXAMPLE/" in signed[0]
    assert "/eu-west-1/bedrock/aws4_request" in signed[0]
    assert signed[0].endswith("the-token")


def test_renewed_credentials_are_used(local_bedrock: LocalBedrock) -> None:
    signed: list[str] = []

    def note(request: Request) -> None:
        signed.append(request.headers["authorization"].partition("Credential=")[2].partition("/")[0])

    local_bedrock.on_request = note
    local_bedrock.inference_profiles = {PROFILE: [CLAUDE]}
    runtime = local_bedrock.client(aws_access_key_id="first")
    plane = ControlPlane(runtime)
    plane.look_up(parse_model_id(PROFILE))
    runtime._request_signer._credentials.access_key = "second"
    plane.look_up(parse_model_id(PROFILE))
    assert signed == ["first", "second"]


def test_other_endpoints_are_where_botocore_finds_them(
    local_bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch, aws_credentials: None
) -> None:
    def endpoint(plane: ControlPlane) -> str:
        return str(plane._client("eu-west-1").meta.endpoint_url)

    elsewhere = local_bedrock.client(endpoint_url="https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com")
    assert endpoint(ControlPlane(elsewhere)) == "https://bedrock.eu-west-1.amazonaws.com"
    assert endpoint(ControlPlane()) == "https://bedrock.eu-west-1.amazonaws.com"
    assert endpoint(ControlPlane(local_bedrock.client())) == local_bedrock.url
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:1")
    assert endpoint(ControlPlane(local_bedrock.client())) == "http://127.0.0.1:1"


# --- remembered, and waited for


class Aws:
    """Answers lookups at once, or when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Equivalent | Exception = Equivalent((CLAUDE,), "us-east-1")
        self.may_answer = threading.Event()
        self.may_answer.set()

    def look_up(self, model: ModelId) -> Equivalent:
        self.asked.append(model.text)
        assert self.may_answer.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def aws() -> Aws:
    return Aws()


def test_what_was_found_is_kept_and_renewed_without_anybody_waiting(aws: Aws) -> None:
    clock = ManualClock()
    profiles = Profiles(aws.look_up, clock)
    assert profiles.equivalent(PROFILE) is None
    profiles.resolve([PROFILE, PROFILE, CLAUDE])
    assert profiles.equivalent(PROFILE) == aws.answer
    assert profiles.problem(PROFILE) is None
    profiles.resolve([PROFILE])
    assert aws.asked == [PROFILE]
    clock.advance(FRESH_SECS + 1)
    aws.may_answer.clear()
    profiles.resolve([PROFILE])  # returns at once
    assert profiles.equivalent(PROFILE) == Equivalent((CLAUDE,), "us-east-1")
    aws.answer = LookupFailed("gone")
    aws.may_answer.set()
    while len(profiles._memory.get().under_way):
        threading.Event().wait(0.001)
    assert profiles.equivalent(PROFILE) == Equivalent((CLAUDE,), "us-east-1")  # what was found last
    assert profiles.problem(PROFILE) is None


def test_a_lookup_that_takes_long_is_not_waited_for(aws: Aws) -> None:
    profiles = Profiles(aws.look_up, ManualClock())
    aws.may_answer.clear()
    profiles.resolve([PROFILE], wait_secs=0.01)
    assert "bedrock:GetInferenceProfile has not answered" in (profiles.problem(PROFILE) or "")
    second = threading.Thread(target=profiles.resolve, args=([PROFILE],))
    second.start()
    aws.may_answer.set()
    second.join()
    assert profiles.equivalent(PROFILE) == aws.answer
    assert aws.asked == [PROFILE]


def test_any_failure_is_a_problem_and_none_an_error(aws: Aws) -> None:
    profiles = Profiles(aws.look_up, ManualClock())
    aws.answer = RuntimeError("a bug")
    profiles.resolve([PROFILE])
    assert "bedrock:GetInferenceProfile failed: RuntimeError('a bug')" in (profiles.problem(PROFILE) or "")
    assert profiles.problem("my-name")
    assert profiles.problem(CLAUDE) is None


def test_without_threads_lookups_are_made_where_they_are_needed(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    profiles = Profiles(aws.look_up, ManualClock())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    profiles.resolve([PROFILE, ROUTER])
    assert sorted(aws.asked) == [PROFILE, ROUTER]
    assert profiles.equivalent(ROUTER) == aws.answer


def test_what_is_billed_by_the_hour_is_refused_or_priced_by_hand(local_bedrock: LocalBedrock, lookups: Lookups) -> None:
    model_id = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef123456"
    with metered(local_bedrock, config=config({"reserved": {"id": model_id}})) as bedrock:
        with pytest.raises(UnknownPrice, match="billed by the hour, not by the token; give it prices of 0 to count"):
            bedrock.converse(messages=HELLO)
        tracked = metered(local_bedrock, config=config({"reserved": {"id": model_id}}), on_unknown_price="track")
        assert "  reserved: no list price, provisioned throughput is billed by the hour" in tracked.decide().explanation
        tracked.close()
    free = {"id": model_id, "input_price_usd_micros_per_1m": 0, "output_price_usd_micros_per_1m": 0}
    with metered(local_bedrock, config=config({"reserved": free})) as bedrock:
        record = record_of(bedrock.converse(messages=HELLO))
        assert (record["cost_pico_usd"], record["estimated"]) == (0, False)
        assert "no list price" not in bedrock.decide().explanation
    assert lookups.asked == []


# --- prompt routers


@pytest.fixture
def routed(local_bedrock: LocalBedrock, lookups: Lookups) -> Iterator[PriceKeeperClient]:
    invoked = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{HAIKU}"
    local_bedrock.prompt_routers = {ROUTER: [invoked, f"arn:aws:bedrock:us-east-1::foundation-model/{CLAUDE}"]}
    quotas = {"router": PLENTY}
    with metered(
        local_bedrock,
        config=config({"router": {"id": ROUTER}}, quotas=quotas, org_daily_total_usd_micros=PLENTY),
        client=local_bedrock.client(config=ONE_ATTEMPT),
    ) as bedrock:
        yield bedrock


def test_a_prompt_router_costs_what_the_model_costs_that_it_chose(routed: PriceKeeperClient) -> None:
    expected = cost(USAGE, list_price(f"us.{HAIKU}"))
    record = record_of(routed.converse(messages=HELLO))
    assert (record["cost_pico_usd"], record["estimated"]) == (expected, False)
    assert record["model_id"] == ROUTER
    assert record["invoked_model_id"].endswith(f"inference-profile/us.{HAIKU}")
    response = routed.converse_stream(messages=HELLO)
    list(response["stream"])
    assert (record_of(response)["cost_pico_usd"], record_of(response)["estimated"]) == (expected, False)
    assert stored(routed, "router").cost_pico_usd == 2 * expected
    assert stored(routed, "*", "ORG#acme").cost_pico_usd == 2 * expected
    assert "priced as the one that serves, of " in routed.decide().explanation


def test_a_router_that_does_not_say_what_it_chose_costs_its_dearest(
    routed: PriceKeeperClient, local_bedrock: LocalBedrock
) -> None:
    record = record_of(routed.invoke_model(body=b'{"messages": []}'))
    assert record["estimated"]
    spent = Usage(**record["usage"])
    assert record["cost_pico_usd"] == cost(spent, list_price(CLAUDE)) > cost(spent, list_price(f"us.{HAIKU}"))
    local_bedrock.fail_next(operation="Converse")
    with pytest.raises(Exception, match="Too many requests") as caught:
        routed.converse(messages=HELLO)
    assert record_of(caught.value)["estimated"] is False


def test_a_router_whose_models_are_not_known_is_refused(local_bedrock: LocalBedrock, lookups: Lookups) -> None:
    with (
        metered(local_bedrock, config=config({"router": {"id": ROUTER}})) as bedrock,
        pytest.raises(UnknownPrice, match=r"known only afterwards, and bedrock:GetPromptRouter does not know it"),
    ):
        bedrock.converse(messages=HELLO)


def test_a_router_that_is_tracked_costs_what_it_chose(local_bedrock: LocalBedrock, lookups: Lookups) -> None:
    trace = {"promptRouter": {"invokedModelId": f"arn:aws:bedrock:us-east-1::foundation-model/{CLAUDE}"}}
    reply = {"output": {"message": {"role": "assistant", "content": []}}, "stopReason": "end_turn", "trace": trace}
    reply |= {"usage": {"inputTokens": 7, "outputTokens": 5, "totalTokens": 12}, "metrics": {"latencyMs": 1}}
    with metered(local_bedrock, config=config({"router": {"id": ROUTER}}), on_unknown_price="track") as bedrock:
        for invoked, expected in ((CLAUDE, cost(Usage(7, 5), list_price(CLAUDE))), ("nobody.knows-it", 0)):
            trace["promptRouter"]["invokedModelId"] = f"arn:aws:bedrock:us-east-1::foundation-model/{invoked}"
            local_bedrock.raw_next(
                200, {"content-type": "application/json"}, json.dumps(reply).encode(), operation="Converse"
            )
            record = record_of(bedrock.converse(messages=HELLO))
            assert (record["cost_pico_usd"], record["estimated"]) == (expected, expected == 0)


def test_a_router_with_a_price_by_hand_costs_that(local_bedrock: LocalBedrock, lookups: Lookups) -> None:
    local_bedrock.prompt_routers = {ROUTER: [CLAUDE]}
    with metered(local_bedrock, config=config({"router": {**priced(NOVA), "id": ROUTER}})) as bedrock:
        record = record_of(bedrock.converse(messages=HELLO))
        assert record["cost_pico_usd"] == cost(USAGE, Price(35_000, 140_000, 8_750, 35_000, 35_000))
        assert not record["estimated"]
        assert "invoked_model_id" not in record

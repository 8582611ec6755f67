"""Which label a call goes to, at what price, and what happens when quotas are used up: over real HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from metered import (
    ECONOMY,
    EMBED,
    HELLO,
    NEXT_TO_NOTHING,
    PREMIUM,
    STANDARD,
    budget,
    metered,
    record_of,
    served,
    stored,
)

from bedrock_budget import BudgetExhausted, PriceKeeperClient, UnknownModel, UnknownPrice
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import MemoryStore, Override
from bedrock_budget.testing import LocalBedrock, ManualClock


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock) -> Iterator[PriceKeeperClient]:
    with metered(local_bedrock) as client:
        yield client


def went(bedrock: PriceKeeperClient, **arguments: Any) -> tuple[str, str, str]:
    """(label asked, label, reason) of a call."""
    record = record_of(bedrock.converse(messages=HELLO, **arguments))
    return record["label_asked"], record["label"], record["reason"]


# --- which label


@pytest.mark.parametrize("left_out", [{}, {"modelId": "auto"}, {"modelId": None}])
def test_without_a_model_the_budget_chooses(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, left_out: dict[str, Any]
) -> None:
    assert went(bedrock, **left_out) == ("premium", "premium", "default")
    assert served(local_bedrock) == [PREMIUM]


@pytest.mark.parametrize(
    ("asked", "label", "model_id"),
    [
        ("premium", "premium", PREMIUM),
        ("standard", "standard", STANDARD),
        ("twin", "twin", STANDARD),  # a label is itself, whoever shares its model
        ("embed", "embed", EMBED),
        (PREMIUM, "premium", PREMIUM),
        (STANDARD, "standard", STANDARD),  # mapped twice: the first of the ordering, not of the mapping
        (EMBED, "embed", EMBED),
    ],
)
def test_a_label_or_a_mapped_id_names_its_label(
    local_bedrock: LocalBedrock, bedrock: PriceKeeperClient, asked: str, label: str, model_id: str
) -> None:
    assert went(bedrock, modelId=asked) == (label, label, "requested")
    assert served(local_bedrock) == [model_id]


def test_of_two_labels_in_the_ordering_the_first_has_the_id(local_bedrock: LocalBedrock) -> None:
    config = budget({"twin": None}, model_ordering=["premium", "twin", "standard"])
    with metered(local_bedrock, config=config) as bedrock:
        assert went(bedrock, modelId=STANDARD) == ("twin", "twin", "requested")


def test_a_label_that_is_spelt_like_another_labels_id_is_itself(local_bedrock: LocalBedrock) -> None:
    config = budget()
    config["model_labels"][ECONOMY] = {"id": STANDARD}
    with metered(local_bedrock, config=config) as bedrock:
        assert went(bedrock, modelId=ECONOMY) == (ECONOMY, ECONOMY, "requested")
    assert served(local_bedrock) == [STANDARD]


def test_an_arn_is_sent_as_mapped(local_bedrock: LocalBedrock) -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
    config = budget()
    config["model_labels"]["premium"]["id"] = arn
    with metered(local_bedrock, config=config) as bedrock:
        assert went(bedrock) == ("premium", "premium", "default")
        assert went(bedrock, modelId=arn) == ("premium", "premium", "requested")
    assert served(local_bedrock) == [arn, arn]


def test_used_up_labels_are_passed_over_and_no_call_goes_back_up(local_bedrock: LocalBedrock) -> None:
    config = budget({"premium": NEXT_TO_NOTHING, "standard": NEXT_TO_NOTHING})
    with metered(local_bedrock, config=config) as bedrock:
        assert went(bedrock, modelId="standard") == ("standard", "standard", "requested")
        assert went(bedrock, modelId="standard") == ("standard", "economy", "quota")
        assert went(bedrock, modelId="economy") == ("economy", "economy", "requested")
        assert went(bedrock) == ("premium", "premium", "default")
        assert went(bedrock) == ("premium", "economy", "quota")


def test_a_quota_of_0_is_never_served_and_unlimited_always(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock, config=budget({"premium": 0, "standard": None})) as bedrock:
        assert [went(bedrock)[1] for _ in range(3)] == ["standard"] * 3
        row = bedrock.status()[1]
        assert (row.quota_usd_micros, row.quota_pct, row.in_force) == (None, None, True)
        assert bedrock.decide().quota_usd_micros is None


def test_a_label_outside_the_ordering_has_its_own_quota_and_no_fallback(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock, config=budget({"embed": NEXT_TO_NOTHING})) as bedrock:
        bedrock.converse(modelId="embed", messages=[{"role": "user", "content": [{"text": "word " * 100}]}])
        with pytest.raises(BudgetExhausted, match=r"embed \$0\.0+\d+ of \$0\.000001") as caught:
            bedrock.converse(modelId=EMBED, messages=HELLO)
        assert record_of(caught.value)["label_asked"] == "embed"
        assert went(bedrock) == ("premium", "premium", "default")


def test_a_label_outside_the_ordering_heeds_neither_sticky_state_nor_override(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    store.put_override("acme", "chat", Override("economy", "incident 7", "ops@example.com", 0, 4_000_000_000))
    with metered(local_bedrock, store=store) as bedrock:
        assert went(bedrock) == ("premium", "economy", "override")
        assert went(bedrock, modelId="standard") == ("standard", "economy", "override")
        assert went(bedrock, modelId="embed") == ("embed", "embed", "requested")
        assert went(bedrock, modelId="twin") == ("twin", "twin", "requested")
        assert "Override by ops@example.com: incident 7." in bedrock.decide().explanation


def test_an_override_ends_when_it_expires_and_may_pin_a_label_outside_the_ordering(
    local_bedrock: LocalBedrock, manual_clock: ManualClock
) -> None:
    store = MemoryStore()
    expires = int(manual_clock.now().timestamp()) + 1
    store.put_override("acme", None, Override("twin", "trial", "ops", 0, expires))
    with metered(local_bedrock, store=store, clock=manual_clock) as bedrock:
        assert went(bedrock) == ("premium", "twin", "override")
        manual_clock.advance(1)
        assert went(bedrock) == ("premium", "premium", "default")


def test_the_sticky_state_of_the_scope_comes_before_the_label_asked_for(local_bedrock: LocalBedrock) -> None:
    store = MemoryStore()
    config = budget({"premium": NEXT_TO_NOTHING})
    with metered(local_bedrock, store=store, config=config) as first:
        went(first)
    with metered(local_bedrock, store=store, config=config) as second:  # its first look moves the scope on
        assert went(second) == ("premium", "standard", "sticky")
        assert went(second, modelId="premium") == ("premium", "standard", "sticky")
        assert went(second, modelId="economy") == ("economy", "economy", "requested")
        assert "Sticky on standard until the day ends." in second.decide().explanation


# --- models that no label maps


def test_an_unknown_model_is_refused_naming_the_labels(local_bedrock: LocalBedrock, bedrock: PriceKeeperClient) -> None:
    with pytest.raises(UnknownModel) as caught:
        bedrock.converse(modelId="premum", messages=HELLO)
    for part in ("'premum'", f"premium ({PREMIUM})", f"economy ({ECONOMY})", f"embed ({EMBED})", "on_unknown_model"):
        assert part in str(caught.value)
    assert served(local_bedrock) == []


def test_an_unknown_model_that_may_pass_is_metered_at_list_price_without_quota(local_bedrock: LocalBedrock) -> None:
    model_id = "meta.llama3-8b-instruct-v1:0"  # $0.30 and $0.60 per million
    with metered(local_bedrock, config=budget({"premium": 0}), on_unknown_model="pass") as bedrock:
        for _ in range(2):
            record = record_of(bedrock.converse(modelId=model_id, messages=HELLO))
        assert (record["label"], record["model_id"], record["reason"]) == ("unlabelled", model_id, "unlabelled")
        assert record["cost_pico_usd"] == 3 * 300_000 + 20 * 600_000
        assert stored(bedrock, "unlabelled").cost_pico_usd == 2 * record["cost_pico_usd"]
        decision = bedrock.decide(model_id)
        assert (decision.label, decision.quota_usd_micros) == ("unlabelled", None)
        assert "outside the configuration" in decision.explanation
        assert served(local_bedrock) == [model_id] * 2


@pytest.mark.parametrize("given", [5, b"premium", ["premium"], {"id": 1}, 1.5])
@pytest.mark.parametrize("policy", ["reject", "pass"])
def test_a_model_that_is_not_text_is_boto3s_mistake(local_bedrock: LocalBedrock, given: Any, policy: Any) -> None:
    client = local_bedrock.client()
    with pytest.raises(ParamValidationError) as plain:
        client.converse(modelId=given, messages=HELLO)
    with metered(local_bedrock, client=client, on_unknown_model=policy) as bedrock:
        with pytest.raises(ParamValidationError) as ours:
            bedrock.converse(modelId=given, messages=HELLO)
        assert str(ours.value) == str(plain.value)
        with pytest.raises(ParamValidationError, match="modelId"):
            bedrock.count_tokens(modelId=given, input={"converse": {"messages": HELLO}})
    assert served(local_bedrock) == []


# --- prices


def test_an_unknown_price_is_refused_before_the_call(local_bedrock: LocalBedrock) -> None:
    config = budget()
    config["model_labels"]["premium"] = {"id": "acme.unheard-of-v1:0"}
    with metered(local_bedrock, config=config, on_unknown_model="pass") as bedrock:
        with pytest.raises(UnknownPrice) as labelled:
            bedrock.converse(messages=HELLO)
        with pytest.raises(UnknownPrice) as unlabelled:
            bedrock.converse(modelId="acme.other-v1:0", messages=HELLO)
        assert went(bedrock, modelId="standard") == ("standard", "standard", "requested")
    key = "input_price_usd_micros_per_1m"
    for part in ("'acme.unheard-of-v1:0'", "us-east-1", f"model_labels.premium: {key}", "on_unknown_price"):
        assert part in str(labelled.value)
    for part in ("'acme.other-v1:0'", f"a label of its own in model_labels, with {key}"):
        assert part in str(unlabelled.value)
    assert served(local_bedrock) == [STANDARD]


@pytest.mark.parametrize(
    ("policy", "cost", "estimated"),
    [
        (2_000_000, 23 * 2_000_000, False),
        ({"input_price_usd_micros_per_1m": 7, "output_price_usd_micros_per_1m": 11}, 3 * 7 + 20 * 11, False),
        (0, 0, False),
        ("track", 0, True),
    ],
)
def test_an_unknown_price_may_be_given_or_only_tracked(
    local_bedrock: LocalBedrock, policy: Any, cost: int, estimated: bool
) -> None:
    config = budget()
    config["model_labels"]["premium"] = {"id": "acme.unheard-of-v1:0"}
    with metered(local_bedrock, config=config, on_unknown_price=policy, on_unknown_model="pass") as bedrock:
        for model_id, label in ((None, "premium"), ("acme.other-v1:0", "unlabelled")):
            record = record_of(bedrock.converse(modelId=model_id, messages=HELLO))
            assert (record["cost_pico_usd"], record["estimated"]) == (cost, estimated)
            assert stored(bedrock, label) == (cost, Usage(3, 20), 1)


# --- all quotas used up


def test_exhausted_raises_a_429_with_the_next_org_midnight(
    local_bedrock: LocalBedrock, manual_clock: ManualClock
) -> None:
    manual_clock.set(datetime(2026, 3, 28, 23, 30, tzinfo=UTC))  # in Berlin the 29th, which has 23 hours
    config = budget(dict.fromkeys(("premium", "standard", "economy"), 0), timezone="Europe/Berlin")
    with metered(local_bedrock, config=config, clock=manual_clock) as bedrock:
        with pytest.raises(ClientError) as caught:
            bedrock.converse(messages=HELLO)
        error = caught.value
        assert isinstance(error, BudgetExhausted)
        assert error.retry_at == datetime(2026, 3, 30, tzinfo=ZoneInfo("Europe/Berlin"))
        assert error.retry_at.utcoffset() is not None
        assert error.response["Error"]["Code"] == "BudgetExhausted"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert error.operation_name == "Converse"
        assert "2026-03-30T00:00:00+02:00" in str(error)
        record = record_of(error)
        assert (record["label"], record["model_id"]) == (None, None)
        assert (record["label_asked"], record["reason"], record["org_day"]) == ("premium", "exhausted", "20260329")
        assert record["cost_pico_usd"] == record["cost_usd_micros"] == 0
        assert set(record["usage"].values()) == {0}
        with pytest.raises(BudgetExhausted):
            bedrock.decide()
        assert served(local_bedrock) == []
        manual_clock.set(error.retry_at)
        with pytest.raises(BudgetExhausted, match="2026-03-31"):
            bedrock.converse(messages=HELLO)


def test_a_new_org_day_starts_with_full_quotas(local_bedrock: LocalBedrock, manual_clock: ManualClock) -> None:
    config = budget(dict.fromkeys(("premium", "standard", "economy"), NEXT_TO_NOTHING))
    with metered(local_bedrock, config=config, clock=manual_clock) as bedrock:
        assert [went(bedrock)[1] for _ in range(3)] == ["premium", "standard", "economy"]
        with pytest.raises(BudgetExhausted) as caught:
            went(bedrock)
        manual_clock.set(caught.value.retry_at)
        assert went(bedrock) == ("premium", "premium", "default")


def test_last_serves_the_last_label_whose_quota_is_not_0(local_bedrock: LocalBedrock) -> None:
    config = budget({"premium": NEXT_TO_NOTHING, "standard": NEXT_TO_NOTHING, "economy": 0, "embed": NEXT_TO_NOTHING})
    with metered(local_bedrock, config=config, on_exhausted="last") as bedrock:
        assert [went(bedrock)[2] for _ in range(2)] == ["default", "quota"]
        for _ in range(2):
            assert went(bedrock) == ("premium", "standard", "exhausted")
        with pytest.raises(BudgetExhausted):  # all that is left after the label asked for has a quota of 0
            went(bedrock, modelId="economy")
        long = [{"role": "user", "content": [{"text": "word " * 100}]}]
        reasons = [record_of(bedrock.converse(modelId="embed", messages=long))["reason"] for _ in range(2)]
        assert reasons == ["requested", "exhausted"]

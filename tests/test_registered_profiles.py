"""Labels that are registered as inference profiles in the store: which come first, when they take effect, what is
read."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from metered import HELLO, PLENTY, budget, metered, record_of

from bedrock_budget import ConfigError, PriceKeeperClient, StoreError, UnknownModel
from bedrock_budget.core.usage import Usage
from bedrock_budget.registered import EVERY_SECS
from bedrock_budget.scopes import ScopeDay
from bedrock_budget.stores import MemoryStore, Profile
from bedrock_budget.testing import LocalBedrock, ManualClock

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr"
OTHER = ARN[:-1] + "x"
NAMED = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{CLAUDE}"


class CountingStore(MemoryStore):
    """Counts how often profiles are read, and may fail to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.fails = False

    def profiles(self, org_id: str, app_id: str | None) -> list[Profile]:
        self.reads += 1
        if self.fails:
            raise StoreError("out of order")
        return super().profiles(org_id, app_id)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bedrock(local_bedrock: LocalBedrock, store: CountingStore, clock: ManualClock) -> Iterator[PriceKeeperClient]:
    local_bedrock.usage = Usage(1000, 100)
    local_bedrock.inference_profiles = {ARN: [CLAUDE], OTHER: ["amazon.nova-micro-v1:0"]}
    with metered(local_bedrock, store=store, clock=clock) as client:
        yield client


def register(store: MemoryStore, label: str, arn: str, app_id: str | None = "chat") -> None:
    store.put_profile("acme", Profile(app_id, label, arn, "", 1, 1))


def look(bedrock: PriceKeeperClient) -> None:
    day = bedrock._scope.day
    assert isinstance(day, ScopeDay)
    bedrock._keeper.scopes._look(day)
    assert day.error is None


def went(bedrock: PriceKeeperClient, model_id: str | None) -> tuple[str, str, int]:
    record = record_of(bedrock.converse(modelId=model_id, messages=HELLO))
    return record["label"], record["model_id"], record["cost_usd_micros"]


def test_a_registered_profile_takes_the_place_of_its_labels_mapping(
    bedrock: PriceKeeperClient, store: CountingStore
) -> None:
    register(store, "premium", ARN)
    assert went(bedrock, None) == ("premium", ARN, 4950)  # the in-region price, not the one written for the mapping
    assert went(bedrock, ARN) == ("premium", ARN, 4950)
    explanation = bedrock.decide().explanation
    assert f"  premium: registered profile {ARN}, priced as {CLAUDE}\n" in explanation
    assert "standard: registered" not in explanation


def test_an_apps_profile_comes_before_the_orgs(bedrock: PriceKeeperClient, store: CountingStore) -> None:
    register(store, "premium", ARN, None)
    register(store, "premium", OTHER)
    register(store, "standard", ARN, None)
    assert went(bedrock, "premium")[:2] == ("premium", OTHER)
    assert went(bedrock, "standard")[:2] == ("standard", ARN)
    assert went(bedrock.for_app("billing"), "premium")[:2] == ("premium", ARN)


def test_a_registered_label_that_nothing_else_maps_has_no_quota(
    bedrock: PriceKeeperClient, store: CountingStore
) -> None:
    register(store, "tenant-a", NAMED)
    assert went(bedrock, "tenant-a") == ("tenant-a", NAMED, 4950)
    assert f"tenant-a: registered profile {NAMED}\n" in bedrock.decide().explanation
    with pytest.raises(UnknownModel, match="tenant-a"):
        bedrock.converse(modelId="tenant-b", messages=HELLO)


def test_profiles_are_read_with_the_first_look_and_then_seldom(
    bedrock: PriceKeeperClient, store: CountingStore, clock: ManualClock
) -> None:
    went(bedrock, None)
    assert store.reads == 1
    register(store, "premium", ARN)
    clock.advance(EVERY_SECS - 1)
    look(bedrock)
    assert store.reads == 1
    clock.advance(2)
    look(bedrock)
    assert store.reads == 2
    assert went(bedrock, None)[1] == ARN
    store.remove_profile("acme", "chat", "premium")
    clock.advance(EVERY_SECS + 1)
    look(bedrock)
    assert went(bedrock, None)[1] != ARN


def test_what_was_read_last_stays_while_the_store_cannot_say(
    bedrock: PriceKeeperClient, store: CountingStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    register(store, "premium", ARN)
    went(bedrock, None)
    store.fails = True
    clock.advance(EVERY_SECS + 1)
    look(bedrock)
    assert went(bedrock, None)[1] == ARN
    assert "keeping the inference profiles last read of org acme, app chat: out of order" in caplog.text


def test_what_was_never_read_is_not_taken_for_none(local_bedrock: LocalBedrock, store: CountingStore) -> None:
    store.fails = True
    with (
        metered(local_bedrock, store=store, on_store_error="closed") as bedrock,
        pytest.raises(StoreError, match="out of order"),
    ):
        bedrock.converse(messages=HELLO)


# --- without a file the store says it all


def org_item(**more: Any) -> Mapping[str, Any]:
    return {"timezone": "UTC", "model_ordering": ["tenant-a"], "quotas": {"tenant-a": PLENTY}, **more}


def test_the_config_table_may_order_labels_that_are_registered_only(
    local_bedrock: LocalBedrock, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BEDROCK_BUDGET_CONFIG", raising=False)
    store.put_config("acme", None, org_item())
    with pytest.raises(ConfigError, match="model_labels: missing"):
        metered(local_bedrock, config=None, store=store)
    register(store, "tenant-a", NAMED, None)
    store.put_config("acme", None, org_item(quotas={"tenant-a": PLENTY}))
    local_bedrock.usage = Usage(1000, 100)
    with metered(local_bedrock, config=None, store=store) as bedrock:
        assert went(bedrock, None) == ("tenant-a", NAMED, 4950)


def test_a_file_orders_what_it_maps(local_bedrock: LocalBedrock, store: CountingStore) -> None:
    register(store, "tenant-a", NAMED)
    config = budget({"tenant-a": PLENTY}, model_ordering=["tenant-a"])
    with pytest.raises(ConfigError, match="tenant-a"):
        metered(local_bedrock, store=store, config=config)

"""The errors: whose kind they are, what they carry, and that they survive being sent to another process."""

import copy
import pickle
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from botocore.exceptions import ClientError
from metered import HELLO, budget, metered, record_of

import bedrock_budget
from bedrock_budget import (
    BodyNotPortable,
    BudgetError,
    BudgetExhausted,
    BudgetStopped,
    ConfigError,
    CostLimitExceeded,
    StoreError,
    UnknownModel,
    UnknownPrice,
)
from bedrock_budget import errors as errors_module
from bedrock_budget.stores import StoreSetupError
from bedrock_budget.testing import LocalBedrock

MIDNIGHT = datetime(2026, 3, 30, tzinfo=ZoneInfo("Europe/Berlin"))
RECORD = {"label": None, "label_asked": "premium", "cost_pico_usd": 0}
PLAIN = (ConfigError, UnknownModel, UnknownPrice, BodyNotPortable, CostLimitExceeded, StoreError)


def exhausted(record: dict[str, Any] | None = None) -> BudgetExhausted:
    return BudgetExhausted("the daily quotas are used up", "Converse", MIDNIGHT, record)


def stopped(record: dict[str, Any] | None = None) -> BudgetStopped:
    return BudgetStopped("acme is stopped", "InvokeModel", "ops@example.com", MIDNIGHT, "a leak", record)


def test_the_names_of_the_package_are_these() -> None:
    for name in errors_module.__all__:
        assert getattr(bedrock_budget, name) is getattr(errors_module, name)
        assert name in bedrock_budget.__all__
    assert sorted(bedrock_budget.__all__) == bedrock_budget.__all__
    assert sorted(errors_module.__all__) == errors_module.__all__


@pytest.mark.parametrize("kind", [*PLAIN, BudgetExhausted, BudgetStopped])
def test_all_are_budget_errors_and_only_the_refusals_are_the_services(kind: type[BudgetError]) -> None:
    assert issubclass(kind, BudgetError)
    assert issubclass(kind, ClientError) is (kind in (BudgetExhausted, BudgetStopped))
    assert not issubclass(BudgetError, ClientError)
    assert issubclass(StoreSetupError, StoreError)


@pytest.mark.parametrize("make", [exhausted, stopped])
def test_a_refusal_looks_like_the_services_throttling(make: Any) -> None:
    error = make(RECORD)
    assert error.response["Error"] == {"Code": type(error).__name__, "Message": error.message}
    assert error.response["ResponseMetadata"] == {
        "HTTPStatusCode": 429,
        "HTTPHeaders": {},
        "RetryAttempts": 0,
        "PriceKeeper": RECORD,
    }
    assert f"An error occurred ({type(error).__name__}) when calling the {error.operation_name} operation" in str(error)
    assert str(error).endswith(error.message)
    assert record_of(error) is error.record is RECORD
    assert record_of(make()) is None


@pytest.mark.parametrize("make", [exhausted, stopped])
@pytest.mark.parametrize("record", [None, RECORD])
@pytest.mark.parametrize(
    "through",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda error, p=p: pickle.loads(pickle.dumps(error, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
    ],
)
def test_a_refusal_survives_pickling_and_copies(make: Any, record: Any, through: Any) -> None:
    error = make(record)
    same = through(error)
    assert type(same) is type(error)
    assert str(same) == str(error)
    assert same.response == error.response
    assert same.operation_name == error.operation_name
    assert same.args == error.args
    for name in ("message", "record", "retry_at", "stopped_by", "stopped_at", "why"):
        assert getattr(same, name, None) == getattr(error, name, None)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_others_survive_pickling_too(kind: type[BudgetError]) -> None:
    same = pickle.loads(pickle.dumps(kind("why")))
    assert (type(same), str(same)) == (kind, "why")


def test_a_refusal_as_a_call_raises_it(local_bedrock: LocalBedrock) -> None:
    config = budget(dict.fromkeys(("premium", "standard", "economy"), 0), timezone="Asia/Kathmandu")
    with metered(local_bedrock, config=config) as bedrock, pytest.raises(ClientError) as caught:
        bedrock.converse(messages=HELLO)
    same = pickle.loads(pickle.dumps(caught.value))
    assert same.retry_at == caught.value.retry_at == datetime(2026, 1, 16, tzinfo=ZoneInfo("Asia/Kathmandu"))
    assert same.retry_at.utcoffset() is not None
    assert record_of(same) == record_of(caught.value)
    assert record_of(same)["cost_pico_usd"] == 0


def test_handlers_for_the_services_throttling_work(local_bedrock: LocalBedrock) -> None:
    with metered(local_bedrock, config=budget(dict.fromkeys(("premium", "standard", "economy"), 0))) as bedrock:
        try:
            bedrock.converse(messages=HELLO)
        except bedrock.exceptions.ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429  # noqa: PT017 - as applications do
        else:
            pytest.fail("was served")

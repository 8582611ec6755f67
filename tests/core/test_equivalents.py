"""What profiles and prompt routers stand for, by the models that AWS lists of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.equivalents import dearest, geographic_prefix, profile_equivalent, router_equivalent
from bedrock_budget.core.model_ids import PROFILE_PREFIXES, parse_model_id
from bedrock_budget.core.pricing import Price, cost_pico_usd
from bedrock_budget.core.usage import Usage

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-lite-v1:0"


def application(region: str = "us-east-1") -> str:
    return f"arn:aws:bedrock:{region}:123456789012:application-inference-profile/1arbu5hu2sjr"


def in_regions(*regions: str, model: str = CLAUDE) -> list[str]:
    return [f"arn:aws:bedrock:{region}::foundation-model/{model}" for region in regions]


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        (["us-east-1"], CLAUDE),
        (["us-east-1", "us-west-2"], f"us.{CLAUDE}"),
        (["ca-central-1", "us-east-1", "us-west-2"], f"us.{CLAUDE}"),
        (["us-gov-east-1", "us-gov-west-1"], f"us-gov.{CLAUDE}"),
        (["eu-west-1", "eu-central-1"], f"eu.{CLAUDE}"),
        (["ap-northeast-1", "ap-northeast-3"], f"jp.{CLAUDE}"),
        (["ap-southeast-2", "ap-southeast-4"], f"au.{CLAUDE}"),
        (["ap-south-1", "ap-south-2"], f"in.{CLAUDE}"),
        (["ap-northeast-1", "ap-southeast-2"], f"apac.{CLAUDE}"),
        (["ca-central-1", "ca-west-1"], f"ca.{CLAUDE}"),
        (["sa-east-1", "sa-west-1"], f"sa.{CLAUDE}"),
        (["", "us-east-1"], f"global.{CLAUDE}"),
        ([""], f"global.{CLAUDE}"),
    ],
)
def test_the_regions_of_a_profile_say_how_it_is_routed(regions: list[str], expected: str) -> None:
    found = profile_equivalent(parse_model_id(application()), in_regions(*regions))
    assert found == ((expected,), "us-east-1")


def test_the_region_is_that_of_the_profile_or_else_of_its_only_model() -> None:
    profile = parse_model_id(application("eu-west-1"))
    assert profile_equivalent(profile, in_regions("eu-west-1", "eu-north-1")).region == "eu-west-1"
    nameless = parse_model_id("arn:aws:bedrock:::inference-profile/mine")
    assert profile_equivalent(nameless, in_regions("eu-west-1")) == ((CLAUDE,), "eu-west-1")


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ([], "it lists no model"),
        ([*in_regions("us-east-1"), *in_regions("us-east-1", model=NOVA)], f"it lists {NOVA}, {CLAUDE}, where one"),
        ([application()], f"it lists {application()}, where one model"),
        (
            in_regions("me-south-1", "af-south-1"),
            r"its regions \(af-south-1, me-south-1\) are of no geographic profile",
        ),
    ],
)
def test_what_is_not_clear_is_not_guessed(models: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        profile_equivalent(parse_model_id(application()), models)


@given(st.sets(st.sampled_from(["us-east-1", "eu-west-1", "ap-south-1", "ap-northeast-1", "me-south-1"]), min_size=1))
def test_a_geographic_prefix_is_one_that_ids_may_have(regions: set[str]) -> None:
    assert geographic_prefix(regions) in (*PROFILE_PREFIXES, None)


def test_a_prompt_router_stands_for_all_that_it_chooses_from() -> None:
    router = parse_model_id("arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1")
    models = [*in_regions("us-east-1"), f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{NOVA}"]
    assert router_equivalent(router, [*models, models[0]]) == (tuple(models), "us-east-1")
    for unclear, named in (([], "no model"), ([models[0], application()], application())):
        with pytest.raises(ValueError, match=f"it lists {named}, where models were expected"):
            router_equivalent(router, unclear)


counts = st.integers(min_value=0, max_value=10**9)
prices = st.builds(Price, counts, counts, counts, counts, counts)


@given(st.lists(prices, min_size=1), st.builds(Usage, counts, counts, counts, counts, counts))
def test_nothing_costs_more_than_at_the_dearest_price(several: list[Price], usage: Usage) -> None:
    assert cost_pico_usd(usage, dearest(several)) >= max(cost_pico_usd(usage, price) for price in several)
    assert dearest(several[:1]) == several[0]

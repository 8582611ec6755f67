"""Reading the AWS Price List over HTTP, with an unchanged botocore."""

import json
from collections.abc import Iterator

import boto3
import pytest
from prices.price_list_products import BEDROCK, MARKETPLACE, OFFER_FILE, SERVICE, nova
from prices.price_list_server import PriceListServer, serving

from bedrock_budget.prices.price_list import PriceList, PriceListError

HAIKU_4_5 = "anthropic.claude-haiku-4-5-20251001-v1:0"


@pytest.fixture
def server() -> Iterator[PriceListServer]:
    with serving(PriceListServer({code: list(products) for code, products in OFFER_FILE.items()})) as server:
        yield server


@pytest.fixture
def price_list(server: PriceListServer, aws_credentials: None, monkeypatch: pytest.MonkeyPatch) -> PriceList:
    """As a program has it: its clients are made of the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", server.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", server.url)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return PriceList()


def test_all_service_codes_are_read_page_by_page(server: PriceListServer, price_list: PriceList) -> None:
    server.page_size = 7
    listing = price_list.read()
    assert {code for code, _ in server.requests} == {BEDROCK, MARKETPLACE, SERVICE}
    assert [page for code, page in server.requests if code == BEDROCK] == [1, 2, 3]
    facts = {
        (row.fact.model, row.fact.region, *row.fact[1:2], *row.fact[3:7]): row.fact.pico_usd for row in listing.rows
    }
    nova_pro, sonnet, opus = (
        "amazon.nova-pro-v1:0",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "anthropic.claude-opus-4-7",
    )
    here = "us-east-1"
    assert facts == {
        ("amazon.nova-pro-v1:0", "ap-northeast-1", None, "default", "standard", 0, "input"): 960_000,
        ("amazon.nova-pro-v1:0", "ap-northeast-1", None, "batch", "standard", 0, "input"): 480_000,
        ("amazon.nova-pro-v1:0", "ap-northeast-1", None, "default", "standard", 0, "cache_read"): 240_000,
        ("zai.glm-5", "ap-northeast-1", None, "flex", "standard", 0, "input"): 600_000,
        ("anthropic.claude-3-haiku-20240307-v1:0", here, None, "default", "standard", 0, "input"): 250_000,
        ("amazon.titan-embed-text-v2:0", here, None, "default", "standard", 0, "input"): 20_000,
        (nova_pro, here, None, "default", "standard", 0, "input"): 800_000,
        (nova_pro, here, None, "default", "standard", 0, "output"): 3_200_000,
        (nova_pro, here, None, "batch", "standard", 0, "input"): 400_000,
        (nova_pro, here, None, "flex", "standard", 0, "input"): 400_000,
        (nova_pro, here, None, "priority", "standard", 0, "input"): 1_400_000,
        (nova_pro, here, None, "default", "optimized", 0, "input"): 1_000_000,
        (nova_pro, here, None, "default", "standard", 0, "cache_read"): 200_000,
        (HAIKU_4_5, here, None, "default", "standard", 0, "input"): 1_100_000,
        (HAIKU_4_5, here, None, "default", "standard", 0, "output"): 5_500_000,
        (HAIKU_4_5, here, "global", "default", "standard", 0, "input"): 1_000_000,
        (HAIKU_4_5, here, "global", "default", "standard", 0, "output"): 5_000_000,
        (HAIKU_4_5, here, "global", "default", "standard", 0, "cache_read"): 100_000,
        (HAIKU_4_5, here, "global", "default", "standard", 0, "cache_write_5m"): 1_250_000,
        (HAIKU_4_5, here, "global", "default", "standard", 0, "cache_write_1h"): 2_000_000,
        (sonnet, here, None, "default", "standard", 0, "input"): 3_300_000,
        (sonnet, here, None, "default", "standard", 0, "output"): 16_500_000,
        (sonnet, here, None, "default", "standard", 200_000, "input"): 6_600_000,
        (opus, here, None, "default", "standard", 0, "input"): 5_500_000,
        (opus, here, None, "default", "standard", 0, "output"): 27_500_000,
        (opus, here, "global", "default", "standard", 0, "input"): 5_000_000,
        (opus, here, "global", "default", "standard", 0, "cache_write_1h"): 10_000_000,
    }
    assert listing.unmapped == {"Brand New 1: no model id is known for this name": 1}
    assert listing.skipped == {
        "custom models: not the price of a foundation model": 1,
        "not priced by the token: TextUnit": 1,
        "not priced by the token: image": 1,
        "reserved or provisioned capacity: not a token rate": 1,
    }


def test_one_region_is_asked_for_by_a_filter(price_list: PriceList) -> None:
    listing = price_list.read(["ap-northeast-1"])
    assert {row.fact.region for row in listing.rows} == {"ap-northeast-1"}
    assert len(listing.rows) == 4


def test_throttling_is_waited_out(server: PriceListServer, price_list: PriceList) -> None:
    server.throttled = 5
    assert price_list.read().rows
    server.throttled = 50
    with pytest.raises(PriceListError, match=r"AmazonBedrock, page 1: .*Rate exceeded.*; nothing is used"):
        PriceList().read()


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        "<html>gateway</html>",
        json.dumps({"PriceList": ["{cut off"]}),
        json.dumps({"PriceList": ["[]"]}),
        json.dumps({"PriceList": [json.dumps({"product": {}})]}),
        json.dumps({"PriceList": [json.dumps(nova("1", "USE1-NovaPro-input-tokens"))], "NextToken": "2"}),
    ],
)
def test_a_broken_page_gives_nothing(server: PriceListServer, price_list: PriceList, answer: str) -> None:
    server.page_size = 7
    server.broken[BEDROCK, 2] = answer
    with pytest.raises(PriceListError, match=r"^AmazonBedrock.*nothing is used$"):
        price_list.read()


def test_a_list_without_prices_gives_nothing(server: PriceListServer, price_list: PriceList) -> None:
    server.products[MARKETPLACE] = []
    with pytest.raises(PriceListError, match=MARKETPLACE):
        price_list.read()


def test_denied_access_names_the_action(aws_credentials: None) -> None:
    with serving(PriceListServer({})) as server:
        server.products_answer = lambda request: (400, json.dumps({"__type": "AccessDeniedException"}))  # type: ignore[method-assign]
        client = boto3.client("pricing", region_name="us-east-1", endpoint_url=server.url)
        with pytest.raises(PriceListError, match="allow pricing:GetProducts in IAM"):
            PriceList(client).read()
        client.close()


def test_offers_are_used_where_they_are_allowed(server: PriceListServer, price_list: PriceList) -> None:
    before = price_list.read()
    assert before.notes == (
        "Marketplace models by the Price List alone: access denied; "
        "allow bedrock:ListFoundationModelAgreementOffers in IAM",
    )
    assert len(server.asked_offers) == 1  # said once, asked once
    server.offers = {
        HAIKU_4_5: [
            {
                "dimension": "USE1_InputTokenCount",
                "price": "1.2",
                "description": "Million Input Tokens",
                "unit": "Units",
            },
            {"dimension": "USE1_Mystery", "price": "1.2", "description": "Million Tokens", "unit": "Units"},
        ]
    }
    listing = price_list.read()
    assert listing.notes == ()
    assert all(model.partition(".")[0] in {"ai21", "anthropic", "cohere", "writer"} for model in server.asked_offers)
    (row,) = [row for row in listing.rows if row.fact.model == HAIKU_4_5 and row.fact.source == "aws-agreement-offer"]
    assert (row.fact.kind, row.fact.region, row.fact.pico_usd) == ("input", "us-east-1", 1_200_000)
    assert len(listing.rows) == len(before.rows)
    assert f"offer of {HAIKU_4_5}: USE1-MP:USE1_Mystery: neither input, output nor cache" in listing.unmapped
    server.offers = {HAIKU_4_5: []}
    assert price_list.read(["ap-northeast-1"]).notes == ()

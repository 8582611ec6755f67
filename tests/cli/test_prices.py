"""``bedrock-budget prices``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.command_line import NOW_EPOCH, Run, spend
from prices.price_list_products import BEDROCK, OFFER_FILE, nova
from prices.price_list_server import PriceListServer, serving

from bedrock_budget.aggregator import main as run_aggregator
from bedrock_budget.core.cached_prices import PriceKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import SQLiteStore
from bedrock_budget.testing import ManualClock

NOVA = "amazon.nova-pro-v1:0"
NAMELESS = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefghijkl"


@pytest.fixture(autouse=True)
def server(aws_credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[PriceListServer]:
    with serving(PriceListServer({code: list(products) for code, products in OFFER_FILE.items()}, {})) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", server.url)
        yield server


def as_json(run: Run, *words: str, code: int = 0, clock: ManualClock | None = None) -> Any:
    ran = run(*words, "--json", clock=clock)
    assert ran.code == code, ran.err
    return json.loads(ran.out)


# -- refresh


def test_refresh_tells_new_changed_and_unmapped(run: Run, store: SQLiteStore, server: PriceListServer) -> None:
    done = as_json(run, "prices", "refresh")
    assert (len(done["new"]), done["changed"], done["items_written"]) == (27, [], 15)
    assert done["unmapped"] == {"Brand New 1: no model id is known for this name": 1}
    changed = "USE1-NovaPro-input-tokens"
    others = [each for each in server.products[BEDROCK] if each["product"]["attributes"]["usagetype"] != changed]
    server.products[BEDROCK] = [nova("0.0009", changed, since="2026-01-10T00:00:00Z"), *others]
    dry = run("prices", "refresh", "--dry-run", "--region", "us-east-1")
    assert "Changed prices, USD per 1M tokens: 1\n" in dry.out
    assert f"  {NOVA}  us-east-1  input  $0.800000  ->  $0.900000\n" in dry.out
    assert "Would write 1 items.\n" in dry.out
    (told,) = as_json(run, "prices", "refresh", "--region", "us-east-1")["changed"]
    assert (told["before_pico_usd"], told["pico_usd"], told["since"]) == (800_000, 900_000, "2026-01-10")
    assert "No price has changed.\nWrote 0 items.\n" in run("prices", "refresh", "--region", "us-east-1").out


def test_refresh_notes_the_labels(run: Run, store: SQLiteStore) -> None:
    run("prices", "refresh")
    (found,) = store.read_prices([PriceKey(NOVA, ManualClock().now().date(), None)], now_epoch=NOW_EPOCH).values()
    assert found.label == "standard"


def test_refresh_without_a_configuration(run: Run, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEDROCK_BUDGET_CONFIG")
    assert as_json(run, "prices", "refresh")["items_written"] == 15


def test_refresh_that_reads_a_broken_page_changes_nothing(
    run: Run, store: SQLiteStore, server: PriceListServer
) -> None:
    server.broken[BEDROCK, 1] = "{}"
    ran = run("prices", "refresh")
    assert (ran.code, ran.out) == (1, "")
    assert "bedrock-budget: the prices stay as they were: AmazonBedrock, page 1 cannot be read" in ran.err
    assert "bundled" in run("prices", "show", NOVA).out


def test_refresh_writes_to_dynamodb(run: Run, dynamodb_store: Any) -> None:
    done = as_json(run, "prices", "refresh", "--store", dynamodb_store.url)
    assert done["items_written"] == 15
    assert as_json(run, "prices", "refresh", "--store", dynamodb_store.url)["items_written"] == 0
    shown = as_json(run, "prices", "show", NOVA, "--region", "us-east-1", "--store", dynamodb_store.url)
    assert shown["origin"] == "region"


# -- show


def test_show_tells_where_a_price_is_from_and_its_age(run: Run, store: SQLiteStore, clock: ManualClock) -> None:
    run("prices", "refresh")
    clock.advance(30 * 3600)
    shown = as_json(run, "prices", "show", "standard", "--region", "us-east-1", clock=clock)
    assert (shown["model_id"], shown["origin"], shown["age_secs"]) == (NOVA, "region", 108_000)
    assert shown["price"]["input_price_usd_micros_per_1m"] == 800_000
    assert {variant["tier"] for variant in shown["variants"]} == {"default", "batch", "flex", "priority"}
    text = run("prices", "show", "standard", "--region", "us-east-1", clock=clock).out
    assert "fetched for us-east-1 1 d 6 h ago, from 2026-01-01 on (aws-price-list)" in text
    assert "fetched for all regions" in run("prices", "show", "standard", "--region", "eu-west-1").out
    clock.advance(3 * 86_400)
    assert as_json(run, "prices", "show", "standard", clock=clock)["origin"] == "bundled"


def test_show_of_an_unknown_model_says_what_to_do(run: Run, store: SQLiteStore) -> None:
    ran = run("prices", "show", "nobody.knows-v1:0")
    assert ran.code == 1
    assert "No price is known of nobody.knows-v1:0 (no region, 2026-01-15). Fetch prices" in ran.out
    ran = run("prices", "show", NAMELESS)
    assert "The id does not say which model it is: write input_price_usd_micros_per_1m" in ran.out
    assert as_json(run, "prices", "show", NAMELESS, code=1)["price"] is None
    assert run("prices", "show", NOVA, "--at", "tomorrow").code == 2


def test_show_without_a_configuration(run: Run, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEDROCK_BUDGET_CONFIG")
    ran = run("prices", "show", "standard")
    assert ran.code == 1
    assert "labels are not known here" in ran.err


# -- diff


def test_diff_compares_what_was_fetched(run: Run, store: SQLiteStore, server: PriceListServer) -> None:
    nothing = run("prices", "diff")
    assert nothing.out.startswith("0 prices fetched for all regions, 0 differ;")
    assert "To fetch prices: bedrock-budget prices refresh" in nothing.out
    server.products[BEDROCK] = [
        nova("0.0009", "USE1-NovaPro-input-tokens"),
        nova("0.0032", "USE1-NovaPro-output-tokens", inferenceType="Output tokens"),
    ]
    run("prices", "refresh")
    found = as_json(run, "prices", "diff", "--region", "us-east-1")
    (difference,) = [each for each in found["differences"] if each["model_id"] == NOVA]
    assert difference["bundled"]["input_price_usd_micros_per_1m"] == 800_000
    assert difference["fetched"]["input_price_usd_micros_per_1m"] == 900_000
    assert f"{NOVA}" in run("prices", "diff").out


# -- check


def test_check_is_clean_without_any_fetched_price(run: Run, store: SQLiteStore, tmp_path: Path) -> None:
    ran = run("prices", "check")
    assert (ran.code, ran.out) == (0, "6 labels checked, 0 without a good price; 6 bundled.\n")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (tmp_path / "quickstart.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    ran = run("prices", "check", "--config", "quickstart.yaml")
    assert (ran.code, ran.err) == (0, "")


def test_check_names_model_region_and_fix(run: Run, store: SQLiteStore, tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "other.yaml").write_text(
        f"""
model_labels:
  known: {{id: {NOVA}}}
  unknown: {{id: nobody.knows-v1:0}}
  nameless: {{id: "{NAMELESS}"}}
  priced: {{id: nobody.knows-v2:0, input_price_usd_micros_per_1m: 1, output_price_usd_micros_per_1m: 1}}
org_defaults: {{timezone: UTC, model_ordering: [known], quotas: {{known: 1}}}}
"""
    )
    words = ("prices", "check", "--config", "other.yaml", "--region", "us-east-1")
    ran = run(*words)
    assert ran.code == 1
    assert "unknown (nobody.knows-v1:0 in us-east-1): no price. Fetch prices (bedrock-budget prices refresh)" in ran.out
    assert f"nameless ({NAMELESS} in us-east-1): no price. The id does not say which model it is" in ran.out
    assert "4 labels checked, 2 without a good price; 1 bundled, 1 configured.\n" in ran.out
    run("prices", "refresh")
    clock.advance(37 * 3600)
    problems = as_json(run, *words, code=1, clock=clock)["problems"]
    assert [(each["label"], each["problem"]) for each in problems] == [
        ("known", "fetched 1 d 13 h ago"),
        ("unknown", "no price"),
        ("nameless", "no price"),
    ]
    assert "--refresh-prices" in problems[0]["fix"]


# -- reprice


def test_reprice_prices_past_tokens_again(run: Run, store: SQLiteStore) -> None:
    spend(store, "acme", "chat", "standard", 5_000_000, usage=Usage(1_000_000, 1_000_000, 1_000_000), requests=3)
    days = ("prices", "reprice", "--from", "2026-01-01", "--to", "2026-01-31", "--org", "acme")
    (row,) = as_json(run, *days)["labels"]
    assert (row["scope"], row["label"], row["requests"], row["input_tokens"]) == (
        "ORG#acme#APP#chat",
        "standard",
        3,
        1_000_000,
    )
    assert (row["spend_usd_micros"], row["repriced_usd_micros"]) == (5_000_000, 800_000 + 3_200_000 + 200_000)
    other = as_json(run, *days, "--as", "standard=amazon.nova-micro-v1:0")
    assert other["repriced_usd_micros"] == 35_000 + 140_000 + 8_750
    ran = run(*days, "--app", "chat", "--as", "standard=nobody.knows-v1:0")
    assert "no price" in ran.out
    assert "1 labels have no known price" in ran.out
    assert "long-context prices" in ran.err
    assert as_json(run, *days, "--as", "standard=nobody.knows-v1:0")["repriced_usd_micros"] is None
    assert as_json(run, *days, "--app", "billing")["labels"] == []
    assert run(*days, "--app", "billing").out == "No usage from 2026-01-01 to 2026-01-31.\n"


def test_reprice_at_the_prices_of_another_day(run: Run, store: SQLiteStore) -> None:
    spend(store, "acme", "chat", "standard", 1, usage=Usage(1_000_000), requests=1)
    run("prices", "refresh")
    days = ("prices", "reprice", "--from", "2026-01-15", "--to", "2026-01-15", "--org", "acme", "--region", "us-east-1")
    assert as_json(run, *days, "--at", "2025-01-01")["repriced_usd_micros"] == 800_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from", "2026-01-02", "--to", "2026-01-01"), "is after"),
        (("--from", "2020-01-02", "--to", "2026-01-01"), "at most 400"),
        (("--from", "2026-01-01", "--to", "2026-01-01", "--app", "chat"), "of which org"),
        (("--from", "2026-01-01", "--to", "2026-01-01", "--as", "standard"), "must be LABEL=MODEL"),
    ],
)
def test_reprice_refuses(run: Run, store: SQLiteStore, words: tuple[str, ...], message: str) -> None:
    ran = run("prices", "reprice", *words)
    assert ran.code == 2
    assert message in ran.err


# -- the aggregator


def test_the_aggregator_fetches_prices_once_a_day(
    store: SQLiteStore, folder: Path, server: PriceListServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert run_aggregator(["--store", store.url, "--once", "--refresh-prices"]) == 0
    assert [code for code, _ in server.requests].count(BEDROCK) == 1
    server.broken[BEDROCK, 1] = "{}"
    other = SQLiteStore(folder / "other.db")
    assert run_aggregator(["--store", other.url, "--once", "--refresh-prices"]) == 0
    other.close()
    assert "the prices were not refreshed, the last known ones stay" in caplog.text


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()

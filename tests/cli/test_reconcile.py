"""``reconcile``: a day of calls through the library, against what AWS would write of it."""

import gzip
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from cli.command_line import DAY, Ran, Run, spend
from metered import CLAUDE_BODY, ECONOMY, EMBED, HELLO, LABELS, NOVA_BODY, PREMIUM, PRICES, STANDARD, budget
from reconcile.bills import FOLDER, bill_lines, endpoint, report_csv, write_logs

from bedrock_budget import PriceKeeperClient
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.stores import DailyTotal, SQLiteStore
from bedrock_budget.testing import LocalBedrock, ManualClock, Request
from bedrock_budget.testing.ledger import LedgerEntry

RANGE = ("--from", DAY, "--to", DAY)
MIDNIGHT = ManualClock().now().replace(hour=0)


def usage_of(request: Request) -> Usage:
    """Different tokens for each model, cache reads and writes among them."""
    if request.model_id == PREMIUM:
        return Usage(101, 53, 1_200, 700, 31)
    return Usage(17, 1) if request.model_id == EMBED else Usage(40, 9)


@pytest.fixture
def utc(folder: Path) -> None:
    """An org whose days are UTC days, as AWS's are."""
    (folder / "budget.yaml").write_text(yaml.safe_dump({**budget(), "orgs": {"acme": {"apps": {"chat": {}}}}}))


@pytest.fixture
def day(utc: None, folder: Path, local_bedrock: LocalBedrock) -> list[LedgerEntry]:
    """A day of calls of every operation, and what was billed for it."""
    local_bedrock.usage = usage_of
    with PriceKeeperClient(
        local_bedrock.client(),
        org_id="acme",
        app_id="chat",
        config=folder / "budget.yaml",
        store="sqlite:///budget.db",
        clock=ManualClock(),
    ) as bedrock:
        for _ in range(3):
            bedrock.converse(modelId="premium", messages=HELLO)
        for _ in bedrock.converse_stream(modelId="economy", messages=HELLO)["stream"]:
            pass
        bedrock.invoke_model(modelId="standard", body=NOVA_BODY)
        bedrock.invoke_model(modelId="embed", body=json.dumps({"inputText": "Hello"}))
        for _ in bedrock.invoke_model_with_response_stream(modelId="premium", body=CLAUDE_BODY)["body"]:
            pass
        local_bedrock.fail_next(status=400, code="ValidationException")
        with pytest.raises(bedrock.exceptions.ValidationException):
            bedrock.converse(modelId="economy", messages=HELLO)
        bedrock.for_app("search").converse(modelId="economy", messages=HELLO)
    return local_bedrock.ledger.entries()


def rows(ran: Ran) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of a comparison by model and kind."""
    return {(row["model"], row["kind"]): row for row in json.loads(ran.out)["rows"]}


def drifting(ran: Ran) -> dict[tuple[str, str], tuple[int, int]]:
    """(metered, billed) of what drifts."""
    return {key: (row["metered"], row["billed"]) for key, row in rows(ran).items() if row["drift"]}


Write = Callable[[Path, list[LedgerEntry]], tuple[str, ...]]


def logs(root: Path, entries: list[LedgerEntry]) -> tuple[str, ...]:
    write_logs(root / "logs", entries, ManualClock().now())
    return ("--invocation-logs", "logs")


def csv_report(root: Path, entries: list[LedgerEntry]) -> tuple[str, ...]:
    (root / "report.csv").write_text(report_csv(bill_lines(entries, PRICES), MIDNIGHT))
    return ("--cur", "report.csv")


def zipped_report(root: Path, entries: list[LedgerEntry]) -> tuple[str, ...]:
    text = report_csv(bill_lines(entries, PRICES), MIDNIGHT, hours=1, version=2)
    (root / "report.csv.gz").write_bytes(gzip.compress(text.encode()))
    return ("--cur", "report.csv.gz")


SOURCES = pytest.mark.parametrize("write", [logs, csv_report, zipped_report])


@SOURCES
def test_a_day_that_was_metered_whole_has_no_drift(
    run: Run, folder: Path, day: list[LedgerEntry], write: Write
) -> None:
    clock = ManualClock()
    clock.advance(timedelta(days=1))
    ran = run("reconcile", *RANGE, *write(folder, day), "--threshold-pct", "0", "--json", clock=clock)
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["by_day"], found["above_threshold"], found["timezone"]) == (True, 0, "UTC")
    assert drifting(ran) == {}
    base = PREMIUM.removeprefix("us.")
    assert rows(ran)[base, "input"]["metered"] == 4 * 101
    assert rows(ran)[base, "input"]["labels"] == ["premium"]
    assert rows(ran)[ECONOMY, "output"]["billed"] == 2 * 9  # of two apps, one of which no file lists
    assert rows(ran)[STANDARD, "input"]["labels"] == ["standard", "twin"]


@SOURCES
def test_one_response_that_was_not_metered_is_exactly_the_drift(
    run: Run, folder: Path, day: list[LedgerEntry], write: Write
) -> None:
    unseen = LedgerEntry("more", "Converse", STANDARD, Usage(123, 45), 0.0, True, 200)
    ran = run("reconcile", *RANGE, *write(folder, [*day, unseen]), "--json")
    assert ran.code == 4
    found = drifting(ran)
    assert found.pop((STANDARD, "input")) == (40, 163)
    assert found.pop((STANDARD, "output")) == (9, 54)
    if write is logs:
        assert found.pop((STANDARD, "requests")) == (1, 2)
    else:
        metered, billed = found.pop((STANDARD, "cost_usd_micros"))
        assert billed - metered == pytest.approx((123 * 800_000 + 45 * 3_200_000) / 10**6, abs=1)
    assert found == {}
    text = run("reconcile", *RANGE, *write(folder, [*day, unseen])).out
    (line, _) = (line for line in text.splitlines() if "above the threshold" in line and "put" in line)
    assert "2026-01-15  amazon.nova-pro-v1:0" in line
    assert "standard, twin" in line
    assert " -123  -75.46 %  above" in line


@SOURCES
def test_one_response_that_was_not_billed_is_exactly_the_drift(
    run: Run, folder: Path, day: list[LedgerEntry], write: Write
) -> None:
    (removed,) = [entry for entry in day if entry.model_id == EMBED]
    ran = run("reconcile", *RANGE, *write(folder, [entry for entry in day if entry is not removed]), "--json")
    assert ran.code == 4
    assert drifting(ran)[EMBED, "input"] == (17, 0)
    assert {model for model, _ in drifting(ran)} == {EMBED}
    assert rows(ran)[EMBED, "input"]["drift_pct"] == 100.0


def test_the_threshold_is_what_may_drift(run: Run, folder: Path, day: list[LedgerEntry]) -> None:
    more = LedgerEntry("more", "Converse", PREMIUM, Usage(4, 0), 0.0, True, 200)
    source = csv_report(folder, [*day, more])
    assert run("reconcile", *RANGE, *source, "--threshold-pct", "1").code == 0  # 4 of 408 tokens
    ran = run("reconcile", *RANGE, *source, "--threshold-pct", "0.98")
    assert ran.code == 4
    assert "1 of " in ran.out
    assert "drift by more than the 0.98 % allowed" in ran.out


def test_calls_outside_the_budget_are_shown_unless_they_are_left_out(
    run: Run, folder: Path, day: list[LedgerEntry]
) -> None:
    stranger = LedgerEntry("more", "Converse", "zai.glm-5", Usage(500, 50), 0.0, True, 200)
    source = logs(folder, [*day, stranger])
    ran = run("reconcile", *RANGE, *source, "--json")
    assert ran.code == 4
    assert drifting(ran)["zai.glm-5", "input"] == (0, 500)
    assert rows(ran)["zai.glm-5", "input"]["labels"] == []
    assert run("reconcile", *RANGE, *source, "--known-models").code == 0


def test_models_outside_the_configuration_are_compared_with_what_was_metered_for_all_of_them(
    run: Run, folder: Path, day: list[LedgerEntry], store: SQLiteStore
) -> None:
    spend(store, "acme", "chat", "unlabelled", 7, usage=Usage(500, 50), requests=2)
    more = [LedgerEntry(name, "Converse", name, Usage(250, 25), 0.0, True, 200) for name in ("zai.glm-5", "qwen.x-v1")]
    ran = run("reconcile", *RANGE, *logs(folder, [*day, *more]), "--json", "--known-models")
    assert (ran.code, drifting(ran)) == (0, {})
    assert rows(ran)["unlabelled", "input"]["billed"] == 500


def test_labels_that_the_configuration_no_longer_has_are_compared_too(
    run: Run, folder: Path, day: list[LedgerEntry], store: SQLiteStore
) -> None:
    spend(store, "acme", "chat", "old", 7, usage=Usage(500, 50))
    ran = run("reconcile", *RANGE, *logs(folder, day), "--json")
    assert drifting(ran)["old (not in the configuration)", "input"] == (500, 0)


def test_what_counts_others_usage_again_is_left_out(
    run: Run, folder: Path, day: list[LedgerEntry], store: SQLiteStore
) -> None:
    spend(store, "acme", None, "*", 7, usage=Usage(500, 50))
    spend(store, "acme", "chat#SHADOW", "premium", 7, usage=Usage(500, 50))
    assert drifting(run("reconcile", *RANGE, *logs(folder, day), "--json")) == {}


def test_daily_totals_stand_in_for_shards_that_are_gone(
    run: Run, folder: Path, day: list[LedgerEntry], store: SQLiteStore
) -> None:
    key = UsageKey("ORG#acme#APP#chat", "economy", "20260114")
    amounts = store.read_shards({key._replace(day=DAY): 8})[key._replace(day=DAY)].amounts
    store.write_total(key, DailyTotal(amounts, 1))
    ran = run("reconcile", "--from", "20260114", "--to", DAY, *logs(folder, day), "--json")
    assert [row["org_day"] for row in json.loads(ran.out)["rows"] if row["drift"]] == ["20260114"] * 3


def test_one_app_is_compared_alone(run: Run, folder: Path, day: list[LedgerEntry]) -> None:
    of_search = [entry for entry in day if entry.model_id == ECONOMY][-1:]
    ran = run("reconcile", *RANGE, "--org", "acme", "--app", "search", *logs(folder, of_search), "--json")
    assert (ran.code, {model for model, _ in rows(ran)}) == (0, {ECONOMY})


def test_an_alias_joins_a_name_that_no_rule_knows(run: Run, folder: Path, day: list[LedgerEntry]) -> None:
    text = report_csv(bill_lines(day, PRICES), MIDNIGHT).replace("USE1-NovaMicro-", "USE1-TinyNova-")
    (folder / "report.csv").write_text(text)
    assert run("reconcile", *RANGE, "--cur", "report.csv").code == 4
    assert run("reconcile", *RANGE, "--cur", "report.csv", "--alias", f"TinyNova={ECONOMY}").code == 0


# --- time zones


def elsewhere(folder: Path, **zones: str) -> None:
    orgs = {name: {"timezone": zone, "apps": {"chat": {}}} for name, zone in zones.items()}
    (folder / "budget.yaml").write_text(yaml.safe_dump({**budget(), "orgs": orgs}))


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu"])
def test_logs_have_the_time_of_each_call_so_days_of_any_zone_are_compared(
    run: Run, folder: Path, store: SQLiteStore, zone: str
) -> None:
    elsewhere(folder, acme=zone)
    spend(store, "acme", "chat", "economy", 7, usage=Usage(40, 9))
    entry = LedgerEntry("one", "Converse", ECONOMY, Usage(40, 9), 0.0, True, 200)
    hours = 5 if zone == "America/New_York" else -5.75
    first = MIDNIGHT + timedelta(hours=hours)
    write_logs(folder / "logs", [entry], first)
    outside = [entry.__class__(*("two", *list(as_tuple(entry))[1:]))]
    write_logs(folder / "logs" / "before", outside, first - timedelta(seconds=1))
    ran = run("reconcile", *RANGE, "--invocation-logs", "logs", "--json")
    assert (ran.code, json.loads(ran.out)["by_day"], drifting(ran)) == (0, True, {})


def as_tuple(entry: LedgerEntry) -> tuple[Any, ...]:
    return tuple(getattr(entry, name) for name in LedgerEntry.__dataclass_fields__)


def test_an_hourly_report_is_compared_by_the_days_of_a_zone_of_whole_hours(
    run: Run, folder: Path, store: SQLiteStore
) -> None:
    elsewhere(folder, acme="America/New_York")
    spend(store, "acme", "chat", "economy", 7, usage=Usage(40, 9))
    lines = bill_lines([LedgerEntry("one", "Converse", ECONOMY, Usage(40, 9), 0.0, True, 200)], PRICES)
    late = MIDNIGHT + timedelta(hours=28)  # on the next UTC day, and still 2026-01-15 in New York
    (folder / "report.csv").write_text(report_csv(lines, late, hours=1))
    ran = run("reconcile", *RANGE, "--cur", "report.csv", "--json")
    assert json.loads(ran.out)["by_day"]
    assert set(drifting(ran)) <= {(ECONOMY, "cost_usd_micros")}  # the spend above is made up
    (folder / "report.csv").write_text(report_csv(lines, late + timedelta(hours=1), hours=1))
    assert drifting(run("reconcile", *RANGE, "--cur", "report.csv", "--json"))[ECONOMY, "input"] == (40, 0)


def test_daily_figures_of_another_zone_are_compared_over_the_range_and_its_edges_are_named(
    run: Run, folder: Path, store: SQLiteStore
) -> None:
    elsewhere(folder, acme="America/New_York")
    spend(store, "acme", "chat", "economy", 1, usage=Usage(40, 9))
    lines = bill_lines([LedgerEntry("one", "Converse", ECONOMY, Usage(40, 9), 0.0, True, 200)], PRICES)
    (folder / "report.csv").write_text(report_csv(lines, MIDNIGHT))
    ran = run("reconcile", "--from", "20260114", "--to", "20260115", "--cur", "report.csv")
    assert "note: days cannot be compared one by one" in ran.err
    assert "2026-01-14 05:00 to 2026-01-16 05:00 UTC" in ran.err
    assert "(2026-01-14 and 2026-01-15)" in ran.err
    assert "  2026-01-14 to 2026-01-15  amazon.nova-micro-v1:0  economy  input" in ran.out
    assert " 0.00 %" in ran.out


def test_orgs_in_several_zones_are_compared_over_the_range(run: Run, folder: Path, store: SQLiteStore) -> None:
    elsewhere(folder, acme="America/New_York", globex="Europe/Berlin")
    for org_id in ("acme", "globex"):
        spend(store, org_id, "chat", "economy", 1, usage=Usage(20, 4))
    entries = [LedgerEntry(name, "Converse", ECONOMY, Usage(20, 4), 0.0, True, 200) for name in "ab"]
    ran = run("reconcile", *RANGE, *logs(folder, entries), "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["by_day"], found["timezone"]) == (0, False, None)
    assert "the orgs are in several time zones" in ran.err
    assert [row["org_day"] for row in found["rows"]] == [None] * 3


def test_a_day_that_is_not_over_is_noted(run: Run, folder: Path, day: list[LedgerEntry]) -> None:
    source = logs(folder, day)
    clock = ManualClock()
    clock.advance(timedelta(days=1))
    assert "not over yet" in run("reconcile", *RANGE, *source).err
    assert "not over yet" not in run("reconcile", *RANGE, *source, clock=clock).err


# --- Cost Explorer and S3, through real clients


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("NO_PROXY", "127.0.0.1"),
    ):
        monkeypatch.setenv(name, value)


def cost_explorer(entries: list[LedgerEntry], asked: list[dict[str, Any]], unit: str = "USD") -> Any:
    groups = [
        {
            "Keys": [line["product"], line["usage_type"]],
            "Metrics": {
                "UsageQuantity": {"Amount": line["amount"], "Unit": line["unit"]},
                "UnblendedCost": {"Amount": line["cost"], "Unit": unit},
            },
        }
        for line in bill_lines(entries, PRICES)
    ]
    zero = {"Amount": "1", "Unit": "USD"}
    groups.append({"Keys": ["Amazon S3", "Requests-Tier1"], "Metrics": {"UsageQuantity": zero, "UnblendedCost": zero}})

    def answer(method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        request = json.loads(body)
        asked.append(request)
        half = groups[1::2] if "NextPageToken" in request else groups[::2]
        page: dict[str, Any] = {
            "ResultsByTime": [
                {
                    "TimePeriod": {"Start": "2026-01-15", "End": "2026-01-16"},
                    "Groups": half,
                    "Estimated": True,
                    "Total": {},
                }
            ]
        }
        if "NextPageToken" not in request:
            page["NextPageToken"] = "more"
        return 200, json.dumps(page).encode()

    return answer


def test_cost_explorer_is_read_by_service_and_usage_type(
    run: Run, day: list[LedgerEntry], credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    with endpoint(cost_explorer(day, asked)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_COST_EXPLORER", url)
        ran = run("reconcile", *RANGE, "--cost-explorer", "--json")
    assert (ran.code, drifting(ran)) == (0, {})
    assert "Cost Explorer calls its figures of 2026-01-15 estimated" in ran.err
    assert len(asked) == 2
    assert asked[0]["TimePeriod"] == {"Start": "2026-01-15", "End": "2026-01-16"}
    assert asked[0]["Granularity"] == "DAILY"
    assert [group["Key"] for group in asked[0]["GroupBy"]] == ["SERVICE", "USAGE_TYPE"]


def test_cost_explorer_in_another_currency_or_away_is_an_error(
    run: Run, day: list[LedgerEntry], credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint(cost_explorer(day, [], "EUR")) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_COST_EXPLORER", url)
        ran = run("reconcile", *RANGE, "--cost-explorer")
        assert (ran.code, ran.out) == (2, "")
        assert "is billed in EUR" in ran.err
    with endpoint(lambda *_: (400, b'{"__type": "AccessDeniedException", "message": "no"}')) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_COST_EXPLORER", url)
        ran = run("reconcile", *RANGE, "--cost-explorer")
        assert ran.code == 2
        assert "ce:GetCostAndUsage" in ran.err


def test_logs_are_read_from_s3(
    run: Run, folder: Path, day: list[LedgerEntry], credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_logs(folder / "bucket", day, ManualClock().now())
    key = path.relative_to(folder / "bucket").as_posix()
    old = key.replace("2026/01/15", "2025/12/01")
    fetched: list[str] = []

    def answer(method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(target)
        if "list-type" in parse_qs(parts.query):
            assert parse_qs(parts.query)["prefix"] == ["AWSLogs"]
            contents = "".join(f"<Contents><Key>{each}</Key><Size>1</Size></Contents>" for each in (old, key))
            return 200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()
        fetched.append(parts.path)
        return 200, path.read_bytes()

    with endpoint(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        ran = run("reconcile", *RANGE, "--invocation-logs", "s3://records/AWSLogs", "--json")
    assert (ran.code, drifting(ran)) == (0, {})
    assert fetched == [f"/records/{key}"]  # and nothing of other days
    ran = run("reconcile", *RANGE, "--invocation-logs", "s3:///x")
    assert "names no bucket" in ran.err
    with endpoint(lambda *_: (403, b"<Error><Code>AccessDenied</Code></Error>")) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        ran = run("reconcile", *RANGE, "--invocation-logs", "s3://records/AWSLogs")
    assert ran.code == 2
    assert "s3:ListBucket" in ran.err


# --- Parquet


def test_a_parquet_report_is_read_or_says_what_it_takes(
    run: Run, folder: Path, day: list[LedgerEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "report.parquet").write_bytes(b"")
    monkeypatch.setitem(cast(Any, __import__("sys").modules), "pyarrow.parquet", None)
    ran = run("reconcile", *RANGE, "--cur", "report.parquet")
    assert ran.code == 2
    assert "pip install 'bedrock-budget[parquet]'" in ran.err


def test_a_parquet_report_is_read(run: Run, folder: Path, day: list[LedgerEntry]) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra `parquet`)")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = bill_lines(day, PRICES)
    table = pyarrow.table(
        {
            "line_item_line_item_type": ["Usage"] * len(lines),
            "line_item_product_code": ["AmazonBedrock"] * len(lines),
            "line_item_usage_start_date": [MIDNIGHT] * len(lines),
            "line_item_usage_end_date": [MIDNIGHT + timedelta(days=1)] * len(lines),
            "line_item_usage_type": [line["usage_type"] for line in lines],
            "line_item_usage_amount": [float(line["amount"]) for line in lines],
            "line_item_unblended_cost": [float(line["cost"]) for line in lines],
            "pricing_unit": [line["unit"] for line in lines],
            "product": pyarrow.array(
                [[("servicename", line["product"])] for line in lines],
                pyarrow.map_(pyarrow.string(), pyarrow.string()),
            ),
        }
    )
    parquet.write_table(table, folder / "report.parquet")
    ran = run("reconcile", *RANGE, "--cur", "report.parquet", "--json", "--threshold-pct", "0")
    assert (ran.code, drifting(ran)) == (0, {})
    (folder / "report.parquet").write_bytes(b"no")
    assert "cannot be read as Parquet" in run("reconcile", *RANGE, "--cur", "report.parquet").err


# --- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "2026-01-15", "--to", DAY, "--cur", "x"), "an org day is a date written YYYYMMDD"),
        (("--from", DAY, "--to", "20260114", "--cur", "x"), "--to: 20260114 comes before --from 20260115"),
        ((*RANGE,), "one of the arguments --cost-explorer --cur --invocation-logs is required"),
        ((*RANGE, "--cur", "x", "--cost-explorer"), "not allowed with argument"),
        ((*RANGE, "--cur", "missing.csv"), "there is no file 'missing.csv'"),
        ((*RANGE, "--cur", "bad.csv"), "lacks columns of a Cost and Usage Report: lineitemusagetype"),
        ((*RANGE, "--cur", "torn.csv.gz"), "torn.csv.gz cannot be read as CSV"),
        ((*RANGE, "--cur", "odd.csv"), "odd.csv, line item 1: has a value that cannot be read"),
        ((*RANGE, "--invocation-logs", "missing"), "'missing' is no folder"),
        ((*RANGE, "--invocation-logs", "empty"), "no log files (NAME.json.gz) in empty"),
        ((*RANGE, "--invocation-logs", "bad"), "bad/a.json, line 1: is no JSON"),
        ((*RANGE, "--invocation-logs", "torn"), "torn/a.json.gz: is no complete gzip file"),
        ((*RANGE, "--cur", "x", "--threshold-pct", "-1"), "must be a number of percent >= 0"),
        ((*RANGE, "--cur", "x", "--threshold-pct", "1/0"), "must be a number of percent >= 0"),
        ((*RANGE, "--cur", "x", "--alias", "x"), "must be NAME=MODEL"),
        ((*RANGE, "--cur", "x", "--app", "chat"), "--app: of which org?"),
    ],
)
def test_mistakes_are_named(
    run: Run, utc: None, folder: Path, store: SQLiteStore, words: tuple[str, ...], said: str
) -> None:
    spend(store, "acme", "chat", "economy", 7)
    (folder / "bad.csv").write_text("a,b\n1,2\n")
    (folder / "torn.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n")[:-14])
    odd = report_csv(
        [{"product": "Amazon Bedrock", "usage_type": "x", "unit": "", "amount": "?", "cost": "1"}], MIDNIGHT
    )
    (folder / "odd.csv").write_text(odd)
    for name in ("empty", "bad", "torn"):
        (folder / name).mkdir()
    (folder / "bad" / "a.json").write_text("{\n")
    (folder / "torn" / "a.json.gz").write_bytes(b"no")
    ran = run("reconcile", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_nothing_metered_is_an_error_unless_an_app_is_named(run: Run, utc: None, folder: Path) -> None:
    (folder / "logs").mkdir()
    (folder / "logs" / "a.jsonl").write_text("\n")
    ran = run("reconcile", *RANGE, "--invocation-logs", "logs")
    assert ran.code == 2
    assert "nothing was metered for any org on these days" in ran.err
    assert "nothing was metered for org 'globex'" in run("reconcile", *RANGE, "--org", "globex", "--cur", "x").err
    ran = run("reconcile", *RANGE, "--org", "acme", "--app", "chat", "--invocation-logs", "logs")
    assert ran.code == 0
    assert "Nothing was metered, and nothing billed." in ran.out


def test_an_org_without_a_valid_budget_is_left_out_and_said_so(
    run: Run, utc: None, folder: Path, day: list[LedgerEntry], store: SQLiteStore
) -> None:
    store.put_config("broken", None, {"timezone": "Nowhere"})
    spend(store, "broken", "chat", "economy", 7, usage=Usage(1, 1))
    ran = run("reconcile", *RANGE, *logs(folder, day), "--json")
    assert ran.code == 0
    assert "ORG#broken#APP#chat is left out" in ran.err
    assert run("reconcile", *RANGE, "--org", "broken", *logs(folder, day)).code == 2


# --- logs as AWS writes them


def test_entries_that_are_no_calls_and_calls_that_come_twice_add_nothing(
    run: Run, folder: Path, day: list[LedgerEntry]
) -> None:
    source = logs(folder, day)
    hour = folder / "logs" / FOLDER / "2026/01/15/12"
    (written,) = hour.glob("*.json.gz")
    (hour / "again.json.gz").write_bytes(written.read_bytes())
    (hour / "data").mkdir()
    (hour / "data" / "body_input.json.gz").write_bytes(b"a large body")
    odd = [
        {"schemaType": "SomethingElse"},
        {"timestamp": "2026-01-15T12:00:00", "modelId": "no zone"},
        {"timestamp": 5, "modelId": "x"},
        [1],
    ]
    (hour / "odd.json").write_text("\n".join(map(json.dumps, odd)))
    (folder / "logs" / "amazon-bedrock-logs-permission-check").write_text("")
    (folder / "logs" / FOLDER / "2026/99/15/12").mkdir(parents=True)
    (folder / "logs" / FOLDER / "2026/99/15/12" / "x.json").write_text("")
    ran = run("reconcile", *RANGE, *source, "--json")
    assert (ran.code, drifting(ran)) == (0, {})
    assert "4 entries of the logs are no calls" in ran.err


def test_labels_of_one_model_share_its_rows() -> None:
    assert LABELS["twin"]["id"] == LABELS["standard"]["id"]

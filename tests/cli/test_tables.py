"""``bedrock-budget tables``, against a DynamoDB engine."""

import io
import itertools
import json
import os
from typing import Any

import pytest
from cli.command_line import Run

from bedrock_budget.cli import main
from bedrock_budget.stores.tables import TABLES

NAMES = ("Config", "DailyTotal", "Leases", "PricingCache", "StickyState", "UsageAggSharded")

_prefixes = itertools.count(1)


@pytest.fixture
def prefix() -> str:
    """A prefix without tables."""
    return f"cli{os.getpid()}-{next(_prefixes)}-"


@pytest.fixture
def url(dynamodb_endpoint: str, prefix: str) -> str:
    return f"dynamodb://?region=us-east-1&prefix={prefix}&endpoint_url={dynamodb_endpoint}"


class Keyboard(io.StringIO):
    """A terminal on which something was typed."""

    def isatty(self) -> bool:
        return True


def test_creates_once(run: Run, url: str, prefix: str, dynamodb_endpoint: str) -> None:
    ran = run("tables", "create", "--store", url)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"Tables in us-east-1 ({dynamodb_endpoint}):"
    assert [line.split() for line in lines[1:]] == [[prefix + name, "created"] for name in NAMES]
    ran = run("tables", "create", "--store", url)
    assert [line.split() for line in ran.out.splitlines()[1:]] == [[prefix + name, "existing"] for name in NAMES]
    found = json.loads(run("tables", "create", "--store", url, "--json").out)
    assert found == {
        "prefix": prefix,
        "region": "us-east-1",
        "endpoint_url": dynamodb_endpoint,
        "created": [],
        "existed": [prefix + table.name for table in TABLES],
        "completed": [],
    }


def test_completes_tables(run: Run, url: str, prefix: str, dynamodb_client: Any) -> None:
    run("tables", "create", "--store", url)
    dynamodb_client.update_time_to_live(
        TableName=f"{prefix}Config", TimeToLiveSpecification={"Enabled": False, "AttributeName": "expires_at_epoch"}
    )
    ran = run("tables", "describe", "--store", url)
    assert ran.code == 1
    assert "problem  does not expire items by expires_at_epoch" in ran.out
    assert f"Added: expiry of {prefix}Config\n" in run("tables", "create", "--store", url).out


def test_describes(run: Run, url: str, prefix: str) -> None:
    run("tables", "create", "--store", url)
    ran = run("tables", "describe", "--store", url)
    assert (ran.code, ran.err) == (0, "")
    block = ran.out.partition(f"{prefix}UsageAggSharded\n")[2].partition("\n\n")[0]
    assert dict(line.strip().split("  ", 1) for line in block.splitlines()) == {
        "status": " ACTIVE",
        "purpose": "counters that every process adds to",
        "key": "    shard_key + date_key",
        "billing": "on demand",
        "expiry": " none",
        "index": "  active_hour-index, on active_hour, ACTIVE",
        "size": "   0 items, 0 bytes",
    }
    found = json.loads(run("tables", "describe", "--store", url, "--json").out)
    assert found["ready"] is True
    by_name = {table["name"].removeprefix(prefix): table for table in found["tables"]}
    assert set(by_name) == set(NAMES)
    assert by_name["Config"]["key"] == ["org_key", "resource_key"]
    assert (by_name["Config"]["ttl_attribute"], by_name["Config"]["ttl_status"]) == ("expires_at_epoch", "ENABLED")
    assert by_name["Config"]["billing_mode"] == "PAY_PER_REQUEST"
    assert by_name["UsageAggSharded"]["index_key"] == ["active_hour"]
    assert by_name["DailyTotal"]["problem"] is None


def test_a_stream_is_made_if_asked_for_and_described(run: Run, url: str, prefix: str) -> None:
    run("tables", "create", "--store", url)
    described = json.loads(run("tables", "describe", "--store", url, "--json").out)["tables"]
    assert {table["stream_arn"] for table in described} == {table["stream_view"] for table in described} == {None}
    ran = run("tables", "create", "--stream", "--store", url)
    assert ran.out.splitlines()[-1] == f"Added: stream of {prefix}UsageAggSharded"
    described = json.loads(run("tables", "describe", "--store", url, "--json").out)["tables"]
    (arn,) = (table["stream_arn"] for table in described if table["stream_view"] == "NEW_IMAGE")
    assert f"{prefix}UsageAggSharded" in arn
    text = run("tables", "describe", "--store", url).out
    assert [line.split() for line in text.splitlines() if "stream" in line] == [["stream", "NEW_IMAGE,", arn]]


def test_missing_tables_are_described_too(run: Run, url: str) -> None:
    ran = run("tables", "describe", "--store", url)
    assert (ran.code, ran.out.count("MISSING"), ran.out.count("bedrock-budget tables create")) == (1, 6, 6)
    ran = run("tables", "describe", "--store", url, "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["ready"] is False


def test_deletes_when_told_to(run: Run, url: str, prefix: str, dynamodb_endpoint: str) -> None:
    run("tables", "create", "--store", url)
    ran = run("tables", "delete", "--yes", "--store", url)
    assert (ran.code, ran.err) == (0, "")
    assert sorted(line.split() for line in ran.out.splitlines()[1:]) == [[prefix + name, "deleted"] for name in NAMES]
    ran = run("tables", "delete", "--store", url)
    assert ran == (0, f"There are no tables of prefix '{prefix}' in us-east-1 ({dynamodb_endpoint}).\n", "")
    found = json.loads(run("tables", "delete", "--store", url, "--json").out)
    assert (found["deleted"], found["kept"]) == ([], [])


def test_asks_before_it_deletes(run: Run, url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("tables", "create", "--store", url)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{prefix}\n"))
    ran = run("tables", "delete", "--store", url)
    assert ran == (
        2,
        "",
        "bedrock-budget: tables delete: there is no terminal to ask on; add --yes to delete without being asked\n",
    )
    for typed in ("yes\n", "\n", ""):
        monkeypatch.setattr("sys.stdin", Keyboard(typed))
        ran = run("tables", "delete", "--store", url)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.endswith("bedrock-budget: tables delete: not confirmed; nothing was deleted\n")
        assert f"Type {prefix} to delete them: " in ran.err
        assert all(f"  {prefix}{name} " in ran.err for name in NAMES)
    assert run("tables", "describe", "--store", url).code == 0
    monkeypatch.setattr("sys.stdin", Keyboard(f"{prefix}\n"))
    ran = run("tables", "delete", "--store", url, "--json")
    assert ran.code == 0
    assert len(json.loads(ran.out)["deleted"]) == 6


def test_another_programs_table_stays(run: Run, url: str, prefix: str, dynamodb_client: Any) -> None:
    dynamodb_client.create_table(
        TableName=f"{prefix}Config",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        ProvisionedThroughput={"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
    )
    ran = run("tables", "create", "--store", url)
    assert (ran.code, ran.out) == (1, "")
    assert f"table {prefix}Config has the key id (partition)" in ran.err
    ran = run("tables", "describe", "--store", url)
    assert ran.code == 1
    assert "  billing  provisioned capacity\n" in ran.out
    ran = run("tables", "delete", "--yes", "--store", url)
    assert [line.split() for line in ran.out.splitlines()[1:]] == [[f"{prefix}Config", "kept"]]
    assert f"note: kept, for they have other keys: they are another program's: {prefix}Config\n" in ran.err
    assert dynamodb_client.describe_table(TableName=f"{prefix}Config")
    dynamodb_client.delete_table(TableName=f"{prefix}Config")


@pytest.mark.parametrize("command", ["create", "describe", "delete"])
@pytest.mark.parametrize("store_url", ["sqlite:///budget.db", "memory://"])
def test_other_stores_need_no_tables(run: Run, command: str, store_url: str) -> None:
    ran = run("tables", command, "--store", store_url)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"bedrock-budget: --store: {store_url} needs no tables: ")


def test_a_service_that_does_not_answer_is_one_message(
    run: Run, aws_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    ran = run("tables", "describe", "--store", "dynamodb://?region=us-east-1&endpoint_url=http://127.0.0.1:9")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("bedrock-budget: DynamoDB DescribeTable on bedrock-budget-Config in us-east-1 (")
    assert "Traceback" not in ran.err


def test_a_region_is_needed(run: Run, aws_credentials: None) -> None:
    ran = run("tables", "describe", "--store", "dynamodb://")
    assert ran.code == 1
    assert "no AWS region; add region=" in ran.err


def test_an_answer_refused_half_way_is_an_error(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ConnectionClosedError

    from bedrock_budget.cli import tables

    run("tables", "create", "--store", url)

    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionClosedError(endpoint_url="x")

    facts = tables._facts

    def facts_of(place: Any, state: Any) -> Any:
        monkeypatch.setattr(place.client, "describe_time_to_live", fail)
        return facts(place, state)

    monkeypatch.setattr(tables, "_facts", facts_of)
    assert main(["tables", "describe", "--store", url]) == 1

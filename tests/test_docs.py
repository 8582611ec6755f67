"""The documentation says what is true: its examples run, its links lead somewhere, its tables are complete."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bedrock_budget import PriceKeeperClient
from bedrock_budget.config import load_budgets
from bedrock_budget.core import budget_rules, budget_values
from bedrock_budget.testing import LocalBedrock

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_of_the_project(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if not re.match(r"https?:", target):
            assert (page.parent / target).exists(), target


def test_the_readme_s_budget_and_first_lines_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_bedrock: LocalBedrock, aws_credentials: None
) -> None:
    (budget,) = blocks(ROOT / "README.md", "yaml")
    first = blocks(ROOT / "README.md", "python")[0]
    monkeypatch.chdir(tmp_path)
    Path("budget.yaml").write_text(budget)
    budgets = load_budgets("budget.yaml")
    assert budgets is not None
    assert budgets.scope("acme", "chat").quotas == {"premium": 50_000_000, "standard": 5_000_000, "economy": 2_000_000}
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", local_bedrock.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    names: dict[str, object] = {}
    exec(first, names)
    bedrock = names["bedrock"]
    assert isinstance(bedrock, PriceKeeperClient)
    bedrock.close()
    assert [entry.operation for entry in local_bedrock.ledger.entries()] == ["Converse"]


@pytest.mark.parametrize("source", blocks(ROOT / "docs" / "testing.md", "python"))
def test_the_examples_of_testing_run(source: str) -> None:
    exec(source, {})


@pytest.mark.parametrize("source", blocks(ROOT / "docs" / "prices.md", "python"))
def test_the_examples_of_prices_run(source: str) -> None:
    exec(source, {})


def test_every_key_of_a_configuration_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    known = {
        *budget_rules._METERING,
        *budget_rules._ORG_KEYS,
        *budget_rules._APP_KEYS,
        *budget_rules._TOP_KEYS,
        *budget_values._PRICE_KEYS,
        *budget_values._LIMIT_KEYS,
    }
    assert {key for key in known if not re.search(rf"\b{key}\b", page)} == set()


def test_every_constructor_keyword_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    keywords = set(inspect.signature(PriceKeeperClient.__init__).parameters) - {"self", "client", "org_id", "app_id"}
    assert {keyword for keyword in keywords if f"`{keyword}" not in page} == set()


def test_the_quickstart_ends_with_what_was_metered_equal_to_the_ledger(aws_credentials: None) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert said.index("premium, streamed") < said.index("-> standard") < said.index("-> economy")
    assert said.index("-> economy") < said.index("retry_at: ") < said.index("metered == ledger")
    assert done.stderr == ""

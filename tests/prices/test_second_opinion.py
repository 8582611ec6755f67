"""The second opinion: read as data, and every disagreement told with what was taken and why."""

import datetime as dt
import json
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bedrock_budget.prices import build, second_opinion
from bedrock_budget.prices.second_opinion import BARE, NO_LONG, NO_REASON, ONE_REGION, SUPPLEMENT

SOURCE = """
import datetime
from decimal import Decimal

providers: list[Provider] = [
    Provider(id='other', models=[]),
    Provider(
        id='aws',
        models=[
            ModelInfo(
                id='global.acme.m',
                match=ClauseAnd(and_=[ClauseStartsWith(starts_with='global.'), ClauseRegex(regex='acme[.]m$')]),
                prices=ModelPrice(input_mtok=Decimal('3'), output_mtok=Decimal('15'), input_audio_mtok=Decimal('9')),
            ),
            ModelInfo(
                id='regional.acme.m',
                match=ClauseOr(or_=[ClauseEquals(equals='acme.m'), ClauseEndsWith(ends_with='.acme.m')]),
                prices=[
                    ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('9'), output_mtok=Decimal('9'))),
                    ConditionalPrice(
                        constraint=StartDateConstraint(start_date=datetime.date(2026, 1, 1)),
                        prices=ModelPrice(input_mtok=Decimal('3.3'), output_mtok=Decimal('16.5')),
                    ),
                    ConditionalPrice(
                        constraint=StartDateConstraint(start_date=datetime.date(2027, 1, 1)),
                        prices=ModelPrice(input_mtok=Decimal('1'), output_mtok=Decimal('1')),
                    ),
                ],
            ),
            ModelInfo(
                id='acme.long',
                match=ClauseContains(contains='acme.long'),
                prices=ModelPrice(
                    input_mtok=TieredPrices(base=Decimal('1'), tiers=[Tier(start=200000, price=Decimal('2'))]),
                    output_mtok=Decimal('5'),
                ),
            ),
        ],
    ),
]
"""
DAY = dt.date(2026, 3, 1)
SUPPLEMENT_FILE: dict[str, Any] = {
    "sources": {
        "litellm": {"name": "map", "version": "1", "licence": "MIT", "retrieved": "2026-03-01"},
        "hand": {"name": "hand", "version": "1", "licence": "none", "retrieved": "2026-03-01"},
    }
}


def entry(usd_in: str, usd_out: str, **usd: str) -> dict[str, Any]:
    prices = {"input_cost_per_token": usd_in, "output_cost_per_token": usd_out, **usd}
    found = {name: Decimal(price).scaleb(-6) for name, price in prices.items()}
    return {"litellm_provider": "bedrock", "mode": "chat", **found}


def told(litellm: dict[str, Any], **supplement: Any) -> list[tuple[str, str, int, int | None, str]]:
    second = second_opinion.opinions(SOURCE, DAY)
    built = build.build(litellm, {**SUPPLEMENT_FILE, **supplement}, litellm_sha256="0" * 64, second=second)
    return [(one.model_id, one.kind, one.above_tokens, one.taken, one.reason) for one in built.disagreements]


def test_prices_are_those_of_the_day() -> None:
    for day, rate in ((dt.date(2025, 1, 1), 9_000_000), (DAY, 3_300_000), (dt.date(2027, 1, 1), 1_000_000)):
        among = second_opinion.opinions(SOURCE, day)
        found = second_opinion.opinion_on("eu.acme.m", among)
        assert found is not None
        assert found.rates["input", 0] == rate
        assert second_opinion.opinion_on("acme.other", among) is None


def test_where_they_agree_nothing_is_told() -> None:
    assert told({"us.acme.m": entry("3.3", "16.5"), "global.acme.m": entry("3", "15"), "acme.x": entry("1", "1")}) == []


def test_every_disagreement_has_what_was_taken_and_why() -> None:
    litellm = {
        "acme.m": entry("3", "15"),
        "us.acme.m": entry("3.3", "16.5"),
        "eu.acme.m": entry("3.4", "16.5"),
        "global.acme.m": entry("3", "14"),
        "acme.long": entry("1", "5", output_cost_per_token_above_200k_tokens="7"),
        "bedrock/eu-west-1/acme.m": entry("4", "17"),
    }
    assert told(litellm) == [
        ("acme.long", "input", 200_000, 1_000_000, NO_REASON),  # LiteLLM has no price of long prompts
        ("acme.long", "output", 200_000, 7_000_000, NO_LONG),
        ("acme.m", "input", 0, 3_300_000, BARE),
        ("acme.m", "output", 0, 16_500_000, BARE),
        ("eu.acme.m", "input", 0, 3_400_000, ONE_REGION),
        ("global.acme.m", "output", 0, 14_000_000, NO_REASON),
    ]
    corrected = {"acme.long": {"rows": [{"profile": None, "source": "hand", "input": 1, "output": 1}]}}
    known = {"global.acme.m": "their figure is older"}
    again = {one[0]: one[4] for one in told(litellm, models=corrected, opinions=known)}
    assert again["global.acme.m"] == "their figure is older"
    assert again["acme.long"] == NO_LONG
    [first, *_] = told({"acme.long": entry("2", "5")}, models=corrected)
    assert first[3:] == (1, SUPPLEMENT)


@pytest.mark.parametrize("source", ["x = 1", "providers: list = [Provider(id='aws', models=[1 + 1])]", "y: int = 2"])
def test_other_source_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="genai-prices: "):
        second_opinion.opinions(source, DAY)


def test_the_command_reads_wheels_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    litellm = {"acme.m": {"litellm_provider": "bedrock", "mode": "chat", "input_cost_per_token": 3e-06}}
    litellm["acme.m"]["output_cost_per_token"] = 1.5e-05
    for name, member, text in (
        ("litellm.whl", "litellm/model_prices_and_context_window_backup.json", json.dumps(litellm)),
        ("genai.whl", "genai_prices/data.py", SOURCE),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr(member, text)
    (tmp_path / "supplement.json").write_text(json.dumps(SUPPLEMENT_FILE))
    options = {
        "--litellm": "litellm.whl",
        "--genai": "genai.whl",
        "--supplement": "supplement.json",
        "--out": "out.json",
    }
    arguments = [part for option, name in options.items() for part in (option, str(tmp_path / name))]
    assert build.main(arguments) == 0
    report = capsys.readouterr().out
    assert "covered: 1 of 1 ids, 100.0 %" in report
    assert "disagreements of LiteLLM and genai-prices: 2, 2 without a reason" in report
    assert "acme.m input: LiteLLM 3000000, genai-prices 3300000, taken 3000000: no reason is known" in report

"""The comparison finds what it is there to find: planted losses and double counts, of one pico-dollar if need be."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from faults import traffic
from faults.comparison import (
    MOST_QUIET_SECS,
    Evidence,
    Generation,
    Report,
    Returned,
    Write,
    quiet_secs,
    with_journals,
    without_journals,
)

from bedrock_budget.core.account import Amounts
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.journal.records import UsageRecord
from bedrock_budget.testing import LedgerEntry, Request

DAY = "20260115"
KEY = UsageKey("ORG#acme#APP#search", "economy", DAY)
THREADS = 2


def entry(generation: int, number: int) -> LedgerEntry:
    """A call of the app of `KEY`."""
    text = traffic.text_of_call(traffic.APPS.index("search"), generation, number)
    request = Request("Converse", traffic.MODELS["economy"], {"messages": [{"content": [{"text": text}]}]}, {})
    usage = traffic.usage_of_request(request)
    return LedgerEntry(f"{generation}-{number}", "Converse", request.model_id, usage, 100.0 + number, True, 200)


def on_journal(entries: Sequence[LedgerEntry]) -> list[UsageRecord]:
    cost = traffic.Prices().cost
    fields: Mapping[str, Any] = {"outcome": None} if "outcome" in UsageRecord._fields else {}
    return [
        UsageRecord(
            key=KEY, shard_count=8, cost_pico_usd=cost(each), usage=each.usage, request_id=each.request_id, **fields
        )
        for each in entries
    ]


def returned(entries: Sequence[LedgerEntry]) -> list[Returned]:
    return [Returned(each.started_at, each.request_id, KEY) for each in entries]


def more(amounts: Amounts, cost_pico_usd: int) -> Amounts:
    return amounts._replace(cost_pico_usd=amounts.cost_pico_usd + cost_pico_usd)


KILLED, CLEAN = [entry(1, number) for number in range(4)], [entry(2, number) for number in range(3)]


@pytest.fixture
def journaled() -> Evidence:
    """Generation 1 was killed with its last call in flight; generation 2 ended cleanly."""
    settled = [*KILLED[:3], *CLEAN]
    evidence = Evidence(
        DAY,
        THREADS,
        [*KILLED, *CLEAN],
        {},
        [Generation(1, 110.0, returned(KILLED[:2])), Generation(2, None, returned(CLEAN))],
        on_journal(settled),
    )
    return replace(evidence, shards=evidence.amounts(each.request_id for each in settled))


def only(report: Report) -> str:
    assert len(report.broken) == 1, report.broken
    return report.broken[0]


def test_promises_kept_with_journals(journaled: Evidence) -> None:
    report = with_journals(journaled)
    assert report.broken == []
    assert report.figures["their request ids"] == ["1-3"]


@pytest.mark.parametrize("off", [-1, 1, -1_000_000])
def test_a_pico_dollar_off_is_found(journaled: Evidence, off: int) -> None:
    planted = replace(journaled, shards={KEY: more(journaled.shards[KEY], off)})
    assert f"({off:+d} pico-USD)" in only(with_journals(planted))


def test_a_loss_and_a_double_count_that_make_up_for_each_other_are_found(journaled: Evidence) -> None:
    other = KEY._replace(label="premium")
    shards = {KEY: more(journaled.shards[KEY], -5), other: Amounts(5, Usage(), 0)}
    assert len(with_journals(replace(journaled, shards=shards)).broken) == 2


def test_a_returned_call_that_is_on_no_journal_is_found(journaled: Evidence) -> None:
    killed, clean = journaled.generations
    planted = replace(journaled, generations=[killed._replace(returned=returned(KILLED)), clean])
    assert only(with_journals(planted)) == "1-3 returned in generation 1 and is on no journal"


def test_a_call_on_two_journals_is_found(journaled: Evidence) -> None:
    planted = replace(journaled, journaled=[*journaled.journaled, *on_journal(CLEAN[:1])])
    assert "2-0 is on the journals 2 times" in only(with_journals(planted))


def test_more_calls_in_flight_than_threads_are_found(journaled: Evidence) -> None:
    late = [entry(1, number) for number in range(4, 4 + THREADS)]
    assert "3 calls of generation 1" in only(with_journals(replace(journaled, entries=[*journaled.entries, *late])))


def test_a_call_in_flight_at_a_clean_end_is_found(journaled: Evidence) -> None:
    planted = replace(journaled, entries=[*journaled.entries, entry(2, 9)])
    assert "1 calls of generation 2, which ended cleanly" in only(with_journals(planted))


def test_a_mistaken_cost_is_found(journaled: Evidence) -> None:
    first, *rest = on_journal([*KILLED[:3], *CLEAN])
    planted = replace(journaled, journaled=[first._replace(cost_pico_usd=1), *rest])
    assert "costs" in only(with_journals(planted))


def writes(entries: Sequence[LedgerEntry], at: float) -> list[Write]:
    """One batch, acknowledged."""
    cost = traffic.Prices().cost
    batch = (KEY, sum(map(cost, entries)), len(entries))
    return [Write(at - 0.1, "begin", *batch), Write(at, "end", *batch)]


@pytest.fixture
def unjournaled() -> Evidence:
    """Generation 1 was killed half a second after its last call, with the two last ones unsent."""
    evidence = Evidence(
        DAY,
        THREADS,
        [*KILLED, *CLEAN],
        {},
        [
            Generation(1, KILLED[-1].started_at + 0.5, returned(KILLED), writes(KILLED[:2], KILLED[-1].started_at - 1)),
            Generation(2, None, returned(CLEAN), writes(CLEAN, 200.0)),
        ],
    )
    # The last but one returned a second before the last, in which the write ended.
    return replace(evidence, shards=evidence.amounts(each.request_id for each in [*KILLED[:2], *CLEAN]))


def test_promises_kept_without_journals(unjournaled: Evidence) -> None:
    report = without_journals(unjournaled)
    assert report.broken == []
    assert report.figures["oldest of these, quiet seconds"] == pytest.approx(1.5)
    lost = sum(unjournaled.cost[each.request_id] for each in KILLED[2:])
    assert report.figures["lost pico-USD, by key at least"] == lost
    assert report.figures["could be unsent at a kill, pico-USD"] == lost


def test_a_double_count_is_found(unjournaled: Evidence) -> None:
    twice = unjournaled.shards[KEY].plus(unjournaled.shards[KEY])
    broken = without_journals(replace(unjournaled, shards={KEY: twice})).broken
    assert any("more than the ledger's" in each for each in broken)


def test_a_double_count_that_hides_behind_a_loss_is_found(unjournaled: Evidence) -> None:
    again = unjournaled.amounts([KILLED[0].request_id])[KEY]
    planted = replace(unjournaled, shards={KEY: unjournaled.shards[KEY].plus(again)})
    assert "+1 calls more than was acknowledged" in only(without_journals(planted))


def test_a_batch_under_way_at_a_kill_may_be_in_the_store_or_not(unjournaled: Evidence) -> None:
    killed, clean = unjournaled.generations
    under_way = writes(KILLED[2:], KILLED[-1].started_at + 0.2)[:1]
    left = replace(unjournaled, generations=[killed._replace(writes=[*killed.writes, *under_way]), clean])
    assert without_journals(left).broken == []
    taken = replace(left, shards={KEY: left.shards[KEY].plus(left.amounts(["1-2", "1-3"])[KEY])})
    assert without_journals(taken).broken == []
    half = replace(left, shards={KEY: left.shards[KEY].plus(left.amounts(["1-2"])[KEY])})
    assert "no sum of the batches under way" in only(without_journals(half))


def test_the_loss_of_what_was_acknowledged_is_found(unjournaled: Evidence) -> None:
    planted = replace(unjournaled, shards={KEY: more(unjournaled.shards[KEY], -1)})
    broken = without_journals(planted).broken
    assert any("-1 pico-USD and +0 calls more than was acknowledged" in each for each in broken)
    assert any("could be unsent at a kill" in each for each in broken)


def test_a_call_that_stayed_unsent_for_too_long_is_found(unjournaled: Evidence) -> None:
    killed, clean = unjournaled.generations
    assert killed.killed_at is not None
    later = killed._replace(killed_at=killed.killed_at + 0.5)
    broken = without_journals(replace(unjournaled, generations=[later, clean])).broken
    assert any("1-2 of generation 1 had returned 2.00 s of quiet time before the kill" in each for each in broken)


def test_a_clean_end_that_loses_something_is_found(unjournaled: Evidence) -> None:
    killed, clean = unjournaled.generations
    planted = replace(
        unjournaled,
        generations=[killed, clean._replace(writes=writes(CLEAN[:2], 200.0))],
        shards=unjournaled.amounts(each.request_id for each in [*KILLED[:2], *CLEAN[:2]]),
    )
    assert any("generation 2 ended cleanly and wrote" in each for each in without_journals(planted).broken)


def test_quiet_time_leaves_out_writes_and_what_follows_a_failed_one() -> None:
    other = KEY._replace(label="premium")
    notes = [
        Write(1.0, "begin", KEY),
        Write(2.0, "end", KEY),  # one second
        Write(3.0, "begin", KEY),
        Write(3.5, "failed", KEY),
        Write(4.0, "begin", other),
        Write(4.1, "end", other),  # another one's success mends nothing
        Write(5.0, "begin", KEY),
        Write(6.0, "end", KEY),  # three seconds
        Write(9.0, "begin", KEY),  # to the end
    ]
    generation = Generation(1, 10.0, (), notes)
    assert quiet_secs(generation, 0.0) == pytest.approx(1 + 1 + 3)
    assert quiet_secs(generation, 5.5) == pytest.approx(3)
    assert quiet_secs(generation, 9.5) == 0
    assert quiet_secs(Generation(1, 10.0), 7.0) == pytest.approx(3)
    assert MOST_QUIET_SECS < 2

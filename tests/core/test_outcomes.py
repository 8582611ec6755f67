"""The table of outcomes: every one has a settlement and a reason; only calls that may have been billed are metered."""

import typing

from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.account import Account
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.outcomes import NOT_METERED, OUTCOMES, Outcome, guardrail_outcome, intervened
from bedrock_budget.core.usage import Usage

NAMES = typing.get_args(Outcome)
KEY = UsageKey("ORG#acme", "premium", "20260115")
counts = st.integers(0, 10**9)


def test_every_outcome_is_in_the_table_with_a_reason() -> None:
    assert set(OUTCOMES) == set(NAMES)
    assert len({rule.reason for rule in OUTCOMES.values()}) == len(NAMES)


def test_what_costs_nothing_or_is_no_end_of_a_call_is_not_metered() -> None:
    assert {"refused", "not_sent", "retried", "in_doubt"} == NOT_METERED


@given(st.lists(st.sampled_from(NAMES)))
def test_the_counts_of_outcomes_add_up_to_the_calls_that_were_made(outcomes: list[Outcome]) -> None:
    account = Account(KEY, 8)
    for outcome in outcomes:
        if outcome not in NOT_METERED:
            account.add(Usage(1), 1)
        if outcome != "complete":
            account.count(outcome)
    assert account.outcome_counts() == {"complete": 0, **{name: outcomes.count(name) for name in set(outcomes)}}


@given(st.builds(Usage, counts, counts, counts, counts, counts))
def test_a_guardrail_that_left_usage_stepped_in_on_the_answer(usage: Usage) -> None:
    assert guardrail_outcome(usage) == ("guardrail_output" if sum(usage) else "guardrail_input")


def test_only_a_body_that_says_so_was_stepped_in_on() -> None:
    assert intervened({"amazon-bedrock-guardrailAction": "INTERVENED"})
    for body in ({"amazon-bedrock-guardrailAction": "NONE"}, {}, [], None, "INTERVENED"):
        assert not intervened(body)

"""What a process knows of a scope: routes, snapshots, and what it has spent that the store does not know."""

from math import inf

import pytest
from doubles import CHAIN, ByHand, UnreliableStore, config

from bedrock_budget.core.budget import UNLABELLED
from bedrock_budget.core.errors import StoreError
from bedrock_budget.core.money import PICO_PER_MICRO
from bedrock_budget.scopes import ScopeDay
from bedrock_budget.stores import MemoryStore, Override, Sticky
from bedrock_budget.testing import ManualClock


def snapshot_for(**org_defaults: object):  # type: ignore[no-untyped-def]
    process = ByHand(MemoryStore(), ManualClock(), config(**org_defaults))
    process.admit()
    return process.day.snapshot


@pytest.mark.parametrize(
    ("quota", "tight_at", "hurry_at"),
    [
        (None, inf, inf),
        (0, 0, 0),
        (1, 950_000, 10_000),
        (1000, 950 * PICO_PER_MICRO, 10 * PICO_PER_MICRO),
    ],
)
def test_from_where_on_a_label_is_tight_and_its_usage_hurried(
    quota: int | None, tight_at: float, hurry_at: float
) -> None:
    snapshot = snapshot_for(quotas={**dict.fromkeys(CHAIN, 5), "premium": quota})
    route = snapshot.routes["premium"]
    assert (route.tight_at, route.hurry_at) == (tight_at, hurry_at)


def test_a_label_counts_as_tight_from_the_first_pico_usd_at_the_threshold() -> None:
    snapshot = snapshot_for(quotas=dict.fromkeys(CHAIN, 1), tight_mode_threshold_pct=33)
    assert snapshot.routes["premium"].tight_at == 330_000


def test_labels_are_found_by_name_and_by_model_the_first_of_the_ordering_first() -> None:
    shared = {"id": "same.model", "input_price_usd_micros_per_1m": 1, "output_price_usd_micros_per_1m": 1}
    process = ByHand(
        MemoryStore(),
        ManualClock(),
        {**config(), "model_labels": dict.fromkeys(("embed", "economy", "standard", "premium"), shared)},
    )
    assert process.goes_to("same.model") == ("premium", "requested")
    assert process.goes_to("economy") == ("economy", "requested")
    assert process.goes_to("embed") == ("embed", "requested")


def test_a_scope_can_spend_from_all_its_labels_and_from_what_has_none() -> None:
    assert [each.key.label for each in snapshot_for().accounts] == [*CHAIN, "embed"]
    assert snapshot_for(on_unknown_model="pass").accounts[-1].key.label == UNLABELLED


def test_other_controls_leave_the_budget_as_it_is() -> None:
    snapshot = snapshot_for()
    override = Override("economy", "why", "who", 0, 10)
    changed = snapshot.with_controls(override, Sticky("standard", 7, "", "", 0, 10), None)
    assert changed.sticky == 1  # by its name
    assert changed.override_route is snapshot.routes["economy"]
    assert changed.routes is snapshot.routes
    assert changed.accounts is snapshot.accounts
    back = changed.with_controls(None, None, None)
    assert (back.sticky, back.override, back.override_route) == (0, None, None)
    assert snapshot.with_controls(override._replace(label="gone"), None, None).override_route is None


def spent(process: ByHand, usd_micros: int) -> ScopeDay:
    process.spend(usd_micros)
    return process.day


def test_blind_spending_is_what_was_spent_since_the_last_look_that_succeeded() -> None:
    store, clock = UnreliableStore(), ManualClock()
    process = ByHand(store, clock)
    day = spent(process, 10)
    assert day.blind_pico_usd() == 10 * PICO_PER_MICRO
    process.look_at_spend()
    assert day.blind_pico_usd() == 0
    spent(process, 5)
    process.write()
    spent(process, 6)
    store.go_away()
    process.look_at_spend()
    assert day.degraded
    assert day.blind_pico_usd() == 11 * PICO_PER_MICRO
    store.come_back()
    process.look_at_spend()
    assert not day.degraded
    assert day.blind_pico_usd() == 0


def test_a_day_that_follows_itself_counts_nothing_twice() -> None:
    store, clock = UnreliableStore(), ManualClock()
    process = ByHand(store, clock)
    first = spent(process, 1)
    store.go_away()
    process.look_at_spend()
    spent(process, 10)
    process.keeper.scopes._forget(first)
    second = spent(process, 5)
    assert second is not first
    assert second.day == first.day
    assert second.blind_pico_usd() == 16 * PICO_PER_MICRO
    assert second.unwritten_pico_usd() == 16 * PICO_PER_MICRO


def test_a_day_that_is_left_covers_no_time() -> None:
    process = ByHand(MemoryStore(), ManualClock())
    process.admit()
    day = process.day
    day.leave()
    assert not day.starts_at <= process.clock.now() < day.ends_at
    process.admit()
    assert process.day is not day


def test_a_look_that_failed_shows_until_one_succeeds() -> None:
    process = ByHand(MemoryStore(), ManualClock())
    process.admit()
    day = process.day
    day.failed(StoreError("away"))
    assert day.degraded
    assert process.clock.now() >= day.fresh_until
    day.succeeded()
    assert not day.degraded
    assert day.failures == 0

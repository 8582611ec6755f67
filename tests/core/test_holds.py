"""Slices and grants: what a process may hold, and what it asks of the store."""

from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.holds import Grant, Granted, Slice
from bedrock_budget.core.keys import UsageKey

KEY = UsageKey("ORG#acme", "premium", "20260115")
HOLDER = "wholder0001"
QUOTA = 40_000  # a slice: 100


def share(granted: int = 0, held: int = 0, quota: int = QUOTA) -> Slice:
    made = Slice(KEY, HOLDER, quota, 1_800_000_000)
    made.granted, made.held = granted, held
    return made


def grant(change: int, quota: int | None = QUOTA, sequence: int = 1) -> Grant:
    return Grant(KEY, HOLDER, sequence, change, quota, 0, 1_800_000_000)


def test_a_grant_fits_up_to_the_quota_and_not_above() -> None:
    assert grant(10).fits(QUOTA - 10)
    assert not grant(11).fits(QUOTA - 10)


def test_a_grant_without_a_quota_always_fits() -> None:
    assert grant(11, None).fits(QUOTA)


def test_a_hold_needs_its_worst_case_unheld() -> None:
    one = share(10)
    assert one.hold(10)
    assert not one.hold(1)
    assert one.hold(0)
    assert (one.granted, one.held, one.unheld) == (10, 10, 0)


def test_a_hold_of_nothing_needs_nothing_but_no_overrun() -> None:
    assert share().hold(0)
    assert not share(-1).hold(0)


def test_settling_leaves_what_was_not_spent() -> None:
    one = share(10)
    one.hold(10)
    one.settle(10, 3)
    assert (one.granted, one.held) == (7, 0)


def test_a_call_that_cost_more_than_its_hold_leaves_less_than_nothing() -> None:
    one = share(10)
    one.hold(10)
    one.settle(10, 12)
    assert one.unheld == -2
    assert one.take(5).change_pico_usd >= 7


def test_a_take_is_a_whole_slice_or_one_worst_case() -> None:
    assert share().take(7).change_pico_usd == 100
    assert share().take(101).change_pico_usd == 101
    assert share(30, 30).take(7).change_pico_usd == 70


def test_a_take_of_at_most_so_much_is_still_what_the_call_needs() -> None:
    assert share().take(7, most=50).change_pico_usd == 50
    assert share().take(7, most=3).change_pico_usd == 7
    assert share(5).take(7, most=0).change_pico_usd == 2


def test_a_quota_in_very_many_slices_is_taken_call_by_call() -> None:
    assert share(quota=10**13).take(7, slices=1 << 62).change_pico_usd == 7


def test_takes_carry_the_quota_and_what_was_spent_before() -> None:
    one = share()
    one.spent_before = 5
    assert one.take(7) == Grant(KEY, HOLDER, 1, 100, QUOTA, 5, 1_800_000_000)


def test_what_is_not_held_goes_back_whatever_the_quota() -> None:
    one = share(10, 4)
    back = one.give_back()
    assert back is not None
    assert (back.change_pico_usd, back.quota_pico_usd, back.sequence) == (-6, None, 1)


def test_an_overrun_is_told_as_granted() -> None:
    one = share(2, 5)
    back = one.give_back()
    assert back is not None
    assert back.change_pico_usd == 3
    one.answered(Granted(True, 3))
    assert one.unheld == 0


def test_nothing_unheld_is_nothing_to_say() -> None:
    assert share(4, 4).give_back() is None


def test_what_is_on_its_way_back_cannot_be_held() -> None:
    one = share(10, 4)
    one.give_back()
    assert not one.hold(1)
    assert (one.granted, one.unheld, one.unused) == (4, 0, 6)
    one.answered(Granted(True, 4))
    assert (one.granted, one.unheld, one.unused) == (4, 0, 0)


def test_a_take_counts_once_it_is_answered() -> None:
    one = share()
    one.take(7)
    assert (one.unheld, one.unused) == (0, 0)
    one.answered(Granted(True, 130))
    assert (one.granted, one.room, one.in_flight) == (100, QUOTA - 130, None)


def test_a_refused_take_leaves_things_as_they_were_and_says_what_is_left() -> None:
    one = share(3)
    one.take(7)
    one.answered(Granted(False, QUOTA - 2))
    assert (one.granted, one.room, one.sequence) == (3, 2, 1)


def test_a_renewal_changes_nothing_but_the_number() -> None:
    one = share(10, 4)
    assert one.renew() == grant(0, None)
    one.answered(Granted(True, 10))
    assert (one.granted, one.held, one.sequence) == (10, 4, 1)


def test_a_pool_that_is_gone_leaves_only_what_is_held() -> None:
    one = share(10, 4)
    one.spent_before = 5
    one.renew()
    one.answered(Granted(False, 0))
    assert one.give_back() is None
    assert one.take(7).spent_pico_usd == 0  # what was spent before has to be asked for again
    assert (one.granted, one.held) == (4, 4)


def test_a_write_in_doubt_is_never_counted_as_money_to_hold() -> None:
    one = share(10)
    one.give_back()
    one.abandon()
    assert (one.granted, one.in_flight) == (0, None)
    one.take(7)
    one.abandon()
    assert one.granted == 0


@st.composite
def doings(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    names = st.sampled_from(["take", "applied", "refused", "hold", "settle", "give back", "renew", "abandon"])
    return draw(st.lists(st.tuples(names, st.integers(0, 150), st.integers(0, 200)), max_size=60))


@given(doings())
def test_what_is_spent_and_held_is_granted_whatever_happens(doings: list[tuple[str, int, int]]) -> None:
    """The store's figure, in which a write in flight may be applied at once or late, always covers it."""
    one = share()
    stored = charged = excess = 0
    calls: list[int] = []
    for what, amount, other in doings:
        flying = one.in_flight
        if what == "take" and flying is None and one.unheld < amount:
            one.take(amount)
        elif what == "renew" and flying is None:
            one.renew()
        elif what == "give back" and flying is None:
            one.give_back()
        elif what == "applied" and flying is not None:
            stored += flying.change_pico_usd
            one.answered(Granted(True, stored))
        elif what == "refused" and flying is not None and flying.quota_pico_usd is not None:
            one.answered(Granted(False, stored))
        elif what == "abandon" and flying is not None:
            stored += min(flying.change_pico_usd, 0)  # the worse of both
            one.abandon()
        elif what == "hold" and one.hold(amount):
            calls.append(amount)
        elif what == "settle" and calls:
            worst_case = calls.pop()
            one.settle(worst_case, other)
            charged += other
            excess += max(other - worst_case, 0)
        returning = min(one.in_flight.change_pico_usd, 0) if one.in_flight else 0
        assert charged + sum(calls) <= stored + returning + excess
        assert one.held == sum(calls)

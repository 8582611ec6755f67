"""One suite for all stores: what `stores/contract.py` promises of strict enforcement."""

import itertools

import pytest
from stores.batches import NOW, new_key, new_writer
from stores.threads import THREADS, in_threads

from bedrock_budget.core.holds import Grant, Granted
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.stores import SequenceConflict, Store, StoreSetupError
from bedrock_budget.stores.contract import Store as Contract

QUOTA = 10_000_000_000_001  # not a whole number of micros
LATER = int(NOW) + 86_400


def grant(
    key: UsageKey,
    change: int,
    *,
    holder: str | None = None,
    sequence: int = 1,
    quota: int | None = QUOTA,
    spent: int = 0,
) -> Grant:
    return Grant(key, holder or new_writer(), sequence, change, quota, spent, LATER)


def granted(store: Store, key: UsageKey) -> int | None:
    return store.read_granted([key]).get(key)


def test_what_was_never_granted_is_left_out(store: Store) -> None:
    one, other = new_key(), new_key()
    store.write_grant(grant(one, 7))
    assert store.read_granted([one, other]) == {one: 7}
    assert store.read_granted([]) == {}


def test_grants_never_exceed_the_quota(store: Store) -> None:
    key = new_key()
    assert store.write_grant(grant(key, QUOTA - 1)) == Granted(True, QUOTA - 1)
    assert store.write_grant(grant(key, 2)) == Granted(False, QUOTA - 1)
    assert store.write_grant(grant(key, 1)) == Granted(True, QUOTA)
    assert store.write_grant(grant(key, 1)) == Granted(False, QUOTA)
    assert granted(store, key) == QUOTA


def test_a_first_grant_above_the_quota_opens_nothing(store: Store) -> None:
    key = new_key()
    assert store.write_grant(grant(key, QUOTA + 1)) == Granted(False, 0)
    assert granted(store, key) is None


def test_what_was_spent_before_counts_as_granted_once(store: Store) -> None:
    key = new_key()
    assert store.write_grant(grant(key, QUOTA, spent=1)) == Granted(False, 1)
    assert store.write_grant(grant(key, 5, spent=100)) == Granted(True, 105)
    assert store.write_grant(grant(key, 5, spent=100)) == Granted(True, 110)


def test_the_same_grant_again_changes_nothing(store: Store) -> None:
    key, holder = new_key(), new_writer()
    for _ in range(3):
        assert store.write_grant(grant(key, 40, holder=holder)) == Granted(True, 40)
    for _ in range(2):
        assert store.write_grant(grant(key, -15, holder=holder, sequence=2, quota=None)) == Granted(True, 25)
    with pytest.raises(SequenceConflict):
        store.write_grant(grant(key, 40, holder=holder))
    assert granted(store, key) == 25


def test_a_grant_of_two_holders_is_two(store: Store) -> None:
    key = new_key()
    store.write_grant(grant(key, 40))
    assert store.write_grant(grant(key, 40)) == Granted(True, 80)


def test_a_refused_grant_may_be_followed_by_a_smaller_one(store: Store) -> None:
    key, holder = new_key(), new_writer()
    store.write_grant(grant(key, QUOTA - 3))
    assert not store.write_grant(grant(key, 4, holder=holder)).applied
    assert store.write_grant(grant(key, 3, holder=holder, sequence=2)) == Granted(True, QUOTA)


def test_money_that_comes_back_can_be_granted_again(store: Store) -> None:
    key, holder = new_key(), new_writer()
    store.write_grant(grant(key, QUOTA, holder=holder))
    assert store.write_grant(grant(key, -10, holder=holder, sequence=2, quota=None)) == Granted(True, QUOTA - 10)
    assert store.write_grant(grant(key, 10)) == Granted(True, QUOTA)


def test_what_cost_more_than_its_hold_is_granted_whatever_the_quota(store: Store) -> None:
    key, holder = new_key(), new_writer()
    store.write_grant(grant(key, QUOTA, holder=holder))
    assert store.write_grant(grant(key, 5, holder=holder, sequence=2, quota=None)) == Granted(True, QUOTA + 5)


@pytest.mark.parametrize("change", [0, -1])
def test_a_return_opens_no_pool(store: Store, change: int) -> None:
    key = new_key()
    assert store.write_grant(grant(key, change, quota=None)) == Granted(False, 0)
    assert granted(store, key) is None


def test_a_quota_that_went_down_refuses_and_takes_returns(store: Store) -> None:
    key, holder = new_key(), new_writer()
    store.write_grant(grant(key, QUOTA, holder=holder))
    assert not store.write_grant(grant(key, 1, quota=QUOTA // 2)).applied
    assert store.write_grant(grant(key, -QUOTA, holder=holder, sequence=2, quota=None)).applied
    assert store.write_grant(grant(key, 1, quota=QUOTA // 2)).applied


def test_racing_threads_are_granted_the_quota_and_no_more(store: Store) -> None:
    key = new_key()
    slices = itertools.repeat(QUOTA // (2 * THREADS) + 1)

    taken: list[int] = []

    def take(_: int) -> None:
        holder = new_writer()
        for sequence, change in zip(range(1, 5), slices, strict=False):
            if store.write_grant(grant(key, change, holder=holder, sequence=sequence)).applied:
                taken.append(change)

    in_threads(THREADS, take)
    assert granted(store, key) == sum(taken)
    assert QUOTA - (QUOTA // (2 * THREADS) + 1) < sum(taken) <= QUOTA


def test_scopes_labels_and_days_are_apart(store: Store) -> None:
    key = new_key()
    others = [key._replace(label="standard"), key._replace(scope=key.scope + "2"), key._replace(day="20260124")]
    store.write_grant(grant(key, QUOTA))
    for other in others:
        assert store.write_grant(grant(other, 1)).applied


def test_once_is_once_for_a_repeated_request(store: Store) -> None:
    key, holder = new_key(), new_writer()
    for _ in range(2):
        assert store.write_grant(grant(key, 40, holder=holder), once=True) == Granted(True, 40)
    assert not store.write_grant(grant(key, QUOTA, holder=holder, sequence=2), once=True).applied
    assert store.write_grant(grant(key, -40, holder=holder, sequence=3, quota=None), once=True) == Granted(True, 0)


@pytest.mark.parametrize(
    "wrong", [{"holder_id": "x"}, {"sequence": 0}, {"spent_pico_usd": -1}], ids=["holder", "sequence", "spent"]
)
def test_a_grant_that_is_none_is_refused(store: Store, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="got"):
        store.write_grant(grant(new_key(), 1)._replace(**wrong))  # type: ignore[arg-type]


def test_a_store_without_it_says_so() -> None:
    with pytest.raises(StoreSetupError, match="write_grant, which enforcement 'strict' needs"):
        Contract.write_grant(object(), grant(new_key(), 1))  # type: ignore[arg-type]
    with pytest.raises(StoreSetupError, match="read_granted"):
        Contract.read_granted(object(), [])  # type: ignore[arg-type]

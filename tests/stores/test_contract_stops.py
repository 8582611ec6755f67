"""One suite for all stores: what `stores/contract.py` promises of stops."""

import pytest
from stores.batches import DAY, NOW
from stores.threads import THREADS, in_threads

from bedrock_budget.core.errors import ConfigError
from bedrock_budget.stores import Override, Stop, Store

NOW_EPOCH = int(NOW)
LATER = NOW_EPOCH + 3600
NEXT_DAY = "20260124"
#: Until it is lifted, and for a while.
STOP = Stop("chat", "ann", "runaway agent", NOW_EPOCH, None)
FOR_ALL = Stop(None, "kim", "the card was stolen", NOW_EPOCH, LATER)
AUTOMATIC = Stop("chat", "bedrock_budget (automatic)", "120 % is reached", NOW_EPOCH, LATER)


def in_force(store: Store, app_id: str | None = "chat", now: float = NOW, org_id: str = "acme") -> Stop | None:
    found = store.read_controls(org_id, app_id, scope="ORG#acme#APP#chat", day=DAY, now_epoch=now)
    again = store.read_controls(org_id, app_id, scope="ORG#acme#APP#chat", day=DAY, now_epoch=now, consistent=True)
    assert again == found
    return found.stop


def lift(store: Store, app_id: str | None = "chat", now: int = NOW_EPOCH) -> Stop | None:
    return store.lift_stop("acme", app_id, lifted_by="lee", now_epoch=now)


def test_a_stop_is_the_apps_or_all_of_the_orgs(store: Store) -> None:
    assert in_force(store) is None
    store.put_stop("acme", STOP)
    assert in_force(store) == STOP
    assert in_force(store, "other") is None
    assert in_force(store, None) is None
    assert in_force(store, org_id="emca") is None
    store.put_stop("acme", FOR_ALL)
    assert in_force(store, "other") == FOR_ALL
    assert in_force(store, None) == FOR_ALL


def test_the_stop_that_lasts_longer_is_the_one_in_force(store: Store) -> None:
    store.put_stop("acme", FOR_ALL)
    store.put_stop("acme", STOP._replace(expires_at_epoch=LATER - 1))
    assert in_force(store) == FOR_ALL
    store.put_stop("acme", STOP._replace(expires_at_epoch=LATER))
    assert in_force(store) == FOR_ALL  # of equals the org's
    longer = STOP._replace(expires_at_epoch=LATER + 1)
    store.put_stop("acme", longer)
    assert in_force(store) == longer
    assert in_force(store, now=LATER) == longer
    store.put_stop("acme", STOP)
    assert in_force(store, now=LATER + 1) == STOP
    store.put_stop("acme", FOR_ALL._replace(expires_at_epoch=None))
    assert in_force(store) == FOR_ALL._replace(expires_at_epoch=None)


def test_a_stop_without_an_end_lasts_until_it_is_lifted(store: Store) -> None:
    store.put_stop("acme", STOP)
    assert in_force(store, now=NOW + 10**9) == STOP
    assert lift(store) == STOP
    assert in_force(store) is None


def test_an_expired_stop_is_not_there(store: Store) -> None:
    store.put_stop("acme", FOR_ALL)
    assert in_force(store, now=LATER - 1) == FOR_ALL
    assert in_force(store, now=LATER) is None
    assert store.stops("acme", now_epoch=LATER) == []
    assert lift(store, None, LATER) is None


def test_a_later_stop_takes_the_place_of_an_earlier_one(store: Store) -> None:
    store.put_stop("acme", STOP)
    again = Stop("chat", "lee", "still running away", NOW_EPOCH + 1, LATER)
    store.put_stop("acme", again)
    assert in_force(store) == again
    store.put_stop("acme", STOP)
    store.put_stop("acme", STOP)
    assert in_force(store, now=LATER) == STOP


def test_the_stops_of_org_and_app_are_independent(store: Store) -> None:
    store.put_stop("acme", STOP)
    store.put_stop("acme", FOR_ALL)
    assert lift(store) == STOP
    assert in_force(store) == FOR_ALL
    store.put_stop("acme", STOP)
    assert lift(store, None) == FOR_ALL
    assert in_force(store) == STOP
    assert in_force(store, "other") is None


def test_lifting_says_what_was_lifted(store: Store) -> None:
    assert lift(store) is None
    store.put_stop("acme", STOP)
    assert lift(store, None) is None
    assert lift(store) == STOP
    assert lift(store) == STOP  # a repeated request
    assert lift(store, now=NOW_EPOCH + 1) is None
    assert store.lift_stop("acme", "chat", lifted_by="kim", now_epoch=NOW_EPOCH) is None
    store.put_stop("acme", STOP)
    assert in_force(store) == STOP


def test_all_stops_of_an_org_are_listed(store: Store) -> None:
    assert store.stops("acme", now_epoch=NOW) == []
    for app_id in ("zeta", "chat", "Beta"):
        store.put_stop("acme", STOP._replace(app_id=app_id))
    store.put_stop("acme", FOR_ALL)
    store.put_stop("acme2", FOR_ALL)
    store.put_override("acme", "chat", Override("economy", "", "ann", NOW_EPOCH, LATER))
    store.put_config("acme", "chat", {"n": 1})
    assert [stop.app_id for stop in store.stops("acme", now_epoch=NOW)] == [None, "Beta", "chat", "zeta"]
    lift(store)
    assert [stop.app_id for stop in store.stops("acme", now_epoch=LATER)] == ["Beta", "zeta"]
    assert store.app_ids("acme") == ["chat"]


def test_the_id_that_stands_for_all_apps_is_no_apps_id(store: Store) -> None:
    with pytest.raises(ConfigError, match="all apps"):
        store.put_stop("acme", STOP._replace(app_id="*"))
    with pytest.raises(ConfigError, match="all apps"):
        store.put_automatic_stop("acme", STOP._replace(app_id="*"), day=DAY)
    with pytest.raises(ConfigError, match="all apps"):
        lift(store, "*")


# --- automatic stops


def test_an_automatic_stop_is_made_once(store: Store) -> None:
    assert store.put_automatic_stop("acme", AUTOMATIC, day=DAY) == AUTOMATIC
    another = AUTOMATIC._replace(reason="121 % is reached", stopped_at_epoch=NOW_EPOCH + 1)
    assert store.put_automatic_stop("acme", another, day=DAY) == AUTOMATIC
    assert in_force(store) == AUTOMATIC


def test_an_automatic_stop_that_was_lifted_is_not_made_again_that_day(store: Store) -> None:
    store.put_automatic_stop("acme", AUTOMATIC, day=DAY)
    assert lift(store, now=NOW_EPOCH + 1) == AUTOMATIC
    again = AUTOMATIC._replace(stopped_at_epoch=NOW_EPOCH + 2)
    assert store.put_automatic_stop("acme", again, day=DAY) is None
    assert in_force(store) is None
    assert store.put_automatic_stop("acme", again._replace(app_id=None), day=DAY)  # the org's is another
    tomorrow = AUTOMATIC._replace(stopped_at_epoch=LATER + 5, expires_at_epoch=LATER + 100)
    assert store.put_automatic_stop("acme", tomorrow, day=NEXT_DAY) == tomorrow
    assert store.put_automatic_stop("acme", tomorrow, day=DAY) == tomorrow  # of a process that is late
    assert lift(store, now=LATER + 6) == tomorrow
    assert store.put_automatic_stop("acme", tomorrow, day=DAY) is None


def test_an_automatic_stop_leaves_an_operators_alone(store: Store) -> None:
    for stop in (STOP, STOP._replace(expires_at_epoch=NOW_EPOCH + 1)):
        store.put_stop("acme", stop)
        assert store.put_automatic_stop("acme", AUTOMATIC, day=DAY) == stop
        assert in_force(store) == stop
    lift(store)
    # what was lifted was an operator's; today's automatic one is still to come
    assert store.put_automatic_stop("acme", AUTOMATIC, day=DAY) == AUTOMATIC


def test_an_automatic_stop_follows_an_operators_that_is_over(store: Store) -> None:
    store.put_stop("acme", STOP._replace(expires_at_epoch=NOW_EPOCH + 1))
    late = AUTOMATIC._replace(stopped_at_epoch=NOW_EPOCH + 1)
    assert store.put_automatic_stop("acme", late, day=DAY) == late


@pytest.mark.parametrize("until", [None, NOW_EPOCH + 5])
def test_an_operators_stop_after_an_automatic_one_keeps_it_from_coming_again(store: Store, until: int | None) -> None:
    store.put_automatic_stop("acme", AUTOMATIC, day=DAY)
    store.put_stop("acme", STOP._replace(expires_at_epoch=until))
    if until is None:
        assert lift(store) == STOP
    late = AUTOMATIC._replace(stopped_at_epoch=NOW_EPOCH + 10)
    assert store.put_automatic_stop("acme", late, day=DAY) is None
    assert in_force(store, now=NOW_EPOCH + 10) is None


def test_of_racing_threads_one_makes_the_automatic_stop(store: Store) -> None:
    found: list[Stop | None] = []

    def make(number: int) -> None:
        mine = AUTOMATIC._replace(reason=f"seen by {number}")
        found.append(store.put_automatic_stop("acme", mine, day=DAY))

    in_threads(THREADS, make)
    standing = in_force(store)
    assert standing
    assert found == [standing] * THREADS


def test_racing_threads_that_make_and_lift_leave_it_lifted(store: Store) -> None:
    store.put_automatic_stop("acme", AUTOMATIC, day=DAY)
    lifted: list[Stop | None] = []

    def race(number: int) -> None:
        if number % 2:
            lifted.append(store.lift_stop("acme", "chat", lifted_by=f"op{number}", now_epoch=NOW_EPOCH + number))
        else:
            store.put_automatic_stop("acme", AUTOMATIC._replace(reason=f"again {number}"), day=DAY)

    in_threads(THREADS, race)
    assert [each for each in lifted if each] == [AUTOMATIC]
    assert in_force(store) is None

"""One suite for all stores: what `stores/contract.py` promises of sticky state, overrides and configuration."""

import pytest
from stores.batches import DAY, NOW
from stores.threads import THREADS, in_threads

from bedrock_budget.core.errors import ConfigError
from bedrock_budget.stores import Controls, Override, Sticky, Store

LATER = int(NOW) + 3600
STICKY = Sticky("standard", 1, "QUOTA_EXCEEDED", "premium", int(NOW), LATER)
OVERRIDE = Override("economy", "incident 7", "ann", int(NOW), LATER)


def controls(store: Store, app_id: str | None = "chat", now: float = NOW, org_id: str = "acme") -> Controls:
    return store.read_controls(org_id, app_id, scope="ORG#acme#APP#chat", day=DAY, now_epoch=now)


# --- sticky state


def test_sticky_state_only_moves_forward(store: Store) -> None:
    scope = "ORG#acme#APP#chat"
    assert controls(store).sticky is None
    assert store.advance_sticky(scope, DAY, STICKY) == STICKY
    assert store.advance_sticky(scope, DAY, STICKY) == STICKY  # idempotent
    same_place = STICKY._replace(label="other")
    assert store.advance_sticky(scope, DAY, same_place) == STICKY
    further = Sticky("economy", 2, "QUOTA_EXCEEDED", "standard", int(NOW), LATER)
    assert store.advance_sticky(scope, DAY, further) == further
    assert store.advance_sticky(scope, DAY, STICKY) == further
    assert controls(store).sticky == further
    assert store.advance_sticky(scope, "20260124", STICKY) == STICKY  # another day


def test_racing_threads_leave_the_furthest_sticky_state(store: Store) -> None:
    scope = "ORG#acme#APP#chat"

    def advance(number: int) -> None:
        mine = STICKY._replace(label=f"label{number}", position=number)
        standing = store.advance_sticky(scope, DAY, mine)
        assert standing == mine or standing.position > number

    in_threads(THREADS, advance)
    sticky = controls(store).sticky
    assert sticky is not None
    assert (sticky.position, sticky.label) == (THREADS - 1, f"label{THREADS - 1}")


def test_expired_sticky_state_is_not_there(store: Store) -> None:
    scope = "ORG#acme#APP#chat"
    store.advance_sticky(scope, DAY, STICKY._replace(position=5))
    assert controls(store, now=LATER - 1).sticky is not None
    assert controls(store, now=LATER).sticky is None
    next_day = STICKY._replace(activated_at_epoch=LATER, expires_at_epoch=LATER + 10)
    assert store.advance_sticky(scope, DAY, next_day) == next_day


def test_cleared_sticky_state_can_start_again(store: Store) -> None:
    scope = "ORG#acme#APP#chat"
    store.advance_sticky(scope, DAY, STICKY._replace(position=5))
    store.clear_sticky(scope, DAY)
    store.clear_sticky(scope, DAY)
    assert controls(store).sticky is None
    assert store.advance_sticky(scope, DAY, STICKY) == STICKY


# --- overrides


def test_an_apps_override_comes_before_the_orgs(store: Store) -> None:
    for_all = OVERRIDE._replace(label="standard")
    store.put_override("acme", None, for_all)
    assert controls(store).override == for_all
    assert controls(store, None).override == for_all
    store.put_override("acme", "chat", OVERRIDE)
    assert controls(store).override == OVERRIDE
    assert controls(store, "other").override == for_all
    assert controls(store, org_id="emca").override is None
    again = OVERRIDE._replace(reason="incident 8")
    store.put_override("acme", "chat", again)
    assert controls(store).override == again


def test_an_expired_override_is_not_there_and_hides_no_other(store: Store) -> None:
    for_all = OVERRIDE._replace(expires_at_epoch=LATER + 10)
    store.put_override("acme", "chat", OVERRIDE)
    store.put_override("acme", None, for_all)
    assert controls(store, now=LATER - 1).override == OVERRIDE
    assert controls(store, now=LATER).override == for_all
    assert controls(store, now=LATER + 10).override is None


def test_clearing_an_override_says_whether_there_was_one(store: Store) -> None:
    store.put_override("acme", "chat", OVERRIDE)
    assert store.clear_override("acme", None) is False
    assert store.clear_override("acme", "chat") is True
    assert store.clear_override("acme", "chat") is False
    assert controls(store).override is None


def test_the_id_that_stands_for_all_apps_is_no_apps_id(store: Store) -> None:
    with pytest.raises(ConfigError, match="all apps"):
        store.put_override("acme", "*", OVERRIDE)
    with pytest.raises(ConfigError, match="all apps"):
        store.clear_override("acme", "*")
    store.put_override("acme", None, OVERRIDE)
    assert controls(store, "*").override == OVERRIDE


# --- configuration

ITEM = {
    "timezone": "Europe/Berlin",
    "quotas": {"premium": 10_000_000, "standard": None, "economy": 0},
    "model_ordering": ["premium", "standard"],
    "sticky_fallback_enabled": True,
    "deep": [{"a": [1, -2, 0.5, 0.0, 2.0]}, [], {}, "", "ü#☃"],
    "large": 10**30,
    "none": None,
}


def test_config_items_come_back_as_they_were_put(store: Store) -> None:
    assert controls(store) == Controls(None, None, None, None)
    store.put_config("acme", None, ITEM)
    store.put_config("acme", "chat", {"quotas": {"premium": 5}})
    found = controls(store)
    assert found.org_item == ITEM
    assert found.app_item == {"quotas": {"premium": 5}}
    assert found.org_item["sticky_fallback_enabled"] is True
    assert isinstance(found.org_item["quotas"]["premium"], int)
    assert controls(store, None).app_item is None
    store.put_config("acme", "chat", {})
    assert controls(store).app_item == {}


def test_a_config_item_is_the_stores_own_copy(store: Store) -> None:
    given_item = {"quotas": {"premium": 1}}
    store.put_config("acme", None, given_item)
    given_item["quotas"]["premium"] = 2
    found = controls(store).org_item
    assert found is not None
    found["quotas"]["premium"] = 3
    assert controls(store).org_item == {"quotas": {"premium": 1}}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"a": {"b": [1, object()]}}, r"a\.b\[1\].*object"),
        ({"a": float("nan")}, "nan"),
        ({"a": 1e300}, "1e\\+300"),
        ({"a": 10**40}, "38 digits"),
        ({"a": b"x"}, "bytes"),
        ({"a": {1: 2}}, "a: a key must be text.*1"),
        ({"a": {"": 2}}, "not empty"),
        ({"org_key": "x"}, "org_key"),
        ({"expires_at_epoch": 5}, "expires_at_epoch"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_place_and_value(
    store: Store, item: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        store.put_config("acme", None, item)
    assert controls(store).org_item is None


def test_app_ids_are_those_with_a_config_item_sorted(store: Store) -> None:
    assert store.app_ids("acme") == []
    store.put_config("acme", None, ITEM)
    store.put_override("acme", "pinned", OVERRIDE)
    for app in ("zeta", "alpha", "Beta", "a#".replace("#", "-")):
        store.put_config("acme", app, {"n": 1})
    store.put_config("acme2", "other", {"n": 1})
    assert store.app_ids("acme") == ["Beta", "a-", "alpha", "zeta"]

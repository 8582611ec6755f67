"""The orgs and apps that a configuration file and the Config table know, and their budgets."""

from typing import TYPE_CHECKING

from ..clock import Clock
from ..config import CONFIG_VARIABLE, table_budgets
from ..core.budget import ScopeBudget
from ..core.budget_rules import Budgets
from ..core.budget_values import UNLISTED
from ..core.errors import ConfigError
from ..core.keys import scope_key
from ..keeper import Keeper
from ..registered import by_label
from ..stores.contract import Controls

if TYPE_CHECKING:
    from ..stores import Stop, Store


class Orgs:
    """See the module's text. ``budgets`` None: there is no file."""

    def __init__(self, store: "Store", budgets: Budgets | None, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._budgets = budgets
        self._app_ids: dict[str, list[str]] = {}

    @property
    def has_file(self) -> bool:
        """Whether there is a configuration file."""
        return self._budgets is not None

    def keeper(self) -> Keeper:
        """What decides for these orgs. Close it."""
        return Keeper(self.store, self._budgets, self.clock, keywords={}, region=None)

    def org_ids(self) -> list[str]:
        """The orgs that the file lists. Raises ConfigError if there is none: the Config table does not list orgs."""
        if self._budgets is None:
            raise ConfigError(
                f"--org: which org? There is no configuration file that lists orgs (--config FILE, ${CONFIG_VARIABLE})"
            )
        listed = self._budgets.org_ids()
        if not listed:
            raise ConfigError(f"--org: which org? {self._budgets.source} lists none")
        return listed

    def app_ids(self, org_id: str) -> list[str]:
        """The apps of an org that the file or the Config table lists."""
        if org_id not in self._app_ids:
            listed = [] if self._budgets is None else self._budgets.app_ids(org_id)
            self._app_ids[org_id] = list(dict.fromkeys([*listed, *self.store.app_ids(org_id)]))
        return self._app_ids[org_id]

    def controls(self, org_id: str, app_id: str | None, *, scope: str, day: str) -> Controls:
        """As the store's ``read_controls``, at this time."""
        now_epoch = self.clock.now().timestamp()
        return self.store.read_controls(org_id, app_id, scope=scope, day=day, now_epoch=now_epoch)

    def stops(self, org_id: str) -> "list[Stop]":
        """The stops in force of an org and its apps, at this time."""
        return self.store.stops(org_id, now_epoch=self.clock.now().timestamp())

    def is_configured(self, org_id: str) -> bool:
        """Whether anything is known of an org's budget."""
        return self._budgets is not None or self._org_item_exists(org_id)

    def budget(self, org_id: str, app_id: str | None) -> ScopeBudget:
        """The budget of an org and app, as calls have it. Raises ConfigError."""
        # Which day it is depends on the budget's time zone, so no day's state is asked for.
        controls = self.controls(org_id, app_id, scope=scope_key(org_id, None), day="0")
        if self._budgets is None and controls.org_item is None:
            raise ConfigError(
                f"org {org_id!r} has no configuration here: give --config FILE, set ${CONFIG_VARIABLE}, or put the "
                f"org's item (org_key ORG#{org_id}, resource_key #) into the Config table"
            )
        budgets = self._budgets or table_budgets()
        return budgets.scope(
            org_id,
            app_id,
            org_item=controls.org_item,
            app_item=controls.app_item,
            profiles=by_label(self.store.profiles(org_id, app_id)),
        )

    def budget_of_org(self, org_id: str) -> ScopeBudget:
        """The budget of an org's app that is not listed, or of the first listed one where only those have a valid
        one: for what is the org's alone (scope, time zone, labels). Raises ConfigError."""
        first: ConfigError | None = None
        for app_id in (UNLISTED, *self.app_ids(org_id)):
            try:
                return self.budget(org_id, app_id)
            except ConfigError as exc:
                first = first or exc
        assert first is not None
        raise first

    def remark(self, org_id: str, app_id: str | None) -> str | None:
        """What to say of an org or app that is not listed where others are: it may be a slip of the pen."""
        listed = [] if self._budgets is None else self._budgets.org_ids()
        if listed and org_id not in listed and not self._org_item_exists(org_id):
            return f"org {org_id!r} is not listed ({', '.join(listed)}): the defaults apply to it"
        apps = self.app_ids(org_id)
        if app_id is not None and apps and app_id not in apps:
            return f"app {app_id!r} of org {org_id!r} is not listed ({', '.join(apps)}): the defaults apply to it"
        return None

    def _org_item_exists(self, org_id: str) -> bool:
        return self.controls(org_id, None, scope=scope_key(org_id, None), day="0").org_item is not None


def is_shared(budget: ScopeBudget) -> bool:
    """Whether all apps of the org share one scope (``quota_scope: ORG``)."""
    return budget.scope == scope_key(budget.org_id, None)


def app_to_enter(orgs: Orgs, org_id: str, app_id: str | None) -> str | None:
    """The app to decide for: the one named; for an org whose apps share a scope, one that stands for all.

    Raises ConfigError where an app must be named.
    """
    if app_id is not None:
        return app_id
    budget = orgs.budget_of_org(org_id)
    if is_shared(budget):
        return budget.app_id
    known = orgs.app_ids(org_id)
    choice = f" (listed: {', '.join(known)})" if known else ""
    raise ConfigError(f"--app: org {org_id!r} has quota_scope: APP; name an app with --app APP{choice}")


def place_name(org_id: str, app_id: str | None) -> str:
    """An org or app for people: ``acme / chat``."""
    return org_id if app_id is None else f"{org_id} / {app_id}"

"""A store that is only looked at."""

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ..stores import Sticky, Stop, Store


class _LookedAt:
    """A store whose sticky state stays where it is, and which is stopped by nobody: who looks may lack the permission
    to write, and must not have to. The answer is what it would be after the next call, which moves it."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def advance_sticky(self, scope: str, day: str, sticky: "Sticky") -> "Sticky":
        return sticky

    def put_automatic_stop(self, org_id: str, stop: "Stop", *, day: str) -> "Stop | None":
        return None  # whether one was made and lifted today is known to the store alone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def looking_at(store: "Store") -> "Store":
    """``store`` for commands that show things: deciding with it writes nothing."""
    return cast("Store", _LookedAt(store))

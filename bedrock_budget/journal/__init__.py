"""What was settled and is not in the store yet, on disk, so that it survives the end of the process."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from .journal import Journal

JOURNAL_VARIABLE = "BEDROCK_BUDGET_JOURNAL"


def journal_for(folder: str | os.PathLike[str] | None, journal_sync: str, store_url: str) -> "Journal | None":
    """The journal of a client: its keyword, else ``$BEDROCK_BUDGET_JOURNAL``, else none. Raises ConfigError."""
    if journal_sync not in ("normal", "full"):
        raise ConfigError(f"journal_sync: must be 'normal' or 'full', got {journal_sync!r}")
    if folder is None:
        folder = os.environ.get(JOURNAL_VARIABLE) or None
        if folder is None:
            return None
    if not isinstance(cast(object, folder), str | os.PathLike) or not os.fspath(folder):
        raise ConfigError(f"journal: must be the path of a folder, got {folder!r}")
    from .files import check_root  # noqa: PLC0415 - most programs have no journal
    from .journal import Journal  # noqa: PLC0415

    root = Path(os.path.abspath(os.path.expanduser(os.fspath(folder))))
    check_root(root)
    return Journal(root, store_url, full=journal_sync == "full")

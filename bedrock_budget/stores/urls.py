"""Store URLs: what a store is opened from."""

import os
import re
import sys
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl, quote, unquote

from ..core.errors import ConfigError
from .contract import Store

STORE_VARIABLE = "BEDROCK_BUDGET_STORE"

_FORMS = (
    "memory://  |  sqlite:///relative.db  |  sqlite:////absolute.db  |  "
    "dynamodb://?region=us-east-1&prefix=bedrock-budget-&endpoint_url=http://127.0.0.1:8000 (each parameter optional)"
)
_SCHEMES = ("memory", "sqlite", "dynamodb")
_PARAMETERS = ("region", "prefix", "endpoint_url")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_USER_INFO = re.compile(r"//[^/@?&]*@")


def _mistake(url: str, problem: str) -> ConfigError:
    shown = _USER_INFO.sub("//***@", url)  # never a password in a message
    return ConfigError(f"store URL {shown!r}: {problem}. Store URLs are {_FORMS}")


def _near(name: str, names: tuple[str, ...], cutoff: float = 0.6) -> str | None:
    import difflib  # noqa: PLC0415 - for messages only

    return next(iter(difflib.get_close_matches(name, names, 1, cutoff)), None)


def open_store(url: str) -> Store:
    """The store of a URL. Nothing is connected to, or created, before its first use.

    Raises ConfigError for anything but the forms documented; the message shows them and what was given.
    """
    if not isinstance(cast("object", url), str):
        raise _mistake(repr(url), f"must be text, got {type(url).__name__}")
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in _SCHEMES:
        raise _mistake(url, _scheme_problem(url, scheme, bool(mark)))
    rest, question, query = rest.partition("?")
    if question and scheme != "dynamodb":
        raise _mistake(url, f"{scheme} takes no parameters; write '?' in a file name as %3F")
    if scheme == "memory":
        return _open_memory(url, rest)
    if scheme == "sqlite":
        return _open_sqlite(url, rest)
    return _open_dynamodb(url, rest, query)


def default_store_url() -> str:
    """``$BEDROCK_BUDGET_STORE``, else the URL of a SQLite file in the user's state folder."""
    given = os.environ.get(STORE_VARIABLE, "").strip()
    return given or f"sqlite:///{quote(state_folder().joinpath('budget.db').as_posix(), safe='/:')}"


def state_folder() -> Path:
    """The user's folder for what this library keeps between runs. It may not exist yet."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        base = os.environ.get("XDG_STATE_HOME", "")
        if not os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
            base = str(Path.home() / ".local" / "state")
    return Path(base) / "bedrock-budget"


def _scheme_problem(url: str, scheme: str, has_mark: bool) -> str:
    if not has_mark:
        if near := _near(scheme.partition(":")[0], _SCHEMES):
            return f"'://' is missing; did you mean {near}://?"
        if url.endswith((".db", ".sqlite", ".sqlite3")):
            slashes = "sqlite:///"
            return f"a file is written {slashes}{url}"
        return "has no scheme ('…://')"
    near = _near(scheme, _SCHEMES, 0.5)
    return f"unknown scheme {scheme!r}" + (f"; did you mean {near!r}?" if near else "")


def _open_memory(url: str, rest: str) -> Store:
    from .memory import MemoryStore  # noqa: PLC0415

    if rest:
        raise _mistake(url, f"memory takes no host or path, got {rest!r}; each memory:// is a store of its own")
    return MemoryStore()


def _open_sqlite(url: str, rest: str) -> Store:
    from .sqlite import SQLiteStore  # noqa: PLC0415

    host, slash, quoted = rest.partition("/")
    if host:
        raise _mistake(url, f"{host!r} stands where a host would; a file needs three slashes: sqlite:///{rest}")
    path = unquote(quoted)
    if not slash or not path or path.endswith(("/", "\\")):
        raise _mistake(url, "the path of the file is missing")
    if path == ":memory:":
        raise _mistake(url, "a SQLite store is a file; for a store in memory write memory://")
    if "\0" in path:
        raise _mistake(url, "a path has no NUL characters")
    return SQLiteStore(path)


def _open_dynamodb(url: str, rest: str, query: str) -> Store:
    from .tables import DEFAULT_PREFIX, prefix_problem  # noqa: PLC0415

    if rest:
        raise _mistake(url, f"dynamodb takes no host or path, got {rest!r}; another endpoint is ?endpoint_url=http://…")
    values: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise _mistake(url, f"parameters are name=value, joined by '&', got {query!r}") from None
    for name, value in pairs:
        if name not in _PARAMETERS:
            near = _near(name, _PARAMETERS)
            raise _mistake(url, f"unknown parameter {name!r}" + (f"; did you mean {near!r}?" if near else ""))
        if name in values:
            raise _mistake(url, f"parameter {name!r} is given twice")
        values[name] = value
    region, endpoint_url = values.get("region"), values.get("endpoint_url")
    prefix = values.get("prefix", DEFAULT_PREFIX)
    if region is not None and not _REGION.fullmatch(region):
        raise _mistake(url, f"region {region!r} is not a region's name such as us-east-1")
    if problem := prefix_problem(prefix):
        raise _mistake(url, f"prefix {prefix!r} {problem}")
    if endpoint_url is not None:
        if not re.match(r"https?://[^/?#]+", endpoint_url):
            raise _mistake(url, "endpoint_url must start with http:// or https:// and a host")
        if _USER_INFO.search(endpoint_url):
            raise _mistake(url, "endpoint_url must not hold a user name or password")

    from .dynamodb import DynamoDBStore  # noqa: PLC0415

    return DynamoDBStore(region=region, prefix=prefix, endpoint_url=endpoint_url)

"""Store URLs: what opens what, and what a mistake is told."""

import subprocess
import sys
from pathlib import Path

import pytest
from programs import environment_of_tests

from bedrock_budget import stores
from bedrock_budget.core.errors import ConfigError
from bedrock_budget.stores import DynamoDBStore, MemoryStore, SQLiteStore, default_store_url, open_store
from bedrock_budget.stores.urls import state_folder


def sqlite_path(url: str) -> str:
    store = open_store(url)
    assert isinstance(store, SQLiteStore)
    return store.path


def test_memory_urls_open_a_new_store_each() -> None:
    one = open_store("memory://")
    assert isinstance(one, MemoryStore)
    assert open_store("MEMORY://") is not one


def test_sqlite_urls_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///budget.db") == str(tmp_path / "budget.db")
    assert sqlite_path("sqlite:///sub/budget.db") == str(tmp_path / "sub" / "budget.db")
    assert sqlite_path(f"sqlite:///{tmp_path}/a b%3F%25.db") == str(tmp_path / "a b?%.db")
    assert list(tmp_path.iterdir()) == []  # nothing is created before first use
    assert str(tmp_path) in repr(open_store("sqlite:///budget.db"))


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("dynamodb://", "dynamodb://?prefix=bedrock-budget-"),
        ("dynamodb://?", "dynamodb://?prefix=bedrock-budget-"),
        (
            "dynamodb://?endpoint_url=http%3A%2F%2F127.0.0.1:8000&region=eu-west-1&prefix=a.b_",
            "dynamodb://?region=eu-west-1&prefix=a.b_&endpoint_url=http://127.0.0.1:8000",
        ),
        ("dynamodb://?prefix=", "dynamodb://?prefix="),
    ],
)
def test_dynamodb_urls_take_three_optional_parameters(url: str, same: str) -> None:
    store = open_store(url)
    assert isinstance(store, DynamoDBStore)
    assert store.url == same
    assert repr(store) == f"<DynamoDBStore {same}>"
    assert isinstance(open_store(store.url), DynamoDBStore)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "has no scheme"),
        ("budget.db", "sqlite:///budget.db"),
        ("/var/budget.db", "sqlite:////var/budget.db"),
        ("memory", "did you mean memory://"),
        ("sqlite:budget.db", "did you mean sqlite://"),
        ("sqllite:///budget.db", "unknown scheme 'sqllite'; did you mean 'sqlite'"),
        ("dynamo://", "did you mean 'dynamodb'"),
        ("redis://localhost", "unknown scheme 'redis'."),
        ("memory://shared", "'shared'"),
        ("memory://?a=b", "no parameters"),
        ("sqlite://budget.db", "three slashes: sqlite:///budget.db"),
        ("sqlite://", "path of the file is missing"),
        ("sqlite:///", "path of the file is missing"),
        ("sqlite:///folder/", "path of the file is missing"),
        ("sqlite:///:memory:", "write memory://"),
        ("sqlite:///a.db?mode=ro", "no parameters; write '?' in a file name as %3F"),
        ("sqlite:///a%00b", "NUL"),
        ("dynamodb://us-east-1", "no host or path, got 'us-east-1'"),
        ("dynamodb:///table", "no host or path"),
        ("dynamodb://?regio=x", "unknown parameter 'regio'; did you mean 'region'"),
        ("dynamodb://?zzz=x", "unknown parameter 'zzz'."),
        ("dynamodb://?region=us-east-1&region=us-east-1", "'region' is given twice"),
        ("dynamodb://?region", "name=value"),
        ("dynamodb://?region=", "region ''"),
        ("dynamodb://?region=US East", "region 'US East'"),
        ("dynamodb://?prefix=a b", "letters, digits"),
        ("dynamodb://?prefix=" + "a" * 250, "longer than"),
        ("dynamodb://?endpoint_url=127.0.0.1:8000", "http:// or https://"),
        ("dynamodb://?endpoint_url=http://", "http:// or https://"),
    ],
)
def test_a_mistake_is_told_with_what_was_given_and_the_forms_allowed(url: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    message = str(caught.value)
    assert told in message
    assert repr(url) in message
    assert "sqlite:////absolute.db" in message


def test_a_password_is_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("dynamodb://?endpoint_url=http://ann:secret@127.0.0.1:8000")
    assert "password" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_not_text_is_no_url() -> None:
    with pytest.raises(ConfigError, match="must be text, got NoneType"):
        open_store(None)  # type: ignore[arg-type]


def test_a_prefix_or_client_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="letters"):
        DynamoDBStore(prefix="a/b")
    with pytest.raises(ConfigError, match="either"):
        DynamoDBStore(object(), region="us-east-1")  # type: ignore[arg-type]


def test_the_environment_names_the_default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEDROCK_BUDGET_STORE", " memory:// ")
    assert default_store_url() == "memory://"


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_STATE_HOME": "/state"}, "/state/bedrock-budget"),
        ("linux", {"XDG_STATE_HOME": "relative"}, "{home}/.local/state/bedrock-budget"),
        ("linux", {}, "{home}/.local/state/bedrock-budget"),
        ("darwin", {}, "{home}/Library/Application Support/bedrock-budget"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/bedrock-budget"),
        ("win32", {}, "{home}/AppData/Local/bedrock-budget"),
    ],
)
def test_else_it_is_a_file_in_the_users_state_folder(
    platform: str, variables: dict[str, str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA", "BEDROCK_BUDGET_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    expected = folder.format(home=tmp_path)
    assert str(state_folder()) == expected
    assert sqlite_path(default_store_url()) == f"{expected}/budget.db"


def test_importing_the_stores_imports_none_of_their_libraries() -> None:
    program = (
        "import sys; before = set(sys.modules)\n"
        "import bedrock_budget.stores; new = set(sys.modules) - before\n"
        "unwanted = {'sqlite3', 'tenacity', 'boto3.dynamodb.types'}\n"
        "unwanted |= {f'bedrock_budget.stores.{name}' for name in ('memory', 'sqlite', 'dynamodb', 'tables')}\n"
        "assert not unwanted & new, unwanted & new\n"
    )
    subprocess.run([sys.executable, "-c", program], env=environment_of_tests(), check=True)


def test_there_are_three_kinds_of_store() -> None:
    assert all(
        issubclass(kind, stores.Store) for kind in (stores.MemoryStore, stores.SQLiteStore, stores.DynamoDBStore)
    )
    with pytest.raises(AttributeError, match="RedisStore"):
        stores.RedisStore  # noqa: B018

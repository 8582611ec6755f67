"""The shape of the library: a core without I/O, imports that go one way, a small root that is cheap to import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from programs import environment_of_tests

import bedrock_budget

PACKAGE = "bedrock_budget"
ROOT = Path(bedrock_budget.__file__).parent
MAX_LINES = 350

#: All that the core may use of the standard library. None of it reads a clock, a file, the network or the environment.
PURE = {"collections.abc", "dataclasses", "datetime", "decimal", "functools", "json", "math", "re", "typing"}
PURE |= {"unicodedata", "zlib"}
#: What the core may not call, whatever it is an attribute of.
CLOCKS = {"now", "today", "utcnow", "localtime", "gmtime", "time_ns", "monotonic", "perf_counter", "getrandbits"}
#: Built-in functions that reach the world outside, or code that cannot be read.
WORLDLY = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}


class Import(NamedTuple):
    """One imported module. ``eager``: it is imported with the module it stands in, not when a function runs."""

    target: str
    line: int
    eager: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
CORE = sorted(name for name in MODULES if name == f"{PACKAGE}.core" or name.startswith(f"{PACKAGE}.core."))


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def targets(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
    # `from package import submodule` imports the submodule.
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]


def walk(module: str, node: ast.AST, *, eager: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in targets(module, child):
                yield Import(target, child.lineno, eager)
        elif is_type_checking(child):
            assert isinstance(child, ast.If)
            for part in child.body:
                yield from walk(module, ast.Module([part], []), eager=False)
            for part in child.orelse:
                yield from walk(module, ast.Module([part], []), eager=eager)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(module, child, eager=eager and not inside)


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(walk(module, tree_of(module), eager=True))


def own_imports(module: str) -> list[Import]:
    """The imports of this library's own modules."""
    return [each for each in imports_of(module) if each.target.split(".")[0] == PACKAGE]


def is_in(module: str, *parts: str) -> bool:
    """Whether a module is one of some parts of the library, or inside one."""
    return any(module == f"{PACKAGE}.{part}" or module.startswith(f"{PACKAGE}.{part}.") for part in parts)


def python(code: str) -> str:
    """What a fresh interpreter prints. Coverage of subprocesses is left out: it imports what is looked for here."""
    environment = environment_of_tests(traced=False)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_walk_finds_the_modules_and_their_imports() -> None:
    assert f"{PACKAGE}.core.selection" in CORE
    rules = {each.target: each.eager for each in imports_of(f"{PACKAGE}.core.budget_rules")}
    assert rules[f"{PACKAGE}.core.budget_values"]
    assert rules[f"{PACKAGE}.core.errors"]
    assert {each.target for each in imports_of(PACKAGE)} >= {f"{PACKAGE}.client", f"{PACKAGE}.errors"}
    lazy = [each for each in imports_of(f"{PACKAGE}.config") if each.target == "yaml"]
    assert lazy
    assert not any(each.eager for each in lazy)


# -- the core


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_nothing_but_itself_and_pure_modules(module: str) -> None:
    for each in imports_of(module):
        assert is_in(each.target, "core") or each.target in PURE, f"{MODULES[module]}:{each.line} imports {each.target}"


@pytest.mark.parametrize("module", CORE)
def test_the_core_reads_no_clock_and_reaches_for_nothing(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in CLOCKS, f"{MODULES[module]}:{node.lineno} uses .{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in WORLDLY, f"{MODULES[module]}:{node.lineno} calls {node.func.id}"


@pytest.mark.parametrize("module", CORE)
def test_the_core_has_no_state_of_its_own(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        assert not isinstance(node, ast.Global), f"{MODULES[module]}:{node.lineno}"


def test_importing_the_core_alone_loads_nothing_that_does_io() -> None:
    # The package itself is stood in for: importing it would import boto3 and all the rest.
    loaded = python(
        f"""
import sys, types, importlib
package = types.ModuleType({PACKAGE!r})
package.__path__ = [{str(ROOT)!r}]
sys.modules[{PACKAGE!r}] = package
for name in {CORE!r}:
    importlib.import_module(name)
print(*sorted(sys.modules))
"""
    ).split()
    before = set(python("import sys; print(*sorted(sys.modules))").split())
    new = set(loaded) - before
    assert set(CORE) <= new
    assert {name for name in new if name.split(".")[0] == PACKAGE} == {PACKAGE, *CORE}
    roots = {name.split(".")[0] for name in new} - {PACKAGE}
    assert roots <= set(sys.stdlib_module_names), roots - set(sys.stdlib_module_names)
    worldly = {"socket", "ssl", "select", "selectors", "sqlite3", "threading", "logging", "random", "secrets"}
    worldly |= {"subprocess", "asyncio", "concurrent", "multiprocessing", "http", "urllib", "email", "tempfile"}
    worldly |= {"pickle", "ctypes", "zoneinfo", "signal"}
    assert not roots & worldly


# -- the direction of imports


@pytest.mark.parametrize("module", [name for name in MODULES if is_in(name, "stores")])
def test_stores_import_nothing_of_the_library_but_the_core_and_stores(module: str) -> None:
    for each in own_imports(module):
        assert is_in(each.target, "core", "stores"), f"{MODULES[module]}:{each.line} imports {each.target}"


def test_the_store_contract_imports_nothing_of_the_library_but_the_core() -> None:
    for each in own_imports(f"{PACKAGE}.stores.contract"):
        assert is_in(each.target, "core"), f"stores/contract.py:{each.line} imports {each.target}"


@pytest.mark.parametrize("module", [name for name in MODULES if is_in(name, "prices")])
def test_prices_import_nothing_of_the_library_but_the_core_and_prices(module: str) -> None:
    for each in own_imports(module):
        assert is_in(each.target, "core", "prices"), f"{MODULES[module]}:{each.line} imports {each.target}"


@pytest.mark.parametrize("module", MODULES)
def test_only_commands_import_commands_and_only_test_doubles_import_test_doubles(module: str) -> None:
    for each in own_imports(module):
        if is_in(each.target, "testing"):
            assert is_in(module, "testing", "cli"), f"{MODULES[module]}:{each.line} imports {each.target}"
        if is_in(each.target, "cli"):
            assert is_in(module, "testing", "cli", "__main__"), f"{MODULES[module]}:{each.line} imports {each.target}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_root_from_inside(module: str) -> None:
    # Its version is the exception: it is there before the root's own imports have run, or asked for late.
    for each in own_imports(module):
        if each.target == PACKAGE and not is_in(module, "testing", "cli", "__main__"):
            assert not each.eager, f"{MODULES[module]}:{each.line} imports {each.target}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: {each.target for each in own_imports(name) if each.eager} - {PACKAGE, name} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name in done:
            return
        for target in sorted(graph.get(name, ())):
            visit(target, (*way, name))
        done.add(name)

    for name in MODULES:
        visit(name, ())


# -- size and surface


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_too_long_to_read_at_once(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{MODULES[module]} has {lines} lines"


@pytest.mark.parametrize("module", MODULES)
def test_names_say_what_things_are(module: str) -> None:
    assert not {"utils", "util", "helpers", "common", "misc"} & set(module.split("."))
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ClassDef):
            assert not node.name.endswith(("Manager", "Handler", "Helper")), f"{MODULES[module]}:{node.lineno}"


def test_the_root_exports_exactly_ten_names() -> None:
    assert sorted(bedrock_budget.__all__) == [
        "BodyNotPortable",
        "BudgetError",
        "BudgetExhausted",
        "BudgetStopped",
        "ConfigError",
        "CostLimitExceeded",
        "PriceKeeperClient",
        "StoreError",
        "UnknownModel",
        "UnknownPrice",
    ]
    assert list(bedrock_budget.__all__) == sorted(bedrock_budget.__all__)
    for name in bedrock_budget.__all__:
        assert getattr(bedrock_budget, name).__name__ == name


def test_importing_the_library_loads_nothing_that_a_program_may_not_need() -> None:
    loaded = set(python(f"import sys, {PACKAGE}; print(*sorted(sys.modules))").split())
    assert f"{PACKAGE}.client" in loaded
    assert not loaded & {"sqlite3", "yaml", "tenacity", "asyncio", "http.server"}
    assert not {name for name in loaded if is_in(name, "testing", "cli", "aggregator", "stores.dynamodb")}
    assert not {name for name in loaded if is_in(name, "stores.sqlite", "stores.memory", "prices.build")}

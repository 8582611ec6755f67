"""The project's tasks. ``nox`` runs the tests against the built wheel; ``nox -l`` lists the rest."""

from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"

PYPROJECT = nox.project.load_toml("pyproject.toml")
ROOT = Path(__file__).parent
# Subprocesses of the tests import the installed wheel, not the checkout.
INSTALLED = {"PYTHONSAFEPATH": "1"}

# Most tests wait for processes and servers of theirs; a file stays in one process, with its fixtures.
IN_PARALLEL = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile")


def groups(*names: str) -> list[str]:
    return nox.project.dependency_groups(PYPROJECT, *names)


def install_wheel(session: nox.Session) -> None:
    """Build the wheel and install it, freshly, with what it depends on."""
    session.install("build")
    out = Path(session.create_tmp()) / "dist"
    for old in out.glob("*.whl"):
        old.unlink()
    session.run("python", "-m", "build", "--wheel", "--outdir", str(out), silent=True)
    (wheel,) = out.glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install(str(wheel))


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite with its engines, against the built wheel, with coverage."""
    session.install(*groups("test"))
    install_wheel(session)
    session.run("coverage", "erase")
    session.run("pytest", "--cov", "--cov-report=", *(session.posargs or IN_PARALLEL), env=INSTALLED)
    if not session.posargs:
        session.run("coverage", "report", "--skip-covered", "--fail-under=95")
        session.run("coverage", "report", "--include=*/bedrock_budget/core/*", "--skip-covered", "--fail-under=100")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely mistakes."""
    session.install(*groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """mypy --strict and pyright strict."""
    session.install("-e", ".", *groups("typing"))
    session.run("mypy", "--strict", "bedrock_budget")
    session.run("pyright", "bedrock_budget")


@nox.session
def bench(session: nox.Session) -> None:
    """What a call costs, paired with plain boto3 in one run and in DynamoDB units; what a fleet overshoots."""
    install_wheel(session)
    session.install(*groups("test"))
    session.run("python", "tests/benchmarks/overhead.py", *session.posargs, env=INSTALLED)
    session.run("python", "tests/benchmarks/dynamodb_units.py", env=INSTALLED)
    session.run("python", "tests/benchmarks/overshoot.py", env=INSTALLED)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill workers, lose replies, fail calls, and compare the shards with what was billed: ``-- --minutes 10``."""
    session.install(*groups("test"))
    install_wheel(session)
    session.run("python", "tests/faults/driver.py", *session.posargs, env=INSTALLED)


@nox.session
def control(session: nox.Session) -> None:
    """Whether budgets hold, with real processes, and LiteLLM beside it; or one of these: ``-- strict --runs 10``."""
    session.install(*groups("test"))
    install_wheel(session)
    for arguments in [session.posargs] if session.posargs else [["normal"], ["strict"], ["concurrent"]]:
        session.run("python", "tests/benchmarks/control.py", *arguments, env=INSTALLED)


@nox.session
def demo(session: nox.Session) -> None:
    """The quickstart."""
    install_wheel(session)
    session.run("python", "examples/quickstart.py", *session.posargs, env=INSTALLED)


@nox.session
def docs(session: nox.Session) -> None:
    """Check the documentation: its examples run, its links lead somewhere, its commands exist."""
    session.install(*groups("test"))
    install_wheel(session)
    session.run("pytest", "tests/test_docs.py", "tests/cli/test_docs.py", *session.posargs, env=INSTALLED)

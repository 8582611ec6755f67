"""The DynamoDB engine of the tests: finds or installs it and runs it on a free loopback port.

Pinned by version and integrity in ``.ci/dynoxide/package-lock.json``. ``$BEDROCK_BUDGET_DYNOXIDE`` names a binary to
use instead.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARY_VARIABLE = "BEDROCK_BUDGET_DYNOXIDE"

_CHECKOUT = Path(__file__).resolve().parents[2]
_PINS = _CHECKOUT / ".ci" / "dynoxide"
_CACHE = _CHECKOUT / ".cache" / "dynoxide"
_INSTALLED = Path("node_modules") / "@dynoxide" / "linux-x64" / "dynoxide"
_START_TIMEOUT_SECS = 20


class EngineUnavailable(Exception):
    """The engine can be neither found nor installed here; the message says why."""


def binary() -> Path:
    """The engine's program, installed into the checkout's ``.cache`` if need be.

    Raises EngineUnavailable.
    """
    given = os.environ.get(BINARY_VARIABLE)
    if given:
        if not os.access(given, os.X_OK):
            raise EngineUnavailable(f"${BINARY_VARIABLE} is not a program: {given}")
        return Path(given)
    _CACHE.mkdir(parents=True, exist_ok=True)
    (_CACHE.parent / ".gitignore").write_text("*\n", encoding="ascii")
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may start at once
        program = _CACHE / _INSTALLED
        if not (program.exists() and _same_pins()):
            _install()
        return program


def _same_pins() -> bool:
    lock = "package-lock.json"
    return (_CACHE / lock).is_file() and (_CACHE / lock).read_bytes() == (_PINS / lock).read_bytes()


def _install() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise EngineUnavailable(f"npm is not installed; install it or set ${BINARY_VARIABLE} to a dynoxide program")
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(_PINS / name, _CACHE / name)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts"], cwd=_CACHE, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode or not (_CACHE / _INSTALLED).exists():
        (_CACHE / "package-lock.json").unlink()
        raise EngineUnavailable(f"npm ci could not install the engine:\n{done.stdout}{done.stderr}")


@contextmanager
def running() -> Iterator[str]:
    """A fresh, empty engine. Yields its endpoint URL."""
    program = binary()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, "serve", "--host", "127.0.0.1", "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _START_TIMEOUT_SECS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise EngineUnavailable(f"the engine did not start (exit status {process.returncode})") from None
            time.sleep(0.005)

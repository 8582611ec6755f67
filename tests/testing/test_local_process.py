"""``python -m bedrock_budget.testing.local_bedrock``."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

import bedrock_budget
from bedrock_budget.testing import LocalBedrock
from bedrock_budget.testing.local_bedrock import main

ROOT = Path(bedrock_budget.__file__).parents[1]
NOVA = "amazon.nova-micro-v1:0"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_process_serves_and_ends_cleanly(number: signal.Signals) -> None:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-m", "bedrock_budget.testing.local_bedrock", "--output-tokens", "6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    ) as process:
        try:
            serve_and_end(process, number)
        finally:
            process.kill()


def serve_and_end(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on http://127.0.0.1:")
    url = line.split()[-1]
    client = LocalBedrock().client(endpoint_url=url)
    client.converse(modelId=NOVA, messages=[{"role": "user", "content": [{"text": "hi"}]}])
    client.close()
    with urlopen(f"{url}/_local/ledger", timeout=10) as reply:
        (entry,) = json.load(reply)["entries"]
    assert (entry["model_id"], entry["usage"]["output_tokens"]) == (NOVA, 6)
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_bad_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--latency", "-1"])
    assert "latency_secs is a number of seconds" in capsys.readouterr().err

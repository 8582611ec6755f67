"""Streams over the ends and forks of processes, and collections at the worst moment: each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from metered import metered
from programs import environment_of_tests

from bedrock_budget.testing import LocalBedrock


def run(script: str, *arguments: object) -> str:
    """The output of a Python script. A deadlock ends in a time-out."""
    environment = environment_of_tests(traced="fork" not in script)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_collection_while_the_meters_lock_is_held_does_not_deadlock() -> None:
    script = """
import gc
from metered import metered, spent
from streaming import KINDS
from bedrock_budget.testing import LocalBedrock

with LocalBedrock() as server, metered(server) as bedrock:
    for kind in KINDS:
        stream = kind.open(bedrock)[kind.key]
        iter(stream).__next__()
        stream.cycle = stream
        del stream
        with bedrock._keeper.meter.lock:
            gc.collect()
            assert len(bedrock._keeper.meter.deferred) == 1
        assert bedrock.flush(30)
    print(spent(bedrock)[2][0])
"""
    assert run(script) == "2\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_stream_opened_before_a_fork_settles_only_in_the_parent(tmp_path: Path) -> None:
    script = """
import gc, os, sys, traceback
from metered import metered, record_of
from streaming import KINDS
from bedrock_budget.testing import LocalBedrock

def requests(bedrock):
    return bedrock.status()[2].requests

with LocalBedrock() as server, metered(server, store=sys.argv[1]) as bedrock:
    for before, kind in enumerate(KINDS):
        streams = [kind.open(bedrock) for _ in range(3)]
        pid = os.fork()
        if not pid:
            try:
                streams[0][kind.key].close()
                streams[1][kind.key].abandon()
                records = [record_of(each) for each in streams]
                streams.clear()
                gc.collect()
                bedrock.close()
                assert [record["usage"] for record in records] == [None] * 3
                assert requests(bedrock) == before * 3
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert requests(bedrock) == before * 3
        for each in streams:
            each[kind.key].close()
        assert bedrock.flush(30)
        print(requests(bedrock))
"""
    assert run(script, f"sqlite:///{tmp_path}/budget.db") == "3\n6\n"


def test_a_stream_that_is_open_when_the_process_ends_is_settled(tmp_path: Path, local_bedrock: LocalBedrock) -> None:
    script = """
import sys
from metered import metered
from programs import environment_of_tests
from streaming import KINDS
from bedrock_budget.testing import LocalBedrock

server = LocalBedrock(port=int(sys.argv[2]))  # that of the test
bedrock = metered(server, store=sys.argv[1])
responses = [kind.open(bedrock) for kind in KINDS]
"""
    store = f"sqlite:///{tmp_path}/budget.db"
    run(script, store, local_bedrock.port)
    with metered(local_bedrock, store=store) as bedrock:
        assert bedrock.status()[2].requests == 2

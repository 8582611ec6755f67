"""Test applications against Bedrock without Bedrock: a local server, its own ledger, a clock that stands still.

::

    from bedrock_budget.testing import LocalBedrock

    def test_answer_is_metered():
        with LocalBedrock(output_tokens=7, latency_secs=0.01) as server:
            bedrock = server.client()  # a real boto3 client
            server.fail_next(status=429, code="ThrottlingException")  # botocore retries it
            message = {"role": "user", "content": [{"text": "Hello, world"}]}
            reply = bedrock.converse(modelId="amazon.nova-micro-v1:0", messages=[message])
            assert reply["usage"]["outputTokens"] == 7
            assert server.ledger.usage_by_model()["amazon.nova-micro-v1:0"].output_tokens == 7

With pytest, ``pytest_plugins = ["bedrock_budget.testing.pytest_plugin"]`` gives the fixtures ``local_bedrock`` and
``manual_clock``. For other processes: ``python -m bedrock_budget.testing.local_bedrock --port 8080``.
"""

from typing import TYPE_CHECKING, Any

from .clock import ManualClock
from .exchange import RawReply, Request
from .ledger import Ledger, LedgerEntry

if TYPE_CHECKING:
    from .local_bedrock import LocalBedrock

__all__ = ["Ledger", "LedgerEntry", "LocalBedrock", "ManualClock", "RawReply", "Request"]


def __getattr__(name: str) -> Any:
    # Late, since `python -m` warns if the package has imported the very module it is to run.
    if name == "LocalBedrock":
        from .local_bedrock import LocalBedrock  # noqa: PLC0415

        return LocalBedrock
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

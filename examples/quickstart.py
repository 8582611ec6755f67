"""The whole thing in a few seconds: a small budget, spend rising, the fallback, a stream, and the final refusal.

python examples/quickstart.py           # a local Bedrock, a SQLite store: no AWS account needed
python examples/quickstart.py --real    # your AWS credentials: Bedrock, and DynamoDB tables made with
                                        # `bedrock-budget tables create --store dynamodb://`
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from bedrock_budget import BudgetExhausted, PriceKeeperClient
from bedrock_budget.prices import bundled
from bedrock_budget.testing import LocalBedrock

CONFIG: dict[str, Any] = {
    "model_labels": {
        "premium": {"id": "us.anthropic.claude-sonnet-4-5-20250929-v1:0"},
        "standard": {"id": "amazon.nova-pro-v1:0"},
        "economy": {"id": "amazon.nova-micro-v1:0"},
    },
    "org_defaults": {
        "timezone": "Europe/Berlin",
        "model_ordering": ["premium", "standard", "economy"],
        "quotas": {"premium": 20_000, "standard": 4_000, "economy": 200},  # USD micros a day: 2 cents, ...
    },
}
QUESTION = [{"role": "user", "content": [{"text": "Say in one sentence why budgets help."}]}]
MAX_CALLS = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="talk to Bedrock and DynamoDB with your credentials")
    parser.add_argument("--store", metavar="URL", help="another store than the default of this example")
    options = parser.parse_args()
    with ExitStack() as stack:
        server: LocalBedrock | None = None
        if options.real:
            client: Any = boto3.client("bedrock-runtime")
            store = options.store or "dynamodb://"
        else:
            server = stack.enter_context(LocalBedrock(output_tokens=120))
            client = server.client()
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            store = options.store or f"sqlite:///{Path(folder) / 'budget.db'}"

        # The three lines that an application adds:
        bedrock = stack.enter_context(
            PriceKeeperClient(client, org_id="acme", app_id="quickstart", config=CONFIG, store=store)
        )
        use_up(bedrock)
        bedrock.flush()
        return show(bedrock, server)


def use_up(bedrock: PriceKeeperClient) -> None:
    """Call until the budget refuses. No call names a model: the budget chooses."""
    label, calls, spent = "", 0, 0
    print(stream(bedrock))
    for _ in range(MAX_CALLS):
        try:
            response = bedrock.converse(messages=QUESTION, inferenceConfig={"maxTokens": 120})
        except BudgetExhausted as refusal:
            print(f"\nrefused: {refusal.message}\nretry_at: {refusal.retry_at.isoformat()}")
            return
        record = response["ResponseMetadata"]["PriceKeeper"]
        if record["label"] != label:
            label, calls, spent = record["label"], 0, 0
            print(f"\n-> {label} ({record['model_id']}), reason: {record['reason']}")
        calls += 1
        spent += record["cost_pico_usd"]
        if calls % 4 == 1:
            print(f"   call {calls:3}: ${spent / 1e12:.6f}  {'#' * (calls // 2 + 1)}", flush=True)


def stream(bedrock: PriceKeeperClient) -> str:
    """A streamed answer. Its cost is known just before its usage event is handed over."""
    response = bedrock.converse_stream(messages=QUESTION, inferenceConfig={"maxTokens": 120})
    text = "".join(
        event["contentBlockDelta"]["delta"].get("text", "")
        for event in response["stream"]
        if "contentBlockDelta" in event
    )
    record = response["ResponseMetadata"]["PriceKeeper"]
    return f'{record["label"]}, streamed: "{text[:60]}..." for ${record["cost_pico_usd"] / 1e12:.6f}'


def show(bedrock: PriceKeeperClient, server: LocalBedrock | None) -> int:
    """The day's status; and, with the local Bedrock, whether what was metered is what it served."""
    print(f"\n{'label':9} {'spend':>11} {'quota':>11} {'used':>8} {'calls':>6} {'tokens in':>10} {'tokens out':>11}")
    for row in bedrock.status():
        quota = (row.quota_usd_micros or 0) / 1e6
        print(
            f"{row.label:9} ${row.spend_usd_micros / 1e6:10.6f} ${quota:10.6f} {row.quota_pct:6.1f} % "
            f"{row.requests:6} {row.input_tokens:10,} {row.output_tokens:11,}"
        )
    if server is None:
        return 0
    metered = {row.model_id: (row.input_tokens, row.output_tokens, row.spend_usd_micros) for row in bedrock.status()}
    served = {model: bill(model, usage) for model, usage in server.ledger.usage_by_model().items()}
    if metered != served:
        print(f"\nmetered != ledger: {metered} != {served}")
        return 1
    total = sum(micros for _, _, micros in served.values()) / 1e6
    print(f"\nmetered == ledger: ${total:.6f} for {len(server.ledger)} calls, as the server itself counted them")
    return 0


def bill(model_id: str, usage: Any) -> tuple[int, int, int]:
    """What the server's own count of a model's tokens costs: (input tokens, output tokens, USD micros)."""
    row = bundled().find(model_id, region="us-east-1", on=datetime.now(UTC).date())
    assert row is not None
    pico_usd = usage.input_tokens * row.price.input + usage.output_tokens * row.price.output
    return usage.input_tokens, usage.output_tokens, round(pico_usd / 1e6)


if __name__ == "__main__":
    sys.exit(main())

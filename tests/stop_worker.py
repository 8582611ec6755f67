"""One process of a fleet: makes calls until its input ends, and says what became of each."""

import json
import sys
import threading
import time

import boto3

from bedrock_budget import BudgetStopped, PriceKeeperClient

PAUSE_SECS = 0.02


def main() -> None:
    bedrock_url, store_url, config = sys.argv[1:]
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=bedrock_url,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with PriceKeeperClient(client, org_id="acme", app_id="chat", config=json.loads(config), store=store_url) as bedrock:
        while not ended.is_set():
            began = time.time()
            try:
                bedrock.converse(messages=[{"role": "user", "content": [{"text": "hello"}]}])
                print("served", began, flush=True)
            except BudgetStopped as exc:
                print("stopped", began, exc.stopped_by, flush=True)
            time.sleep(PAUSE_SECS)


if __name__ == "__main__":
    main()

"""One process of a fleet: makes calls through a shared budget and prints what each of them was told."""

import json
import sys

import boto3

from bedrock_budget import PriceKeeperClient


def main() -> None:
    bedrock_url, store_url, config, calls = sys.argv[1:]
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=bedrock_url,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    keeper = PriceKeeperClient(client, org_id="acme", app_id="fleet", config=json.loads(config), store=store_url)
    print("ready", flush=True)
    sys.stdin.readline()  # all start together
    with keeper as bedrock:
        for _ in range(int(calls)):
            response = bedrock.converse(messages=[{"role": "user", "content": [{"text": "hello"}]}])
            record = response["ResponseMetadata"]["PriceKeeper"]
            print(record["label"], record["cost_pico_usd"])


if __name__ == "__main__":
    main()

"""A WSGI application under a budget, for gunicorn and any other server that forks its workers.

export BEDROCK_BUDGET_CONFIG=budget.yaml BEDROCK_BUDGET_STORE=sqlite:///budget.db
gunicorn --chdir examples/servers --preload --workers 4 gunicorn_app:app
curl --data "Why do budgets help?" http://127.0.0.1:8000/
"""

from collections.abc import Iterable
from typing import Any

import boto3

from bedrock_budget import BudgetExhausted, PriceKeeperClient

# Made at import, so with --preload once for all workers. Nothing more is needed: a worker's own metering starts with
# its first call, and its end (SIGTERM, max_requests, reload) writes what is left. Make no call here, before the fork:
# boto3 would leave its open connection to all the workers at once.
bedrock = PriceKeeperClient(boto3.client("bedrock-runtime"), org_id="acme", app_id="web")


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    question = environ["wsgi.input"].read().decode()
    try:
        response = bedrock.converse(messages=[{"role": "user", "content": [{"text": question}]}])
    except BudgetExhausted as refusal:
        start_response("429 Too Many Requests", [("Content-Type", "text/plain")])
        return [str(refusal).encode()]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [response["output"]["message"]["content"][0]["text"].encode()]

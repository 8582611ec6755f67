"""A Celery task under a budget.

export BEDROCK_BUDGET_CONFIG=budget.yaml BEDROCK_BUDGET_STORE=sqlite:///budget.db CELERY_BROKER_URL=redis://127.0.0.1
celery --workdir examples/servers --app celery_app worker --concurrency 4
celery --workdir examples/servers --app celery_app call celery_app.ask --args '["Why do budgets help?"]'
"""

import boto3
from celery import Celery

from bedrock_budget import BudgetExhausted, PriceKeeperClient

app = Celery("celery_app")

# Made at import, once for all the worker's processes, which fork from it; each meters its own calls. Nothing more is
# needed: a process writes what is left when Celery ends it (SIGTERM, --max-tasks-per-child).
bedrock = PriceKeeperClient(boto3.client("bedrock-runtime"), org_id="acme", app_id="tasks")


@app.task(bind=True, max_retries=None)
def ask(task, question: str) -> str:
    try:
        response = bedrock.converse(messages=[{"role": "user", "content": [{"text": question}]}])
    except BudgetExhausted as refusal:
        raise task.retry(eta=refusal.retry_at) from refusal  # the budget's next midnight
    return response["output"]["message"]["content"][0]["text"]

"""An AWS Lambda function under a budget.

Handler: lambda_function.handler; environment: BEDROCK_BUDGET_STORE=dynamodb://?region=us-east-1 and
BEDROCK_BUDGET_CONFIG=budget.yaml, or the budget in the Config table. Test event: {"question": "Why do budgets help?"}
"""

from typing import Any

import boto3

from bedrock_budget import BudgetExhausted, PriceKeeperClient

# Made once for each sandbox. Lambda is recognised: usage is written before each call returns, for between invocations
# the sandbox is frozen, and may never be thawed.
bedrock = PriceKeeperClient(boto3.client("bedrock-runtime"), org_id="acme", app_id="functions")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    try:
        response = bedrock.converse(messages=[{"role": "user", "content": [{"text": event["question"]}]}])
    except BudgetExhausted as refusal:
        return {"statusCode": 429, "body": str(refusal)}
    return {"statusCode": 200, "body": response["output"]["message"]["content"][0]["text"]}

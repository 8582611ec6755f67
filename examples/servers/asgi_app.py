"""An ASGI application under a budget, for uvicorn and its workers; no framework needed.

export BEDROCK_BUDGET_CONFIG=budget.yaml BEDROCK_BUDGET_STORE=sqlite:///budget.db
uvicorn --app-dir examples/servers --workers 4 asgi_app:app
curl --data "Why do budgets help?" http://127.0.0.1:8000/
"""

import asyncio
from typing import Any

import boto3

from bedrock_budget import BudgetExhausted, PriceKeeperClient

bedrock = PriceKeeperClient(boto3.client("bedrock-runtime"), org_id="acme", app_id="web")


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        status, text = await answer(await body_of(receive))
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


async def lifespan(receive: Any, send: Any) -> None:
    """What Starlette and FastAPI call the lifespan: there, put `bedrock.close()` after the ``yield``."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    # Needed: once all requests are answered uvicorn ends by SIGTERM itself, and then Python runs nothing any more.
    await asyncio.to_thread(bedrock.close)
    await send({"type": "lifespan.shutdown.complete"})


async def answer(question: str) -> tuple[int, str]:
    """boto3 blocks, so it is called in a thread."""
    try:
        response = await asyncio.to_thread(
            bedrock.converse, messages=[{"role": "user", "content": [{"text": question}]}]
        )
    except BudgetExhausted as refusal:
        return 429, str(refusal)
    return 200, response["output"]["message"]["content"][0]["text"]


async def body_of(receive: Any) -> str:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body.decode()

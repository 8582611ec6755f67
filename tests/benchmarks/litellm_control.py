"""LiteLLM's budget classes against a budget: run by `control.py`, in an environment with LiteLLM, not by hand.

The one argument is a JSON object: ``way`` (which class), ``url`` (of a local Bedrock), ``model``, ``text`` and
``max_tokens`` of each call, ``budget_usd``, ``calls``, ``at_once``. Prints what became of the calls, as JSON. Each
class is used as its documentation says: docs.litellm.ai/docs/budget_manager, and /docs/proxy/provider_budget_routing
for the router's ``provider_budget_config``. Every call is real HTTP.
"""

import asyncio
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the prices that came with it

import litellm

USER = "fleet"


def outcome_of(exc: Exception) -> str:
    if isinstance(exc, litellm.BudgetExceededError) or "budget" in str(exc).lower():
        return "refused"
    return f"failed: {exc!r}"[:300]


def arguments_of(task: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": f"bedrock/converse/{task['model']}",
        "max_tokens": task["max_tokens"],
        "aws_bedrock_runtime_endpoint": task["url"],
        "aws_region_name": "us-east-1",
        "aws_access_key_id": "local",
        "aws_secret_access_key": "local",
        "num_retries": 0,
    }


def in_threads(task: dict[str, Any], call: Callable[[], str]) -> "Counter[str]":
    """The calls, ``at_once`` at a time; the first of them together."""
    together = threading.Barrier(task["at_once"])
    waited = threading.local()

    def one(_number: int) -> str:
        if not getattr(waited, "done", False):
            waited.done = True
            together.wait()
        try:
            return call()
        except Exception as exc:
            return outcome_of(exc)

    with ThreadPoolExecutor(task["at_once"]) as pool:
        return Counter(pool.map(one, range(task["calls"])))


def budget_manager(task: dict[str, Any]) -> "Counter[str]":
    """`BudgetManager`: ask before the call, tell the cost after it."""
    os.chdir(tempfile.mkdtemp())  # it writes its file into the folder it is in
    manager = litellm.BudgetManager(project_name="control")
    manager.create_budget(total_budget=task["budget_usd"], user=USER)
    arguments = arguments_of(task)
    messages = [{"role": "user", "content": task["text"]}]

    def call() -> str:
        if manager.get_current_cost(user=USER) > manager.get_total_budget(USER):
            return "refused"
        response = litellm.completion(messages=messages, **arguments)
        manager.update_cost(completion_obj=response, user=USER)
        return "served"

    return in_threads(task, call)


def router(task: dict[str, Any]) -> "Counter[str]":
    """`Router` with ``provider_budget_config``, which is `RouterBudgetLimiting`."""

    async def work() -> "Counter[str]":
        routed = litellm.Router(
            model_list=[{"model_name": "premium", "litellm_params": arguments_of(task)}],
            provider_budget_config={"bedrock": {"budget_limit": task["budget_usd"], "time_period": "1d"}},
            num_retries=0,
        )
        messages = [{"role": "user", "content": task["text"]}]
        turns = asyncio.Semaphore(task["at_once"])

        async def call() -> str:
            async with turns:
                try:
                    await routed.acompletion(model="premium", messages=messages)
                except Exception as exc:
                    return outcome_of(exc)
                return "served"

        if task["at_once"] > 1:
            return Counter(await asyncio.gather(*(call() for _ in range(task["calls"]))))
        outcomes: Counter[str] = Counter()
        for _ in range(task["calls"]):
            outcomes[await call()] += 1
            await asyncio.sleep(0.05)  # the cost of a call is added up in the background
        return outcomes

    return asyncio.run(work())


WAYS = {"BudgetManager": budget_manager, "Router": router}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(WAYS[given["way"]](given)), flush=True)
    os._exit(0)  # its threads may go on

"""What LiteLLM says that calls cost. Run by `prices_compared.py`, with an interpreter that has LiteLLM.

Standard input: a JSON list of calls (``model``, ``region``, tokens by kind, ``tier``). Output: a JSON list of the costs
in USD as text, or of ``{"error": …}``.
"""

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the map of the wheel, not one from the network
os.environ.setdefault("LITELLM_LOG", "ERROR")


def cost(call: dict[str, Any]) -> Any:
    import litellm
    from litellm.types.utils import Usage

    written = call["cache_write_5m"] + call["cache_write_1h"]
    details: dict[str, Any] = {"cached_tokens": call["cache_read"], "cache_creation_tokens": written}
    if call["cache_write_1h"]:
        details["cache_creation_token_details"] = {
            "ephemeral_5m_input_tokens": call["cache_write_5m"],
            "ephemeral_1h_input_tokens": call["cache_write_1h"],
        }
    prompt = call["input"] + call["cache_read"] + written
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=call["output"],
        total_tokens=prompt + call["output"],
        prompt_tokens_details=details,
        cache_read_input_tokens=call["cache_read"],
        cache_creation_input_tokens=written,
    )
    try:
        parts = litellm.cost_per_token(
            model=f"bedrock/{call['model']}",
            prompt_tokens=prompt,
            completion_tokens=call["output"],
            custom_llm_provider="bedrock",
            region_name=call["region"],
            usage_object=usage,
            service_tier=call["tier"],
        )
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"[:200]}
    return [repr(part) for part in parts]


def main() -> None:
    calls = json.load(sys.stdin)
    answers = [cost(call) for call in calls]
    print("\n" + json.dumps(answers))


if __name__ == "__main__":
    main()

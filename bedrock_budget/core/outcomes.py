"""How a call can end, and what each end says of its cost.

AWS bills inference, whoever listens. So a call is settled

- *exactly*, where the service said what it used;
- at *zero*, where no inference can have happened: the service refused, or the request never left;
- by an *estimate* (`core.estimates`), marked, where inference may have happened and the answer does not say how much.

An error response carries no usage, and AWS documents no charge for one. A model that failed or ran out of time has
read its input, so that is counted; output nobody was given is not, or a model in trouble would use up a day's quota.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

from .usage import Usage

Settlement = Literal["exact", "zero", "estimated"]
Outcome = Literal[
    "complete",
    "drained",
    "guardrail_input",
    "guardrail_output",
    "refused",
    "not_sent",
    "model_failed",
    "unanswered",
    "no_usage",
    "stream_error",
    "stream_cut",
    "stream_abandoned",
    "stream_open",
    "retried",
    "in_doubt",
]


class Rule(NamedTuple):
    """What an outcome settles to, and why. ``settlement`` None: not an end, but something that happened to a call
    that is settled by its end."""

    settlement: Settlement | None
    reason: str


OUTCOMES: Mapping[Outcome, Rule] = {
    "complete": Rule("exact", "the response said what was used"),
    "drained": Rule("exact", "the caller gave the stream up; read to its end, it said what was used"),
    "guardrail_input": Rule("exact", "a guardrail blocked the input, so no model ran; guardrails are billed apart"),
    "guardrail_output": Rule("exact", "a guardrail stepped in on the answer; the inference is billed as it says"),
    "refused": Rule("zero", "the service refused the call before inference"),
    "not_sent": Rule("zero", "the request never reached the service"),
    "model_failed": Rule("estimated", "the model failed or ran out of time: its input is counted, and no output"),
    "unanswered": Rule(
        "estimated", "the request was sent and no usable answer came: the most that it may have used is counted"
    ),
    "no_usage": Rule("estimated", "the response did not say what was used: estimated from its text"),
    "stream_error": Rule("estimated", "the service broke the stream off: estimated from what came"),
    "stream_cut": Rule("estimated", "the connection broke in the stream: estimated from what came"),
    "stream_abandoned": Rule("estimated", "the caller gave the stream up: estimated from what came"),
    "stream_open": Rule("estimated", "the process ended with the stream open: estimated from what came"),
    "retried": Rule(None, "botocore sent the call again; if the lost answer was complete, both may be billed"),
    "in_doubt": Rule(None, "a write of usage may or may not have reached the store, and was not repeated"),
}

#: What adds no call to the counters of an account.
NOT_METERED: frozenset[Outcome] = frozenset(
    name for name, rule in OUTCOMES.items() if rule.settlement in ("zero", None)
)


#: The ``stopReason`` of a Converse answer, and what an ``invoke_model`` body says.
GUARDRAIL_INTERVENED = "guardrail_intervened"
_GUARDRAIL_ACTION = "amazon-bedrock-guardrailAction"


def guardrail_outcome(usage: Usage) -> Outcome:
    """Where a guardrail stepped in, by the usage of the answer.

    One that blocks the input leaves none: "charged for the guardrail evaluation", "no charges for foundation model
    inference" (AWS, "How Amazon Bedrock Guardrails works").
    """
    return "guardrail_output" if any(usage) else "guardrail_input"


def intervened(body: object) -> bool:
    """Whether an ``invoke_model`` body, or a part of one, says that a guardrail stepped in."""
    return isinstance(body, Mapping) and cast(Mapping[str, object], body).get(_GUARDRAIL_ACTION) == "INTERVENED"

"""What a model says, before it has the shape of a family: text, tokens, time; and what a family is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..core.usage import INVOCATION_METRICS, Usage
from .exchange import Request

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says: the text, the same in pieces for streams, the tokens, and the time taken in milliseconds."""

    request: Request
    request_id: str
    text: str
    pieces: tuple[str, ...]
    usage: Usage
    latency_ms: int
    invoked_model_id: str | None = None  # what a prompt router chose


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream's JSON events: those before the text, the text deltas, those after it."""

    opening: Sequence[Json]
    deltas: Sequence[Json]
    closing: Sequence[Json]


class Frames(NamedTuple):
    """A stream's encoded events: those before the text, the text deltas, those after it."""

    opening: Sequence[bytes]
    deltas: Sequence[bytes]
    closing: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Family:
    """How one request format answers. ``stream`` None: it cannot stream."""

    body: Callable[[Answer], Json]
    stream: Callable[[Answer], Stream] | None = None
    has_output: bool = True  # False: embeddings
    has_tokens: bool = True  # False: priced by the search unit or image, so no token counts anywhere
    caches: bool = False  # says cache counts even where they are 0


def invocation_metrics(answer: Answer) -> Json:
    """The last chunk's ``amazon-bedrock-invocationMetrics``, as a key to merge into it."""
    usage = answer.usage
    metrics: Json = {
        "inputTokenCount": usage.input_tokens,
        "outputTokenCount": usage.output_tokens,
        "invocationLatency": answer.latency_ms,
        "firstByteLatency": answer.latency_ms,
    }
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    if usage.cache_read_tokens:
        metrics["cacheReadInputTokenCount"] = usage.cache_read_tokens
    if written:
        metrics["cacheWriteInputTokenCount"] = written
    return {INVOCATION_METRICS: metrics}

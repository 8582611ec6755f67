"""Converse and ConverseStream answers: one shape for every model."""

from functools import lru_cache

from ..core.usage import Usage
from .answer import Answer, Frames, Json
from .event_stream import event_frame
from .exchange import as_mapping


def token_usage(usage: Usage) -> Json:
    """The ``usage`` member (``TokenUsage``). Cache members are there only if the cache was used, as in real replies."""
    counts: Json = {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": sum(usage),
        "serverToolUsage": {},
    }
    short, long = usage.cache_write_5m_tokens, usage.cache_write_1h_tokens
    if usage.cache_read_tokens or short or long:
        counts["cacheReadInputTokens"] = usage.cache_read_tokens
        counts["cacheWriteInputTokens"] = short + long
    details = [{"ttl": ttl, "inputTokens": count} for ttl, count in (("1h", long), ("5m", short)) if count]
    if details:
        counts["cacheDetails"] = details
    return counts


def _measures(answer: Answer) -> Json:
    """Usage, metrics, and the service tier and latency that were asked for."""
    measures: Json = {"metrics": {"latencyMs": answer.latency_ms}, "usage": token_usage(answer.usage)}
    body = as_mapping(answer.request.body)
    for name in ("serviceTier", "performanceConfig"):
        if name in body:
            measures[name] = body[name]
    if answer.invoked_model_id is not None:
        measures["trace"] = {"promptRouter": {"invokedModelId": answer.invoked_model_id}}
    return measures


def converse_body(answer: Answer) -> Json:
    """The body of a Converse reply."""
    message = {"content": [{"text": answer.text}], "role": "assistant"}
    return {"output": {"message": message}, "stopReason": "end_turn", **_measures(answer)}


@lru_cache(maxsize=256)
def _delta_frames(pieces: tuple[str, ...]) -> tuple[bytes, ...]:
    # Cached, since the same text is streamed again and again in a benchmark.
    return tuple(
        event_frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}}, i + 1)
        for i, piece in enumerate(pieces)
    )


def converse_frames(answer: Answer) -> Frames:
    """The events of a ConverseStream reply; the last one carries the usage. A text block has no start event."""
    count = len(answer.pieces)
    return Frames(
        (event_frame("messageStart", {"role": "assistant"}),),
        _delta_frames(answer.pieces),
        (
            event_frame("contentBlockStop", {"contentBlockIndex": 0}, count + 1),
            event_frame("messageStop", {"stopReason": "end_turn"}, count + 2),
            event_frame("metadata", _measures(answer), count + 3),
        ),
    )

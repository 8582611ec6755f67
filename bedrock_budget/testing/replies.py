"""InvokeModel answers in the shape of each model family: whole bodies, and the chunks of a stream.

Shapes: the families' request and response pages in the Bedrock user guide, and recorded traffic.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

from ..core.model_ids import request_format
from ..core.usage import Usage
from .answer import Answer, Family, Frames, Json, Stream, invocation_metrics
from .embedding_replies import cohere_embedding, image_body, nova_embedding, rerank_body, titan_embedding
from .event_stream import chunk_frame
from .exchange import Request, as_mapping

# --- Anthropic


def _anthropic_usage(usage: Usage, output_tokens: int) -> Json:
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": output_tokens,
    }


def _anthropic_message(answer: Answer, content: list[Json], stop_reason: str | None, output_tokens: int) -> Json:
    return {
        "id": f"msg_bdrk_{answer.request_id}",
        "type": "message",
        "role": "assistant",
        "model": answer.request.model_id,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": _anthropic_usage(answer.usage, output_tokens),
    }


def _anthropic_body(answer: Answer) -> Json:
    return _anthropic_message(answer, [{"type": "text", "text": answer.text}], "end_turn", answer.usage.output_tokens)


def _anthropic_stream(answer: Answer) -> Stream:
    return Stream(
        [
            {"type": "message_start", "message": _anthropic_message(answer, [], None, min(1, answer.usage[1]))},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ],
        [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in answer.pieces
        ],
        [
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": answer.usage.output_tokens},
            },
            {"type": "message_stop", **invocation_metrics(answer)},
        ],
    )


# --- Nova


def _nova_usage(usage: Usage) -> Json:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": sum(usage),
        "cacheReadInputTokenCount": usage.cache_read_tokens,
        "cacheWriteInputTokenCount": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
    }


def _nova_body(answer: Answer) -> Json:
    return {
        "output": {"message": {"content": [{"text": answer.text}], "role": "assistant"}},
        "stopReason": "end_turn",
        "usage": _nova_usage(answer.usage),
    }


def _nova_stream(answer: Answer) -> Stream:
    metadata = {"usage": _nova_usage(answer.usage), "metrics": {}, "trace": {}}
    return Stream(
        [{"messageStart": {"role": "assistant"}}],
        [{"contentBlockDelta": {"delta": {"text": piece}, "contentBlockIndex": 0}} for piece in answer.pieces],
        [
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": metadata, **invocation_metrics(answer)},
        ],
    )


# --- Titan text, Llama


def _titan_body(answer: Answer) -> Json:
    result = {"tokenCount": answer.usage.output_tokens, "outputText": answer.text, "completionReason": "FINISH"}
    return {"inputTextTokenCount": answer.usage.input_tokens, "results": [result]}


def _titan_stream(answer: Answer) -> Stream:
    def chunk(text: str, input_tokens: int | None, output_tokens: int | None, reason: str | None) -> Json:
        return {
            "outputText": text,
            "index": 0,
            "totalOutputTextTokenCount": output_tokens,
            "completionReason": reason,
            "inputTextTokenCount": input_tokens,
        }

    first = answer.usage.input_tokens
    return Stream(
        [],
        [chunk(piece, first if i == 0 else None, None, None) for i, piece in enumerate(answer.pieces)],
        [{**chunk("", None, answer.usage.output_tokens, "FINISH"), **invocation_metrics(answer)}],
    )


def _llama_chunk(text: str, input_tokens: int | None, output_tokens: int, reason: str | None) -> Json:
    return {
        "generation": text,
        "prompt_token_count": input_tokens,
        "generation_token_count": output_tokens,
        "stop_reason": reason,
    }


def _llama_stream(answer: Answer) -> Stream:
    first, output = answer.usage.input_tokens, answer.usage.output_tokens
    return Stream(
        [],
        [
            _llama_chunk(piece, first if i == 0 else None, min(i + 1, output), None)
            for i, piece in enumerate(answer.pieces)
        ],
        [{**_llama_chunk("", None, output, "stop"), **invocation_metrics(answer)}],
    )


# --- OpenAI's chat shape: AI21 Jamba, newer Mistral, Qwen, gpt-oss, ...


def _openai_usage(usage: Usage, output_tokens: int) -> Json:
    prompt = usage.input_tokens + usage.cache_read_tokens
    counts: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": output_tokens,
        "total_tokens": prompt + output_tokens,
    }
    if usage.cache_read_tokens:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cache_read_tokens}
    return counts


def _openai_body(answer: Answer) -> Json:
    message = {"role": "assistant", "content": answer.text, "tool_calls": None}
    return {
        "id": f"chatcmpl-{answer.request_id}",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _openai_usage(answer.usage, answer.usage.output_tokens),
        "model": answer.request.model_id,
    }


def _openai_stream(answer: Answer) -> Stream:
    output = answer.usage.output_tokens

    def chunk(delta: Json, so_far: int, reason: str | None) -> Json:
        return {
            "id": f"chatcmpl-{answer.request_id}",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            "usage": _openai_usage(answer.usage, so_far),
        }

    return Stream(
        [chunk({"role": "assistant", "content": ""}, 0, None)],
        [chunk({"content": piece}, min(i + 1, output), None) for i, piece in enumerate(answer.pieces)],
        [chunk({"content": ""}, output, "stop"), invocation_metrics(answer)],
    )


# --- families that say nothing of tokens in their bodies, so one function makes body, deltas and end


def _plain(shape: Callable[[str, str | None], Json], end: str) -> Family:
    """A family whose bodies and chunks are ``shape(text, stop reason)``; ``end`` is its usual stop reason."""

    def stream(answer: Answer) -> Stream:
        last = {**shape("", end), **invocation_metrics(answer)}
        return Stream([], [shape(piece, None) for piece in answer.pieces], [last])

    return Family(lambda answer: shape(answer.text, end), stream)


def _cohere_body(answer: Answer) -> Json:
    generation = {"finish_reason": "COMPLETE", "id": answer.request_id, "text": answer.text}
    return {"generations": [generation], "id": answer.request_id, "prompt": _prompt(answer)}


def _cohere_stream(answer: Answer) -> Stream:
    last = {"finish_reason": "COMPLETE", "is_finished": True, **invocation_metrics(answer)}
    return Stream([], [{"index": 0, "is_finished": False, "text": piece} for piece in answer.pieces], [last])


def _cohere_chat_body(answer: Answer) -> Json:
    identity = {"response_id": answer.request_id, "generation_id": answer.request_id}
    return {**identity, "text": answer.text, "finish_reason": "COMPLETE"}


def _cohere_chat_stream(answer: Answer) -> Stream:
    last = {"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE"}
    return Stream(
        [{"event_type": "stream-start", "is_finished": False, "generation_id": answer.request_id}],
        [{"event_type": "text-generation", "is_finished": False, "text": piece} for piece in answer.pieces],
        [{**last, "response": _cohere_chat_body(answer), **invocation_metrics(answer)}],
    )


def _j2_body(answer: Answer) -> Json:
    completion: Json = {"data": {"text": answer.text, "tokens": []}, "finishReason": {"reason": "endoftext"}}
    return {"id": 1234, "prompt": {"text": _prompt(answer), "tokens": []}, "completions": [completion]}


def _prompt(answer: Answer) -> str:
    return str(as_mapping(answer.request.body).get("prompt", ""))


_GENERIC = _plain(lambda text, end: {"completion": text, "stop_reason": end}, "stop")
_TITAN_EMBEDDING = Family(titan_embedding, has_output=False)
_IMAGE = Family(image_body, has_output=False, has_tokens=False)

_FAMILIES: Mapping[str, Family] = {
    "anthropic-messages": Family(_anthropic_body, _anthropic_stream, caches=True),
    "anthropic-completions": _plain(
        lambda text, end: {"type": "completion", "completion": text, "stop_reason": end, "stop": end and "\n\nHuman:"},
        "stop_sequence",
    ),
    "amazon-nova": Family(_nova_body, _nova_stream, caches=True),
    "amazon-titan-text": Family(_titan_body, _titan_stream),
    "meta-llama": Family(
        lambda answer: _llama_chunk(answer.text, answer.usage.input_tokens, answer.usage.output_tokens, "stop"),
        _llama_stream,
    ),
    "mistral-text": _plain(lambda text, end: {"outputs": [{"text": text, "stop_reason": end}]}, "stop"),
    "deepseek-completions": _plain(lambda text, end: {"choices": [{"text": text, "stop_reason": end}]}, "stop"),
    "openai-chat": Family(_openai_body, _openai_stream),
    "cohere-command": Family(_cohere_body, _cohere_stream),
    "cohere-chat": Family(_cohere_chat_body, _cohere_chat_stream),
    "ai21-j2": Family(_j2_body),
    "amazon-titan-embed-text": _TITAN_EMBEDDING,
    "amazon.titan-embed-image": _TITAN_EMBEDDING,
    "amazon.nova-2-multimodal-embeddings": Family(nova_embedding, has_output=False),
    "cohere-embed": Family(cohere_embedding, has_output=False),
    "cohere-rerank": Family(rerank_body, has_output=False, has_tokens=False),
    "amazon.titan-image-generator": _IMAGE,
    "amazon.nova-canvas": _IMAGE,
}
_format_of = lru_cache(maxsize=1024)(request_format)


def family_of(request: Request) -> Family:
    """The family that answers: by model id, and for an id that does not say (an opaque ARN), by the request's shape."""
    family = _FAMILIES.get(_format_of(request.model_id))
    if family is not None:
        return family
    body = as_mapping(request.body)
    if "anthropic_version" in body:
        return _FAMILIES["anthropic-messages"]
    if "inputText" in body:
        return _FAMILIES["amazon-titan-text"] if "textGenerationConfig" in body else _TITAN_EMBEDDING
    if "messages" in body:
        return _FAMILIES["amazon-nova"] if "inferenceConfig" in body else _FAMILIES["openai-chat"]
    return _GENERIC


def chunk_frames(stream: Stream) -> Frames:
    """A stream's JSON events, encoded as InvokeModelWithResponseStream sends them."""
    first, last = len(stream.opening), len(stream.opening) + len(stream.deltas)
    return Frames(
        [chunk_frame(chunk, i) for i, chunk in enumerate(stream.opening)],
        [chunk_frame(chunk, i) for i, chunk in enumerate(stream.deltas, first)],
        [chunk_frame(chunk, i) for i, chunk in enumerate(stream.closing, last)],
    )

"""InvokeModel answers that are not text: embeddings, reranking, images. None of them streams."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from .answer import Answer, Json
from .exchange import as_mapping


def _vector(body: Mapping[str, Any]) -> list[float]:
    size = body.get("dimensions")
    return [((i * 37) % 101 - 50) / 64 for i in range(size if isinstance(size, int) and 0 < size <= 4096 else 8)]


def titan_embedding(answer: Answer) -> Json:
    vector = _vector(as_mapping(answer.request.body))
    return {
        "embedding": vector,
        "embeddingsByType": {"float": vector},
        "inputTextTokenCount": answer.usage.input_tokens,
    }


def nova_embedding(answer: Answer) -> Json:
    return {"embeddings": [{"embeddingType": "TEXT", "embedding": _vector(as_mapping(answer.request.body))}]}


def _list_of(body: object, key: str) -> Sequence[Any]:
    value = as_mapping(body).get(key)
    return cast(Sequence[Any], value) if isinstance(value, list) else ()


def cohere_embedding(answer: Answer) -> Json:
    texts = _list_of(answer.request.body, "texts")
    vector = _vector({})
    embeddings = [vector for _ in texts]
    return {
        "id": answer.request_id,
        "embeddings": embeddings,
        "texts": list(texts),
        "response_type": "embeddings_floats",
    }


def rerank_body(answer: Answer) -> Json:
    count = len(_list_of(answer.request.body, "documents"))
    return {"results": [{"index": i, "relevance_score": round(0.9 / (i + 1), 6)} for i in range(count)]}


def image_body(answer: Answer) -> Json:
    count = as_mapping(as_mapping(answer.request.body).get("imageGenerationConfig")).get("numberOfImages", 1)
    return {"images": ["aW1hZ2U="] * count, "error": None}

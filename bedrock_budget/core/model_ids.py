"""What a Bedrock ``modelId`` says by its form: base model, inference profile, request format.

Only known inference-profile prefixes are stripped; what an opaque ARN stands for is never guessed.
Forms: the model ids and ARNs of the Bedrock API reference (``InvokeModel``, parameter ``modelId``).
"""

import re
from typing import NamedTuple

#: Inference-profile prefixes: geographic ones, and ``global``. Longest first, so that ``us-gov.`` is not ``us.``.
PROFILE_PREFIXES = ("us-gov", "global", "apac", "us", "eu", "jp", "au", "in", "ca", "sa")

_NAMING_ARN = re.compile(r"arn:aws[^:]*:bedrock:([a-z0-9-]*):[0-9]*:(?:foundation-model|inference-profile)/(.+)")
_CONTEXT_SUFFIX = re.compile(r":(?:\d+k|\d{3}|mm)$")

# First match wins: the models of one format take each other's ``invoke_model`` bodies.
_REQUEST_FORMATS: tuple[tuple[str, str], ...] = (
    (r"anthropic\.claude-(v\d|instant)", "anthropic-completions"),
    (r"anthropic\.", "anthropic-messages"),
    (r"amazon\.nova-([\d-]+-)?(canvas|reel|sonic|multimodal-embeddings)", "\\g<0>"),
    (r"amazon\.nova-", "amazon-nova"),
    (r"amazon\.titan-(text|tg1)-", "amazon-titan-text"),
    (r"amazon\.titan-embed-(text|g1-text)-", "amazon-titan-embed-text"),
    (r"amazon\.titan-[a-z]+-[a-z]+", "\\g<0>"),
    (r"meta\.llama", "meta-llama"),
    (r"mistral\.(mistral-7b|mixtral-8x7b|mistral-small-2402|mistral-large-2402)", "mistral-text"),
    (r"mistral\.", "openai-chat"),
    (r"cohere\.command-r", "cohere-chat"),
    (r"cohere\.command", "cohere-command"),
    (r"cohere\.embed", "cohere-embed"),
    (r"cohere\.rerank", "cohere-rerank"),
    (r"ai21\.j2", "ai21-j2"),
    (r"ai21\.", "openai-chat"),
    (r"deepseek\.r1", "deepseek-completions"),
    (r"(deepseek|qwen|openai|minimax|moonshot|moonshotai|nvidia|google|zai)\.", "openai-chat"),
)


class ModelId(NamedTuple):
    """A model id taken apart. ``base`` is None where the id does not say which model it is (opaque ARNs)."""

    text: str
    base: str | None
    profile: str | None  # a geographic prefix or "global"; None: in-region
    region: str | None  # the region an ARN names


def parse_model_id(text: str) -> ModelId:
    """Take a ``modelId`` apart by its form alone."""
    region: str | None = None
    name = text
    if text.startswith("arn:"):
        match = _NAMING_ARN.fullmatch(text)
        if not match:
            return ModelId(text, None, None, text.split(":")[3] if text.count(":") >= 5 else None)
        region, name = match.group(1) or None, match.group(2)
    profile = next((prefix for prefix in PROFILE_PREFIXES if name.startswith(prefix + ".")), None)
    if profile:
        name = name[len(profile) + 1 :]
    if "." not in name:
        return ModelId(text, None, None, region)
    return ModelId(text, _CONTEXT_SUFFIX.sub("", name), profile, region)


def request_format(model_id: str) -> str:
    """The name of the ``invoke_model`` body format a model takes.

    An id that does not say its model has a format of its own: nothing can be known to fit it.
    """
    base = parse_model_id(model_id).base
    if base is None:
        return model_id
    for pattern, name in _REQUEST_FORMATS:
        if match := re.match(pattern, base):
            return match.group(0) if name == "\\g<0>" else name
    return base

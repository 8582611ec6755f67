"""What a Bedrock ``modelId`` says by its form: base model, inference profile, request format, how it is priced.

Only known inference-profile prefixes are stripped; what an opaque ARN stands for is never guessed.
Forms: the model ids and ARNs of the Bedrock API reference (``InvokeModel``, parameter ``modelId``).
"""

import re
from typing import Literal, NamedTuple

#: Inference-profile prefixes: geographic ones, and ``global``. Longest first, so that ``us-gov.`` is not ``us.``.
PROFILE_PREFIXES = ("us-gov", "global", "apac", "us", "eu", "jp", "au", "in", "ca", "sa")
#: Who makes models: the first part of their ids. Tells a prefix that is not known from a name with dots.
PROVIDERS = frozenset(
    (
        *("ai21", "amazon", "anthropic", "cohere", "deepseek", "google", "luma", "meta", "minimax", "mistral"),
        *("moonshot", "moonshotai", "nvidia", "openai", "qwen", "stability", "twelvelabs", "writer", "xai", "zai"),
    )
)

Kind = Literal[
    "model",
    "inference-profile",
    "application-inference-profile",
    "prompt-router",
    "provisioned-model",
    "custom-model",
    "custom-model-deployment",
    "imported-model",
    "prompt",
    "sagemaker-endpoint",
    "name",
    "unknown",
]
ProfileKind = Literal["in-region", "geographic", "global", "application"]
#: ``list``: by the token, as the base model and profile say. ``profile``: the same, once ``GetInferenceProfile`` has
#: said which they are. ``served``: by the model that a response names. ``hourly``: for as long as something runs,
#: whatever its tokens. ``unknown``: nothing says so.
PriceKind = Literal["list", "profile", "served", "hourly", "unknown"]

_ARN = re.compile(r"arn:(aws[^:]*):(bedrock|sagemaker):([a-z0-9-]*):([0-9]*):([a-z-]+)/(.+)")
_ARN_KINDS: dict[tuple[str, str], Kind] = {
    ("bedrock", "inference-profile"): "inference-profile",
    ("bedrock", "application-inference-profile"): "application-inference-profile",
    ("bedrock", "prompt-router"): "prompt-router",
    ("bedrock", "default-prompt-router"): "prompt-router",
    ("bedrock", "provisioned-model"): "provisioned-model",
    ("bedrock", "custom-model"): "custom-model",
    ("bedrock", "custom-model-deployment"): "custom-model-deployment",
    ("bedrock", "imported-model"): "imported-model",
    ("bedrock", "prompt"): "prompt",
    ("sagemaker", "endpoint"): "sagemaker-endpoint",
}
_NAME = re.compile(r"([0-9a-zA-Z][_-]?)+")
_CONTEXT_SUFFIX = re.compile(r":(?:\d+k|\d{3}|mm)$")

_TOKENS_ARE_FREE = "give it prices of 0 to count its tokens and no cost"
_PROBLEMS: dict[Kind, str] = {
    "application-inference-profile": "what an application inference profile stands for, only AWS knows",
    "inference-profile": "the ARN does not say which model the profile is of",
    "prompt-router": "which model a prompt router sends a call to is known only afterwards",
    "provisioned-model": f"provisioned throughput is billed by the hour, not by the token; {_TOKENS_ARE_FREE}",
    "custom-model": f"a custom model is billed by the hour of its provisioned throughput; {_TOKENS_ARE_FREE}",
    "custom-model-deployment": "the ARN of a custom model's deployment does not say which model it was made from; "
    "give it the prices of that model's customisation",
    "imported-model": f"imported models are billed by Custom Model Units and minutes, not tokens; {_TOKENS_ARE_FREE}",
    "prompt": "the ARN of a prompt does not say which model it was made for; give the prices of that model",
    "sagemaker-endpoint": f"SageMaker endpoints are billed by instance hours, not tokens; {_TOKENS_ARE_FREE}",
    "name": "a bare name (of provisioned throughput or a custom model) does not say which model it is; use its ARN or "
    "give prices by hand",
    "unknown": "it is no form of modelId that is known here",
}
_PRICE_KINDS: dict[Kind, PriceKind] = {
    "inference-profile": "profile",
    "application-inference-profile": "profile",
    "prompt-router": "served",
    "provisioned-model": "hourly",
    "custom-model": "hourly",
    "imported-model": "hourly",
    "sagemaker-endpoint": "hourly",
}

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
    account: str | None = None  # the account an ARN names
    kind: Kind = "model"
    prefix: str | None = None  # what stands where a profile prefix would, and is none that is known

    @property
    def profile_kind(self) -> ProfileKind | None:
        """How calls are routed; None where the id does not say."""
        if self.kind == "application-inference-profile":
            return "application"
        if self.base is None:
            return None
        if self.profile is None:
            return "in-region"
        return "global" if self.profile == "global" else "geographic"

    @property
    def price_kind(self) -> PriceKind:
        """By what it is priced."""
        if self.base is not None:
            return "list"
        return "unknown" if self._has_unknown_prefix else _PRICE_KINDS.get(self.kind, "unknown")

    @property
    def family(self) -> str | None:
        """The request format of ``invoke_model`` bodies; None where the id does not say."""
        base = self.base
        if base is None and self.kind == "custom-model":  # which is named after the one it was made from
            base = self.text.split("/")[1]
            base = base if _names_model(base) else None
        return None if base is None else _format_of(base)

    @property
    def problem(self) -> str | None:
        """Why it has no list price of its own, and what to do about it; None if it may have one."""
        if self.base is not None:
            return None
        if self._has_unknown_prefix:
            return (
                f"unknown inference profile prefix {self.prefix!r} (known: {', '.join(sorted(PROFILE_PREFIXES))}); "
                "use the ARN of the profile, which AWS can be asked about"
            )
        return _PROBLEMS[self.kind]

    @property
    def _has_unknown_prefix(self) -> bool:
        # An ARN can be looked up, whatever its prefix.
        return self.prefix is not None and not self.text.startswith("arn:")


def parse_model_id(text: str) -> ModelId:
    """Take a ``modelId`` apart by its form alone."""
    region: str | None = None
    account: str | None = None
    kind: Kind = "model"
    name = text
    if text.startswith("arn:"):
        match = _ARN.fullmatch(text)
        if not match:
            return ModelId(text, None, None, text.split(":")[3] if text.count(":") >= 5 else None, None, "unknown")
        service, resource, name = match.group(2, 5, 6)
        region, account = match.group(3) or None, match.group(4) or None
        if (service, resource) != ("bedrock", "foundation-model"):
            kind = _ARN_KINDS.get((service, resource), "unknown")
            if kind != "inference-profile":
                return ModelId(text, None, None, region, account, kind)
    profile = next((prefix for prefix in PROFILE_PREFIXES if name.startswith(prefix + ".")), None)
    if profile:
        name = name[len(profile) + 1 :]
        kind = "inference-profile"
    if not _names_model(name):
        first, dot, _ = name.partition(".")
        if dot:  # a prefix before the name of a model
            return ModelId(text, None, None, region, account, "inference-profile", first)
        if kind == "model":
            kind = "name" if region is None and _NAME.fullmatch(name) else "unknown"
        return ModelId(text, None, None, region, account, kind)
    return ModelId(text, _CONTEXT_SUFFIX.sub("", name), profile, region, account, kind)


def _names_model(name: str) -> bool:
    """Whether a name is a provider's and a model's. Providers that are not known may have any name without a dot."""
    first, *rest = name.split(".")
    return bool(rest) and (first in PROVIDERS or rest[0] not in PROVIDERS)


def request_format(model_id: str) -> str:
    """The name of the ``invoke_model`` body format a model takes.

    An id that does not say its model has a format of its own: nothing can be known to fit it.
    """
    return parse_model_id(model_id).family or model_id


def _format_of(base: str) -> str:
    for pattern, name in _REQUEST_FORMATS:
        if match := re.match(pattern, base):
            return match.group(0) if name == "\\g<0>" else name
    return base

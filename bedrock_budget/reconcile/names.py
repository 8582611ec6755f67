"""Which model and which kind of token a line of a bill is of.

Bills have no model ids: they have usage types (``USE1-NovaPro-input-tokens``) and, for models sold through the
Marketplace, whose usage types are all alike (``USE1-MP:USE1_InputTokenCount-Units``), the name of a product (``Claude
Haiku 4.5 (Amazon Bedrock Edition)``). A name is a model's if it has the same words as its id. What no rule knows
keeps its name.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from .records import model_name

#: What is billed by something else than tokens: images, guardrails, provisioned throughput.
OTHER = "other"

_REGION = re.compile(r"^[A-Z]{2,4}\d?(?:_[A-Z]+)?-")
_COUNTED = re.compile(r"[-_](?:mantle[-_])?(?:input|output|response|cache)[-_]", re.IGNORECASE)
_EDITION = re.compile(r"\(.*?\)")
_PROVIDER = re.compile(r"^[a-z][a-z0-9]*\.")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_BATCH = " (batch)"

#: Words that names of the same model have and lack at will.
_SILENT = frozenset({"amazon", "anthropic", "bedrock", "edition", "meta", "instruct", "model", "v", "0"})
_SAME = {"embeddings": "embed", "embedding": "embed"}
_UNITS = {"1k tokens": 1_000, "1k": 1_000, "1m tokens": 1_000_000, "1m": 1_000_000, "units": 1_000_000, "tokens": 1}


def kind_of(usage_type: str) -> str:
    """The kind of token that a usage type counts; `OTHER` for anything else."""
    text = re.sub(r"[^a-z0-9]", "", usage_type.lower())
    if "cacheread" in text:  # first: cache usage types have "input token" in them
        return "cache_read"
    if "cachewrite" in text:
        return "cache_write_1h" if "1h" in text.partition("cachewrite")[2] else "cache_write_5m"
    if "outputtoken" in text or "responsetoken" in text:
        return "output"
    return "input" if "inputtoken" in text else OTHER


def tokens_of(amount: Decimal, unit: str, usage_type: str) -> int:
    """The tokens of an amount in a bill's unit, rounded half up. Of an unknown unit, as its usage type has them."""
    factor = _UNITS.get(unit.strip().lower())
    if factor is None:
        factor = 1_000_000 if "MP:" in usage_type else 1_000
    return int(amount * factor + Decimal("0.5"))


def billed_name(product: str, usage_type: str) -> str:
    """What a bill calls the model of a line; batch jobs, which are no calls, have a name of their own."""
    batch = _BATCH if "batch" in usage_type.lower() else ""
    name = _EDITION.sub("", product).strip()
    if "MP:" not in usage_type:
        name = _COUNTED.split(_REGION.sub("", usage_type), maxsplit=1)[0]
    return (name or usage_type) + batch


class ModelNames:
    """Names of bills as models of the configuration. ``aliases``: what to call a name that no rule knows."""

    def __init__(self, models: Iterable[str], aliases: Mapping[str, str]) -> None:
        self._models = {model_name(model) for model in models}
        self._by_words = {_words_of_id(model): model for model in self._models}
        self._aliases = {name: model_name(model) for name, model in aliases.items()}

    def of_id(self, model_id: str) -> str:
        """The model of a model id, profile id or ARN."""
        name = model_name(model_id)
        return self._aliases.get(model_id) or self._aliases.get(name) or name

    def of_line(self, product: str, usage_type: str, resource_id: str = "") -> str:
        """The model of a line of a bill."""
        name = billed_name(product, usage_type)
        if name in self._aliases:
            return self._aliases[name]
        if resource_id and not name.endswith(_BATCH) and (found := self.of_id(resource_id)) in self._models:
            return found
        words = _words(name)
        if exact := self._by_words.get(words):
            return exact
        if kind_of(usage_type) == OTHER:  # what follows the model's name says what is counted
            begun = {model: known for known, model in self._by_words.items() if set(known) <= set(words)}
            if begun and not name.endswith(_BATCH):
                return max(begun, key=lambda model: (len(begun[model]), model))
        return name


def _words_of_id(model: str) -> tuple[str, ...]:
    return _words(model.partition(":")[0] if not model.startswith("arn:") else model)


def _words(name: str) -> tuple[str, ...]:
    """The words that tell models apart, in no order: Claude 4.5 Sonnet is Claude Sonnet 4.5."""
    found = [word.lower() for word in _WORDS.findall(_PROVIDER.sub("", name))]
    kept: list[str] = []
    for place, word in enumerate(found):
        first_version = word == "1" and place > 0 and found[place - 1] == "v"
        dated = word.isdigit() and len(word) == 8
        if word not in _SILENT and not first_version and not dated:
            kept.append(_SAME.get(word, word))
    return tuple(sorted(kept))

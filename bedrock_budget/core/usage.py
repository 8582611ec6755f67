"""Where a Bedrock response says how many tokens it used, for every operation and model family.

One shape comes out: `Usage`. Input tokens exclude cached ones, as Bedrock's own counts do. For ``invoke_model``
the headers come before the body: they are right where the body is not (an intervening guardrail leaves the
output count out of Nova's body) and most families have nothing else. Counts may be null or float in bodies.

Sources: the Bedrock runtime's service model (``TokenUsage``), the families' request and response pages in the
Bedrock user guide, and recorded traffic.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

INPUT_HEADER = "x-amzn-bedrock-input-token-count"
OUTPUT_HEADER = "x-amzn-bedrock-output-token-count"
CACHE_READ_HEADER = "x-amzn-bedrock-cache-read-input-token-count"
CACHE_WRITE_HEADER = "x-amzn-bedrock-cache-write-input-token-count"
INVOCATION_METRICS = "amazon-bedrock-invocationMetrics"


#: Longer numbers in headers are nonsense.
MOST_DIGITS = 30


class Usage(NamedTuple):
    """Tokens of one call (or a sum of calls), by kind. Input excludes cached tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """The sum, kind by kind."""
        return Usage(*(a + b for a, b in zip(self, other, strict=True)))


#: `Usage` of a tuple, without the Python code of a named tuple's constructor: every call makes one.
_usage: Callable[[tuple[int, int, int, int, int]], Usage] = partial(cast(Any, tuple).__new__, Usage)


class Counts(NamedTuple):
    """What one place of a response says; None where it says nothing."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None

    def over(self, other: "Counts") -> "Counts":
        """These counts, with gaps filled from ``other``."""
        return Counts(*(b if a is None else a for a, b in zip(self, other, strict=True)))

    def usage(self) -> Usage | None:
        """The usage these counts amount to; None if they know neither input nor output."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        long = self.cache_write_1h_tokens or 0
        # The total and its 1 h part come from different places; where they disagree nothing is dropped.
        short = max((self.cache_write_tokens or 0) - long, 0)
        return Usage(self.input_tokens or 0, self.output_tokens or 0, self.cache_read_tokens or 0, short, long)


NOTHING = Counts()


def _count(value: object) -> int | None:
    """A token count >= 0 from JSON or a header; None for null, nonsense and absence. Fractions round up."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if value < 0 or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return math.ceil(value)


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _first(source: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        count = _count(source.get(name))
        if count is not None:
            return count
    return None


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def from_token_usage(usage: object) -> Usage | None:
    """Usage of a Converse response's ``usage`` or a ConverseStream ``metadata.usage`` (``TokenUsage``)."""
    source = cast("dict[str, Any]", usage) if isinstance(usage, dict) else {}
    tokens: Any = source.get("inputTokens")
    answer: Any = source.get("outputTokens")
    read: Any = source.get("cacheReadInputTokens", 0)
    whole = type(tokens) is type(answer) is type(read) is int
    if whole and not source.get("cacheWriteInputTokens") and tokens >= 0 and answer >= 0 and read >= 0:
        return _usage((tokens, answer, read, 0, 0))  # the same as below, for almost all calls
    written = _count(source.get("cacheWriteInputTokens"))
    long: int | None = None
    if written:
        details = source.get("cacheDetails")
        parts = [_mapping(part) for part in cast("list[object]", details)] if isinstance(details, list) else []
        long = _sum(_count(part.get("inputTokens")) for part in parts if part.get("ttl") == "1h")
    return Counts(
        _count(source.get("inputTokens")),
        _count(source.get("outputTokens")),
        _count(source.get("cacheReadInputTokens")),
        written,
        long,
    ).usage()


def counts_from_headers(headers: Mapping[str, str]) -> Counts:
    """Counts of an ``invoke_model`` response's headers (names lower-cased, as botocore gives them)."""
    return Counts(
        _count(headers.get(INPUT_HEADER)),
        _count(headers.get(OUTPUT_HEADER)),
        _count(headers.get(CACHE_READ_HEADER)),
        _count(headers.get(CACHE_WRITE_HEADER)),
    )


def usage_from_headers(headers: Mapping[str, str]) -> Usage | None:
    """The usage of an ``invoke_model`` response whose headers say it all; None if the body has to be read: an output
    count is missing, or tokens were written to a cache, for how long only the body says."""
    tokens, answer = headers.get(INPUT_HEADER, ""), headers.get(OUTPUT_HEADER, "")
    read = headers.get(CACHE_READ_HEADER, "0")
    if headers.get(CACHE_WRITE_HEADER, "0") != "0" or not (tokens.isdecimal() and answer.isdecimal()):
        return None
    if not read.isdecimal() or len(tokens) + len(answer) + len(read) > MOST_DIGITS:
        return None
    return _usage((int(tokens), int(answer), int(read), 0, 0))


def counts_from_metrics(metrics: object) -> Counts:
    """Counts of the ``amazon-bedrock-invocationMetrics`` of a stream's last chunk."""
    source = _mapping(metrics)
    return Counts(
        _first(source, "inputTokenCount"),
        _first(source, "outputTokenCount"),
        _first(source, "cacheReadInputTokenCount"),
        _first(source, "cacheWriteInputTokenCount"),
    )


def counts_from_body(body: object) -> Counts:
    """Counts of an ``invoke_model`` JSON body or one JSON chunk of its stream, by shape, whatever the family."""
    source = _mapping(body)
    message = _mapping(source.get("message"))  # Anthropic's message_start chunk
    metadata = _mapping(source.get("metadata"))  # Nova's last chunk
    usage = _mapping(source.get("usage") or message.get("usage") or metadata.get("usage"))
    if usage:
        return _counts_from_usage(usage)
    billed = _mapping(
        _mapping(source.get("meta")).get("billed_units")
        or _mapping(_mapping(source.get("response")).get("meta")).get("billed_units")
    )
    if billed:  # Cohere
        return Counts(_first(billed, "input_tokens"), _first(billed, "output_tokens"))
    results = source.get("results")
    if isinstance(results, list):  # Titan text
        output = _sum(_count(_mapping(result).get("tokenCount")) for result in cast("list[object]", results))
    else:  # Titan embeddings and streams; Llama
        output = _first(source, "totalOutputTextTokenCount", "generation_token_count")
    return Counts(_first(source, "inputTextTokenCount", "prompt_token_count"), output)


def _counts_from_usage(usage: Mapping[str, Any]) -> Counts:
    split = _mapping(usage.get("cache_creation"))
    long = _first(split, "ephemeral_1h_input_tokens")
    written = _first(usage, "cache_creation_input_tokens", "cacheWriteInputTokenCount", "cacheWriteInputTokens")
    if written is None and split:
        written = _sum((long, _first(split, "ephemeral_5m_input_tokens")))
    read = _first(usage, "cache_read_input_tokens", "cacheReadInputTokenCount", "cacheReadInputTokens")
    tokens = _first(usage, "input_tokens", "inputTokens")
    if tokens is None:  # OpenAI's shape, whose prompt tokens include the cached ones
        prompt = _first(usage, "prompt_tokens")
        cached = _first(_mapping(usage.get("prompt_tokens_details")), "cached_tokens")
        if prompt is not None and cached:
            read = cached
            tokens = max(prompt - cached, 0)
        else:
            tokens = prompt
    return Counts(tokens, _first(usage, "output_tokens", "outputTokens", "completion_tokens"), read, written, long)

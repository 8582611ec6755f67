"""What one request can use at most, from its arguments alone: tokens of its text, contents of no known size, output.

Text: a token is at least one byte of it. That holds for byte-level and byte-fallback tokenisers; some normalise first
(NFKC), which makes a few characters longer, so the longer form counts. Text that reaches a model as JSON (schemas, tool
inputs and results) counts as its JSON with every character escaped. Only what is known to be text counts as text:
any key or type that is not listed here, and all binary data, is *other* content, of which only the model's context
window says how many tokens it can be. So what the service learns to take later counts for too much, not too little.

What the service adds: the most seen in recorded traffic is 36 tokens for a plain message, 70 with a system prompt of
the model's own (gpt-oss), 261 for structured output (Claude) and 653 for the first tool (Nova 2); the most documented
is 804 for tools (Claude). The constants are two to seven times that.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast
from unicodedata import is_normalized, normalize

from .estimates import LIMIT_KEYS, NESTED_LIMITS

#: Added to every request: what comes with a model's chat template.
REQUEST_TOKENS = 512
#: Added for every message, block and other structure: role markers, separators, texts that are tokenised apart.
STRUCTURE_TOKENS = 32
#: Added where a request asks for tools, structured output, citations or a model's own features: preambles for them.
PREAMBLE_TOKENS = 2_000
#: Around a key of JSON that is shown to a model: quotes, colon, comma, line break, indentation; or tags of XML.
ENTRY_TOKENS = 12
#: Sealed reasoning (signatures, redacted blocks) stands for text that is not in the request. It is base64 of that text
#: encrypted; even if it is compressed before, tenfold, 6 tokens a byte are more than it holds.
SEALED_TOKENS = 6
#: A service may count the end of an answer too (Titan: 51 tokens of 50).
ANSWER_END_TOKENS = 8
#: The most answers any model gives to one request (OpenAI's ``n``), for a number of answers that is none.
MOST_ANSWERS = 128
#: More parts than any request has: what has more is nested in itself.
MOST_PARTS = 1_000_000


class RequestBounds(NamedTuple):
    """At most what a request can use. ``output_tokens`` None: the request does not say; per answer."""

    text_tokens: int
    others: int = 0  # contents whose tokens only the context window bounds
    output_tokens: int | None = None
    answers: int = 1
    writes_cache: bool = False
    writes_cache_1h: bool = False
    long_window: bool = False  # the 1M context window is asked for
    interleaved: bool = False  # reasoning between tool calls may go beyond the request's limit
    tier: object = None  # None: the default
    latency: object = None


#: Of arguments that cannot even be looked into.
UNREADABLE = RequestBounds(REQUEST_TOKENS, 1, writes_cache=True, writes_cache_1h=True, long_window=True)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Contents: a request's parts whose texts are what they look like.
_TEXTS = _words(
    """
    messages system content text texts prompt inputText message inputs preamble chat_history user_message
    type name id title description context enabled status index query qualifiers citations source snippet
    toolConfig tools toolSpec toolChoice tool_choice tool auto any function functions tool_calls tool_call_id strict
    toolUse toolUseId toolResult tool_use_id is_error tool_results call outputs parameter_definitions
    guardContent reasoningContent reasoningText thinking reasoning reasoning_content signature searchResult
    citationsContent sourceContent location citations documentChar documentPage documentChunk searchResultLocation
    cited_text document_title web url domain start end
    additionalModelRequestFields outputConfig output_config output_format response_format textFormat format structure
    jsonSchema reasoningConfig reasoning_config reasoning_effort effort maxReasoningEffort anthropic_version
    anthropic_beta schemaVersion input_type embedding_types embeddingTypes truncate taskType metadata display
    stop stop_sequences stopSequences
    """
)
#: Below these anything is shown to the model as JSON.
_JSON = _words("json input inputSchema input_schema parameters arguments json_schema schema documents")
#: Of these nothing reaches the model.
_SETTINGS = _words(
    """
    role modelId contentType accept trace guardrailIdentifier guardrailVersion guardrailConfig requestMetadata
    additionalModelResponseFieldPaths performanceConfig performanceConfigLatency serviceTier service_tier speed
    inferenceConfig inference_config textGenerationConfig countPenalty presencePenalty frequencyPenalty
    amazon-bedrock-guardrailConfig amazon-bedrock-guardrailAction
    """
)
_MARKERS = frozenset(("cachePoint", "cache_control"))
_RESULTS = frozenset(("toolResult", "tool_results"))
_SEALED = frozenset(("signature", "redactedContent"))
#: A ``type`` that is none of these may be a tool of the service's own, or media.
_TYPES = _words(
    """
    text tool_use tool_result thinking redacted_thinking search_result function custom auto any tool none required
    enabled disabled adaptive message json_schema json_object json text_content default
    char_location page_location content_block_location search_result_location web_search_result_location
    """
)
_INSTRUCTED = _words(
    """
    toolConfig tools functions tool_results documents outputConfig output_config output_format response_format
    additionalModelRequestFields thinking reasoning_effort reasoningConfig reasoning_config citations searchResult
    """
)
_ANSWERS = ("n", "num_generations", "numResults", "best_of", "num_return_sequences", "candidate_count")
#: Which limit a format's models go by; another one could be ignored. Not listed: any.
_LIMITS_OF_FORMAT: Mapping[str, tuple[str, ...]] = {
    "anthropic-messages": ("max_tokens",),
    "anthropic-completions": ("max_tokens_to_sample",),
    "amazon-nova": ("maxTokens", "max_new_tokens"),
    "amazon-titan-text": ("maxTokenCount",),
    "meta-llama": ("max_gen_len",),
    "mistral-text": ("max_tokens",),
    "openai-chat": ("max_tokens", "max_completion_tokens"),
    "cohere-chat": ("max_tokens",),
    "cohere-command": ("max_tokens",),
    "ai21-j2": ("maxTokens",),
    "deepseek-completions": ("max_tokens",),
}
_LISTS = (list, tuple)
_PLAIN = frozenset(("messages", "system", "inferenceConfig", "modelId"))


def text_tokens(text: str) -> int:
    """The most tokens a text can be."""
    if text.isascii():
        return len(text)
    size = len(text.encode(errors="surrogatepass"))
    if is_normalized("NFKC", text):
        return size
    return max(size, len(normalize("NFKC", text).encode(errors="surrogatepass")))


def plain_bounds(request: Mapping[str, Any]) -> tuple[int, int | None] | None:
    """(text tokens, output tokens) of a Converse request of nothing but text; None for any other.

    The same as `request_bounds` gives, but much faster: almost all requests are such.
    """
    if not _PLAIN.issuperset(request):
        return None
    try:
        limit = request["inferenceConfig"].get("maxTokens") if "inferenceConfig" in request else None
        if limit is not None:
            if type(limit) is not int or limit <= 0:
                return None
            limit += ANSWER_END_TOKENS
        messages, system = request["messages"], request.get("system", ())
        if messages.__class__ not in _LISTS or system.__class__ not in _LISTS:  # an iterator is not ours to use up
            return None
        tokens = REQUEST_TOKENS + STRUCTURE_TOKENS * (1 + 2 * len(messages) + 2 * len(system))
        for message in messages:
            if len(message) != 2 or "role" not in message:
                return None
            content = message["content"]
            if content.__class__ not in _LISTS:
                return None
            for block in content:
                text = block["text"]
                if type(text) is not str or len(block) != 1:
                    return None
                tokens += (len(text) if text.isascii() else text_tokens(text)) + 2 * STRUCTURE_TOKENS
        for block in system:
            text = block["text"]
            if type(text) is not str or len(block) != 1:
                return None
            tokens += text_tokens(text)
    except (KeyError, TypeError, AttributeError):
        return None
    return tokens, limit


def request_bounds(request: Mapping[str, Any], request_format: str) -> RequestBounds:
    """The bounds of any request, of a model whose ``invoke_model`` bodies have the format ``request_format``."""
    scan = _Scan()
    keys = _LIMITS_OF_FORMAT.get(request_format, LIMIT_KEYS)
    if "body" in request:
        body = _parsed(request["body"])
        if body is None:
            scan.give_up()
            scan.tokens += _size(request["body"])
        parts = more = _mapping(body)
        limits = _limits(more, keys)
    else:
        parts, more = request, _mapping(request.get("additionalModelRequestFields"))
        # Converse's own limit holds for every model; one among the fields is another, or instead of it.
        limits = _limits(request, ("maxTokens",))
        limits += _limits(more, LIMIT_KEYS if limits else keys)
    try:
        scan.walk(parts)
    except Exception:  # odd objects may raise anything, and another thread may be changing them
        scan.give_up()
    known = [limit for limit in limits if limit is not None]
    return RequestBounds(
        scan.tokens + (PREAMBLE_TOKENS if scan.instructed else 0),
        scan.others,
        max(known) + ANSWER_END_TOKENS if known and len(known) == len(limits) else None,
        _answers(more),
        scan.writes_cache,
        scan.writes_cache_1h,
        scan.long_window,
        scan.interleaved,
        _tier(request) or _tier(more),
        _latency(request),
    )


class _Scan:
    """Sums over the parts of a request."""

    __slots__ = ("instructed", "interleaved", "long_window", "others", "tokens", "writes_cache", "writes_cache_1h")

    def __init__(self) -> None:
        self.tokens = REQUEST_TOKENS
        self.others = 0
        self.writes_cache = self.writes_cache_1h = self.long_window = self.interleaved = self.instructed = False

    def give_up(self) -> None:
        """What was not seen may be anything."""
        self.others += 1
        self.writes_cache = self.writes_cache_1h = self.long_window = True

    def walk(self, request: Any) -> None:
        """Count all parts. Without recursion: nothing is nested too deep."""
        parts: list[tuple[Any, bool, bool]] = [(request, False, False)]  # a part; is it JSON; is it escaped
        seen = 0
        while parts:
            part, is_json, escaped = parts.pop()
            seen += 1
            if seen > MOST_PARTS:
                self.give_up()
                return
            if isinstance(part, str):
                self.tokens += _escaped_tokens(part) if escaped else text_tokens(part)
            elif isinstance(part, Mapping):
                self.tokens += STRUCTURE_TOKENS
                entries = _mapping(cast("Any", part))
                if is_json:
                    for key, child in entries.items():
                        self.tokens += 2 * _escaped_tokens(str(key)) + ENTRY_TOKENS
                        parts.append((child, True, True))
                else:
                    inside = escaped or entries.get("type") == "tool_result" or entries.get("role") == "tool"
                    for key, child in entries.items():
                        self._entry(entries, key, child, inside, parts, top=seen == 1)
            elif isinstance(part, list | tuple):
                items = cast("list[Any]", part)
                self.tokens += STRUCTURE_TOKENS * len(items)
                parts.extend((item, is_json, escaped) for item in items)
            elif part is None or isinstance(part, bool | int | float):
                self.tokens += len(str(part)) if is_json else 0
            else:  # binary data, and what is no JSON
                self.others += 1

    def _entry(
        self,
        entries: Mapping[Any, Any],
        key: Any,
        child: Any,
        escaped: bool,
        parts: list[tuple[Any, bool, bool]],
        *,
        top: bool,
    ) -> None:
        self.instructed |= key in _INSTRUCTED
        if key in _MARKERS:
            if child is not None:
                self.writes_cache = True
                self.writes_cache_1h |= _mapping(child).get("ttl") not in (None, "5m")
        elif key in _SEALED or (key == "data" and entries.get("type") == "redacted_thinking"):
            self.tokens += SEALED_TOKENS * _size(child)
        elif key == "type" and isinstance(child, str):
            self.others += child not in _TYPES
        elif key in _JSON and (not top or key == "documents"):
            parts.append((child, True, True))
        elif key in _TEXTS:
            if key == "anthropic_beta":
                said = str(child)
                self.long_window |= "context-1m" in said
                self.interleaved |= "interleaved" in said
            parts.append((child, False, escaped or key in _RESULTS))
        elif key not in _SETTINGS and not (child is None or isinstance(child, bool | int | float)):
            self.others += 1  # no content fits into a number


def _escaped_tokens(text: str) -> int:
    return max(len(json.dumps(text)), text_tokens(text))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | bytearray) else 0


def _mapping(value: Any) -> Mapping[Any, Any]:
    return cast("dict[Any, Any]", value) if isinstance(value, Mapping) else {}


def _parsed(body: Any) -> Mapping[str, Any] | None:
    """A body as a mapping; None if it is none."""
    if isinstance(body, str | bytes | bytearray):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return None
    return cast("Mapping[str, Any]", body) if isinstance(body, Mapping) else None


def _limits(source: Mapping[str, Any], keys: tuple[str, ...]) -> list[int | None]:
    """The limits that a request's arguments or body give under some keys; None for each that is no limit."""
    places = [source, *(_mapping(source.get(name)) for name in NESTED_LIMITS)]
    return [_whole(place[key]) for place in places for key in keys if key in place]


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return None
    return math.ceil(value)


def _answers(source: Mapping[str, Any]) -> int:
    given = [source[key] for key in _ANSWERS if source.get(key) is not None]
    return max((_whole(value) or MOST_ANSWERS for value in given), default=1)


def _tier(source: Mapping[str, Any]) -> object:
    """The service tier asked for; None: the default, or one that costs no more."""
    for key in ("serviceTier", "service_tier", "speed"):
        asked = source.get(key)
        tier = _mapping(asked).get("type") if isinstance(asked, Mapping) else asked
        if tier not in (None, "default", "flex", "reserved", "auto", "standard", "standard_only"):
            return tier
    return None


def _latency(request: Mapping[str, Any]) -> object:
    """The latency asked for; None: standard."""
    given = request.get("performanceConfig") or request.get("performanceConfigLatency")
    latency = _mapping(given).get("latency") if isinstance(given, Mapping) else given
    return None if latency == "standard" else latency

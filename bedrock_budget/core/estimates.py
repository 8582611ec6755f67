"""Usage where the response does not say it: estimated from what is known, marked, and never below what was seen.

Bounds, by what is known:

- the answer was seen (a stream that ended early, a response without usage): output is its bytes / 3, rounded up, and
  at least what the response had counted by then;
- nothing of the answer was seen (a read timeout, a connection lost after sending): the service may have generated and
  billed all of it, so output is the request's own limit (at most 200,000 tokens: no model gives more), else 4,096;
- input is what the response counted; else the request's text in bytes / 3, and 1,600 tokens for each image or
  document (the most that one image of the common size limits counts for).

3 bytes a token is on the dear side of natural language and code, where tokens have 3.5 to 4.5 bytes.
"""

from collections.abc import Mapping
from typing import Any, cast

from .usage import Counts, Usage

BYTES_PER_TOKEN = 3
ATTACHMENT_TOKENS = 1_600
UNSEEN_OUTPUT_TOKENS = 4_096
MOST_OUTPUT_TOKENS = 200_000

_ATTACHMENT_KEYS = ("bytes", "data")
#: What families call the most output tokens of an answer.
LIMIT_KEYS = (
    "maxTokens",
    "max_tokens",
    "max_new_tokens",
    "max_gen_len",
    "max_tokens_to_sample",
    "maxTokenCount",
    "max_completion_tokens",
)
#: Where else a limit may stand than beside the other arguments.
NESTED_LIMITS = ("inferenceConfig", "textGenerationConfig", "inference_config")


def tokens_in(text_bytes: int) -> int:
    """An estimate of the tokens in so many bytes of text."""
    return -(-text_bytes // BYTES_PER_TOKEN)


def request_tokens(request: object) -> int:
    """An estimate of the input tokens of a request's arguments or parsed body."""
    text, attachments = _measure(request, "")
    return tokens_in(text) + attachments * ATTACHMENT_TOKENS


def text_bytes(answer: object) -> int:
    """The bytes of text in an answer, or in a part of one."""
    return _measure(answer, "")[0]


def _measure(value: object, key: str) -> tuple[int, int]:
    """(bytes of text, number of attachments) below a value."""
    if isinstance(value, str):
        return (0, 1) if key in _ATTACHMENT_KEYS else (len(value.encode(errors="surrogatepass")), 0)
    if isinstance(value, bytes | bytearray):
        return 0, 1
    children: list[tuple[str, object]] = []
    if isinstance(value, Mapping):
        children = [(str(name), child) for name, child in cast(Mapping[Any, object], value).items()]
    elif isinstance(value, list | tuple):
        children = [(key, child) for child in cast("list[object]", value)]
    sizes = [_measure(child, name) for name, child in children]
    return sum(text for text, _ in sizes), sum(attachments for _, attachments in sizes)


def output_limit(request: object) -> int | None:
    """The most output tokens that a request's arguments or parsed body allow; None if they do not say."""
    if not isinstance(request, Mapping):
        return None
    source = cast(Mapping[str, object], request)
    for key in LIMIT_KEYS:
        limit = source.get(key)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0:
            return limit
    for key in NESTED_LIMITS:
        if (limit := output_limit(source.get(key))) is not None:
            return limit
    return None


def estimate(request: object, *, seen: Counts, answer_bytes: int | None) -> Usage:
    """Usage of a call whose response did not say it.

    ``seen``: what parts of the response had counted. ``answer_bytes``: bytes of the answer's text that were seen;
    None if none of the answer could be seen.
    """
    if answer_bytes is None:
        limit = output_limit(request)
        output = UNSEEN_OUTPUT_TOKENS if limit is None else min(limit, MOST_OUTPUT_TOKENS)
    else:
        output = tokens_in(answer_bytes)
    known = seen.over(
        Counts(input_tokens=max(request_tokens(request), 1) if seen.input_tokens is None else None)
    ).usage()
    assert known is not None
    return known._replace(output_tokens=max(known.output_tokens, output))

"""How a `LocalBedrock` answers: values that may be changed while it runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ..core.usage import Usage
from .exchange import RawReply, Request, input_tokens, output_limit

_WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "it", "rains"]


@dataclass(eq=False, kw_only=True)
class Settings:
    """Each request reads these once, when it arrives; assigning a field is safe from any thread.

    - ``latency_secs``: seconds before a reply. ``event_latency_secs``: seconds between two events of a stream.
    - ``stream_events``: how many text deltas a stream has.
    - ``output_tokens``: output tokens of a reply, and the number of words of the default text. A request's own
      limit on its output (``maxTokens`` and its kin) caps the tokens.
    - ``usage``: tokens of each reply: None (input from the request: one token for 4 bytes of text, at least one; output
      as above), a `Usage`, or a callable of the request. Called in the server's thread, so it must not block.
    - ``text``: the text of each reply; None: made up.
    - ``inference_profiles``: what ``GetInferenceProfile`` says: the models (ids or ARNs) of each profile, by the ARN or
      id that it is asked for. ``prompt_routers``: the same of ``GetPromptRouter``; Converse with such an ARN says that
      the first of its models was invoked. The ``bedrock`` client of these operations takes the same endpoint URL.
    - ``on_request``: called with each request, in the server's thread; the `RawReply` it returns is served, and
      None leaves the request to the rest.
    """

    latency_secs: float = 0.0
    event_latency_secs: float = 0.0
    stream_events: int = 20
    output_tokens: int = 20
    usage: Usage | Callable[[Request], Usage] | None = None
    text: str | None = None
    inference_profiles: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    prompt_routers: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    on_request: Callable[[Request], RawReply | None] | None = None

    def usage_of(self, request: Request) -> Usage:
        """The tokens of the reply to ``request``."""
        usage = self.usage
        if usage is None:
            limit = output_limit(request.body)
            output = self.output_tokens if limit is None else min(self.output_tokens, limit)
            return Usage(input_tokens(request.body), output)
        return usage if isinstance(usage, Usage) else usage(request)

    def reply_text(self) -> str:
        """The text of a reply."""
        text = self.text
        if text is not None:
            return text
        return " ".join(_WORDS[i % len(_WORDS)] for i in range(self.output_tokens))

    def update(self, values: Mapping[str, object]) -> None:
        """Take over settings that came as JSON: all or, with a ValueError that names the culprit, none."""
        checked = {name: _checked(name, value) for name, value in values.items()}
        for name, value in checked.items():
            setattr(self, name, value)


def _checked(name: str, value: object) -> Any:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if name in ("latency_secs", "event_latency_secs"):
        if is_count or (isinstance(value, float) and 0 <= value < float("inf")):
            return value
        raise ValueError(f"{name} is a number of seconds >= 0, got {value!r}")
    if name in ("stream_events", "output_tokens"):
        if is_count:
            return value
        raise ValueError(f"{name} is a whole number >= 0, got {value!r}")
    if name == "text":
        if value is None or isinstance(value, str):
            return value
        raise ValueError(f"text is a string or null, got {value!r}")
    if name in ("inference_profiles", "prompt_routers"):
        if isinstance(value, dict):
            models = cast(dict[str, object], value)
            if all(isinstance(each, list) for each in models.values()):
                return models
        raise ValueError(f"{name} is an object with a list of models for each ARN, got {value!r}")
    if name == "usage":
        return None if value is None else _usage_from_json(value)
    raise ValueError(
        f"unknown setting {name!r}; known: latency_secs, event_latency_secs, stream_events, output_tokens, usage, "
        "text, inference_profiles, prompt_routers"
    )


def _usage_from_json(value: object) -> Usage:
    if isinstance(value, dict):
        counts = cast(dict[str, object], value)
        if all(isinstance(count, int) and count >= 0 for count in counts.values()) and counts.keys() <= {
            *Usage._fields
        }:
            return Usage(**cast(dict[str, int], counts))
    raise ValueError(f"usage is null or an object of whole numbers, keys {', '.join(Usage._fields)}; got {value!r}")

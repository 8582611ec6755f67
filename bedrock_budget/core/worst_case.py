"""The most that one call can cost: bounds of its request at the dearest rates that could apply to it.

Input is bounded by the request's text, or where it has other content by the model's context window; output by the
request's limit, else by the model's. No more than this is held before a call, and no usage that the service can report
for the request costs more.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .model_ids import parse_model_id, request_format
from .pricing import NEVER, Price
from .request_bounds import UNREADABLE, RequestBounds, plain_bounds, request_bounds
from .served import DEFAULT, Served

#: The window of a model whose window is not known: more than any in the price table but one (Llama 4 Scout).
UNKNOWN_WINDOW_TOKENS = 2_000_000
#: The output of a model whose most is not known: as much as any model in the price table gives.
UNKNOWN_OUTPUT_TOKENS = 524_288
#: The window that requests may ask for with Anthropic's beta header ``context-1m``.
LONG_WINDOW_TOKENS = 1_000_000
#: Tokens are listed in round thousands where models may have 1,024s: 128,000 for 131,072, 1,000,000 for 1,048,576.
LISTED_PCT = 105
#: Listed windows below this one are believed to be this: short ones are those that lists get wrong (of old models, and
#: of ones whose host extends them), and there is little to gain from them.
SHORT_WINDOW_TOKENS = 131_072
#: The same of the most output: of models whose makers publish it, and of open-weight ones, where lists have stand-ins.
SHORT_OUTPUT_TOKENS = 32_768
OPEN_OUTPUT_TOKENS = 131_072
#: The priority tier costs 1.75 times the default, 1.83 at most; this where a model's factor is not listed.
PRIORITY_PCT = 200
#: Latency-optimised inference costs 1.25 times the standard one wherever a price is published; no list has it all.
LATENCY_PCT = 200
#: A tier that is none known here: the dearest one listed for any model costs 6 times the default.
UNKNOWN_TIER_PCT = 600

#: Models that write to a cache where a request has a marker, or never. Others may do so unasked (OpenAI's do).
_CACHES_BY_MARKER = ("anthropic.", "meta.", "mistral.", "cohere.", "ai21.")
_PUBLISHED = ("amazon.", "anthropic.", "meta.", "cohere.", "ai21.")


class Limits(NamedTuple):
    """What is listed of a model beside its plain price. None: not known. Percentages are of the plain price."""

    context_window_tokens: int | None = None
    max_output_tokens: int | None = None  # 0: an embedding model
    long_context_above_tokens: int | None = None  # input tokens, cached ones included
    long_context_input_pct: int = 100
    long_context_output_pct: int = 100
    priority_pct: int = PRIORITY_PCT


class WorstCase:
    """The worst case of the calls of one model at one price. Made once; `pico_usd` is asked before every call."""

    __slots__ = (
        "_base_rate",
        "_embeds",
        "_format",
        "_limits",
        "_long_above",
        "_longest",
        "_output",
        "_price",
        "_unseen_prompt",
        "_window",
        "_writes_unasked",
    )

    def __init__(
        self,
        model_id: str,
        price: Price,
        limits: Limits | None = None,
        *,
        context_window_tokens: int | None = None,
        max_output_tokens: int | None = None,
    ) -> None:
        """``limits``: what the price table lists. The two numbers are configured by hand, and win over it."""
        listed = limits or Limits()
        base = parse_model_id(model_id).base
        self._price = price
        self._limits = listed
        self._format = request_format(model_id)
        self._embeds = listed.max_output_tokens == 0 and max_output_tokens is None
        self._unseen_prompt = ":prompt/" in model_id
        self._writes_unasked = base is None or not base.startswith(_CACHES_BY_MARKER)
        self._base_rate = self._rate(price, writes=False, writes_1h=False)
        self._window, self._longest = self._windows(listed.context_window_tokens, context_window_tokens)
        self._output = max_output_tokens or _most_output(base or "", listed.max_output_tokens)
        # A window that ends at the threshold never crosses it, whatever the margin.
        above, window = listed.long_context_above_tokens, context_window_tokens or listed.context_window_tokens
        if price.long_above != NEVER:
            above = price.long_above if above is None else min(above, price.long_above)
        self._long_above = None if above is None or (window is not None and window <= above) else above

    def _windows(self, listed: int | None, by_hand: int | None) -> tuple[int | None, int]:
        """The context window, None if it is not known, and the one that can be asked for."""
        if by_hand is not None:
            return by_hand, max(by_hand, LONG_WINDOW_TOKENS)
        if listed is None:
            return None, UNKNOWN_WINDOW_TOKENS
        window = (listed if self._embeds else max(listed, SHORT_WINDOW_TOKENS)) * LISTED_PCT // 100
        return window, max(window, LONG_WINDOW_TOKENS)

    def pico_usd(self, request: Mapping[str, Any]) -> int:
        """The most that a call with these arguments can cost, in pico-USD. Never raises for what a request holds.

        ``request``: the arguments of ``converse`` or ``invoke_model`` (whose ``body`` is a mapping, text or bytes).
        """
        try:
            if not self._unseen_prompt and (plain := plain_bounds(request)) is not None:
                tokens, output = plain
                if self._window is not None and tokens > self._window and not self._embeds:
                    tokens = self._window
                if self._long_above is None or tokens <= self._long_above:
                    most = self._output_tokens(self._output if output is None else output, 1)
                    return tokens * self._base_rate + most * self._price.output
            bounds = request_bounds(request, self._format)
        except Exception:  # an odd object, which cannot be sent either
            bounds = UNREADABLE
        return self._general(bounds)

    def _general(self, bounds: RequestBounds) -> int:
        limits = self._limits
        tokens = self._input_tokens(bounds)
        output = self._output if bounds.output_tokens is None else bounds.output_tokens
        if bounds.interleaved:
            output = max(output, self._most_input(bounds))
        output = self._output_tokens(output, bounds.answers)
        asked = Served(str(bounds.tier or DEFAULT.tier), str(bounds.latency or DEFAULT.latency))
        # As listed, for this very request; and by the dearest surcharges that are listed of the model anywhere.
        reach = tokens if bounds.long_window or self._long_above is not None else min(tokens, self._price.long_above)
        dearest = self._price.dearest(asked, reach)
        writes = {"writes": bounds.writes_cache, "writes_1h": bounds.writes_cache_1h}
        listed = tokens * self._rate(dearest, **writes) + output * dearest.output
        rate = self._rate(self._price, **writes)
        above = limits.long_context_above_tokens if bounds.long_window else self._long_above
        input_pct = output_pct = 100
        if above is not None and tokens > above:
            input_pct, output_pct = limits.long_context_input_pct, limits.long_context_output_pct
        cost = tokens * rate * input_pct + output * self._price.output * output_pct
        pct = 100
        if bounds.tier is not None:
            pct = limits.priority_pct if bounds.tier == "priority" else max(UNKNOWN_TIER_PCT, limits.priority_pct)
        if bounds.latency is not None:
            pct = pct * LATENCY_PCT // 100
        return max(listed, -(-cost * pct // 10_000))

    def _rate(self, price: Price, *, writes: bool, writes_1h: bool) -> int:
        """The dearest that a token of input can cost. Reads of a cache are never asked for."""
        rate = max(price.input, price.cache_read)
        if writes or self._writes_unasked:
            rate = max(rate, price.cache_write_5m)
        return max(rate, price.cache_write_1h) if writes_1h else rate

    def _input_tokens(self, bounds: RequestBounds) -> int:
        tokens, others = bounds.text_tokens, bounds.others + self._unseen_prompt
        if self._embeds:  # each of the texts and media of an embedding request has the window to itself
            return tokens + others * (self._window or UNKNOWN_WINDOW_TOKENS)
        if self._window is None:
            return tokens + UNKNOWN_WINDOW_TOKENS if others else tokens
        most = self._most_input(bounds)
        return most if others else min(tokens, most)

    def _most_input(self, bounds: RequestBounds) -> int:
        """The tokens that fit into the window the request asks for."""
        return self._longest if self._window is None or bounds.long_window else self._window

    def _output_tokens(self, each: int, answers: int) -> int:
        """All answers together, of ``each`` at most; one answer is never more than the window."""
        if self._embeds:
            return 0
        if self._window is not None and each > self._longest:
            each = max(self._longest, self._output)
        return each * answers


class WorstOf:
    """The worst case of calls to one of several models, whichever it turns out to be."""

    __slots__ = ("_cases",)

    def __init__(self, cases: Iterable[WorstCase]) -> None:
        self._cases = tuple(cases)

    def pico_usd(self, request: Mapping[str, Any]) -> int:
        """As `WorstCase.pico_usd`."""
        return max(case.pico_usd(request) for case in self._cases)


def _most_output(base: str, listed: int | None) -> int:
    """The most output of one answer where the request sets no limit."""
    if listed is None:
        return UNKNOWN_OUTPUT_TOKENS
    least = SHORT_OUTPUT_TOKENS if base.startswith(_PUBLISHED) else OPEN_OUTPUT_TOKENS
    return max(listed, least) * LISTED_PCT // 100

"""genai-prices as a second opinion on LiteLLM's prices: where the two disagree, which is taken, and why.

Its data is Python source, which is read, never run: ``genai_prices/data.py`` of its wheel.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple, cast

from ..core.price_facts import PriceFact
from .litellm_map import pico_usd

GENAI = "genai-prices"
BARE = "LiteLLM lists the global price under the bare id; in-region costs what the us. profile does, 1.10 x that"
SUPPLEMENT = "corrected by hand in supplement.json"
ONE_REGION = "genai-prices has one price for all regional profiles; LiteLLM's is of this one"
NO_LONG = "genai-prices has no price of long prompts"
NO_REASON = "no reason is known"

_KINDS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
}
#: Kind and threshold -> pico-USD a token.
Rates = dict[tuple[str, int], int]


class Opinion(NamedTuple):
    """One model of genai-prices: what ids it is for, and its prices on a day."""

    model_id: str
    match: Any
    rates: Rates


class Disagreement(NamedTuple):
    """One price on which the two do not agree. ``taken``: what the table has."""

    model_id: str
    kind: str
    above_tokens: int
    litellm: int
    genai: int
    taken: int | None
    reason: str

    def __str__(self) -> str:
        above = f" above {self.above_tokens} tokens" if self.above_tokens else ""
        figures = f"LiteLLM {self.litellm}, genai-prices {self.genai}, taken {self.taken}"
        return f"{self.model_id} {self.kind}{above}: {figures}: {self.reason}"


def opinions(source: str, on: date) -> list[Opinion]:
    """Its models of Bedrock, in its order, with the prices of the day ``on``. Raises ValueError for other source."""
    tree = ast.parse(source)
    lists = [node.value for node in tree.body if isinstance(node, ast.AnnAssign)]
    for provider in (element for node in lists if isinstance(node, ast.List) for element in node.elts):
        if isinstance(provider, ast.Call):
            fields = {word.arg: word.value for word in provider.keywords}
            if "id" in fields and _value(fields["id"]) == "aws":
                return [_opinion(model, on) for model in _value(fields["models"])]
    raise ValueError("genai-prices: there is no provider aws in this source")


def opinion_on(model_id: str, among: Iterable[Opinion]) -> Opinion | None:
    """The model that genai-prices takes an id for: the first that matches."""
    return next((one for one in among if _matches(one.match, model_id)), None)


def disagreements(
    model_id: str,
    facts: Iterable[PriceFact],
    opinion: Opinion,
    taken: Mapping[tuple[str, int], PriceFact],
    known_reasons: Mapping[str, str],
) -> Iterator[Disagreement]:
    """Where LiteLLM's prices of one id (``facts``) and genai-prices' are not the same; ``taken``: the table's own."""
    ours = {(fact.kind, fact.above_tokens): fact for fact in facts if fact.tier == "default"}
    for kind, above in sorted({*ours, *opinion.rates}):
        one, other = ours.get((kind, above)) or ours.get((kind, 0)), _rate(opinion.rates, kind, above)
        if one is None or other is None or one.pico_usd == other:
            continue
        used = taken.get((kind, above)) or taken.get((kind, 0))
        reason = known_reasons.get(model_id) or _reason(one, opinion, kind, above, used)
        yield Disagreement(model_id, kind, above, one.pico_usd, other, None if used is None else used.pico_usd, reason)


def _reason(fact: PriceFact, opinion: Opinion, kind: str, above: int, used: PriceFact | None) -> str:
    if used is not None and used.source != fact.source:
        return SUPPLEMENT
    if used is not None and fact.profile is None and used.pico_usd * 10 == fact.pico_usd * 11:
        return BARE
    if above and (kind, above) not in opinion.rates:
        return NO_LONG
    own = opinion.model_id.partition(".")[0]
    if fact.profile not in (None, "us", "global") and own != fact.profile:
        return ONE_REGION
    return NO_REASON


def _rate(rates: Rates, kind: str, above: int) -> int | None:
    return rates.get((kind, above), rates.get((kind, 0)))


def _opinion(model: Any, on: date) -> Opinion:
    fields = model[2]
    prices: Any = fields["prices"]
    if isinstance(prices, list):
        conditions = [_fields(one) for one in cast("list[object]", prices)]
        prices = [condition["prices"] for condition in conditions if _in_force(condition, on)][-1]
    rates: Rates = {}
    for name, price in _fields(prices).items():
        kind = _KINDS.get(name)
        if kind is None:
            continue
        if isinstance(price, Decimal):
            rates[kind, 0] = _pico(price)
        else:
            tiers = _fields(price)
            rates[kind, 0] = _pico(tiers["base"])
            for tier in tiers["tiers"]:
                rates[kind, _fields(tier)["start"]] = _pico(_fields(tier)["price"])
    return Opinion(fields["id"], fields["match"], rates)


def _pico(usd_per_million: Decimal) -> int:
    return pico_usd(usd_per_million.scaleb(-6))


def _in_force(condition: Mapping[str, Any], on: date) -> bool:
    constraint = condition.get("constraint")
    if constraint is None:
        return True
    return constraint[0] == "StartDateConstraint" and bool(_fields(constraint)["start_date"] <= on)


def _fields(made: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", made[2])


def _value(node: ast.AST) -> Any:
    """What an expression of the data stands for; a call of a class of its own is (name, arguments, keywords)."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else cast(ast.Name, node.func).id
        arguments = [_value(argument) for argument in node.args]
        if name == "Decimal":
            return Decimal(arguments[0])
        if name == "date":
            return date(*arguments)
        return name, arguments, {word.arg: _value(word.value) for word in node.keywords}
    raise ValueError(f"genai-prices: line {getattr(node, 'lineno', '?')} is not data that is known here")


def _matches(clause: Any, text: str) -> bool:
    name, _, fields = clause
    if name in ("ClauseOr", "ClauseAnd"):
        every = all if name == "ClauseAnd" else any
        return every(_matches(part, text) for part in fields["or_" if name == "ClauseOr" else "and_"])
    [wanted] = fields.values()
    found: dict[str, bool] = {
        "ClauseContains": wanted in text,
        "ClauseEquals": text == wanted,
        "ClauseStartsWith": text.startswith(wanted),
        "ClauseEndsWith": text.endswith(wanted),
        "ClauseRegex": name == "ClauseRegex" and re.search(wanted, text) is not None,
    }
    return found[name]

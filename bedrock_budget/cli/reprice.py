"""``bedrock-budget prices reprice``: what past usage would cost at other prices."""

import argparse
import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from ..clock import Clock
from ..core.account import ZERO, Amounts
from ..core.budget import ModelLabel
from ..core.errors import ConfigError
from ..core.keys import UsageKey
from ..core.money import micros_half_up
from ..core.pricing import Price, cost_pico_usd
from .exits import DONE
from .options import AddParser, add_command, add_scope, note, opened
from .priced import add_region, amount, day_of, known_prices, region_of
from .table_text import aligned

if TYPE_CHECKING:
    from ..prices.resolution import KnownPrices
    from .orgs import Orgs

_DESCRIPTION = """\
What the usage of past days would cost at the prices known now: those of each day, or of one day (--at), or of other
models (--as). From the tokens that are stored by scope, label and day, so it takes every call for one at the default
tier, without the surcharges of long prompts, for the model that the label stands for now. Changes nothing."""

CAVEAT = (
    "by tokens alone: priority, flex, batch, latency and long-context prices, prices by the unit, estimates, and what "
    "a label stood for on those days are not known"
)
_MOST_DAYS = 400
_DAYS_AT_ONCE = 50


class Repriced(NamedTuple):
    """A label of a scope over the days asked for. ``repriced_pico_usd`` None: no price is known."""

    scope: str
    label: str
    model_id: str
    amounts: Amounts
    repriced_pico_usd: int | None


def register(add_parser: AddParser) -> None:
    """Add the command."""
    parser = add_command(add_parser, "reprice", run, summary="past usage at other prices", description=_DESCRIPTION)
    parser.add_argument("--from", dest="first", metavar="DATE", type=day_of, required=True, help="the first org day")
    parser.add_argument("--to", dest="last", metavar="DATE", type=day_of, required=True, help="the last org day")
    parser.add_argument("--at", metavar="DATE", type=day_of, help="at the prices of this day (default: of each day)")
    parser.add_argument(
        "--as",
        dest="instead",
        metavar="LABEL=MODEL",
        action="append",
        default=[],
        type=_instead,
        help="price a label as this model id, may be repeated",
    )
    add_scope(parser, org_required=False, app_help="only this app (default: every app that is listed)")
    add_region(parser, "where the calls were made (default: the region that boto3 finds)")


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Price the days again."""
    if args.first > args.last:
        raise ConfigError(f"--from {args.first} is after --to {args.last}")
    count = (args.last - args.first).days + 1
    if count > _MOST_DAYS:
        raise ConfigError(f"--from {args.first} --to {args.last}: {count} days, at most {_MOST_DAYS} at a time")
    days = [args.first + timedelta(days=number) for number in range(count)]
    with opened(args, clock, looking_only=True) as orgs:
        rows = list(_repriced(orgs, args, days, region_of(args.region)))
    used = [row for row in rows if row.amounts != ZERO]
    unknown = sum(row.repriced_pico_usd is None for row in used)
    spent = sum(row.amounts.cost_pico_usd for row in used)
    again = sum(row.repriced_pico_usd or 0 for row in used)
    note(CAVEAT)
    if args.json:
        shown = {
            "from": args.first.isoformat(),
            "to": args.last.isoformat(),
            "labels": [_as_json(row) for row in used],
            "spend_usd_micros": micros_half_up(spent),
            "repriced_usd_micros": None if unknown else micros_half_up(again),
        }
        print(json.dumps(shown, indent=2))
        return DONE
    if not used:
        print(f"No usage from {args.first} to {args.last}.")
        return DONE
    lines = [("SCOPE", "LABEL", "PRICED AS", "REQUESTS", "SPENT", "REPRICED", "DIFFERENCE"), *map(_cells, used)]
    if not unknown:
        lines.append(("all", "", "", "", amount(spent), amount(again), _signed(again - spent)))
    print("\n".join(aligned(lines, left=(0, 1, 2))))
    if unknown:
        print(f"{unknown} labels have no known price: see bedrock-budget prices check")
    return DONE


def _repriced(orgs: "Orgs", args: argparse.Namespace, days: list[date], region: str | None) -> Iterator[Repriced]:
    org_ids = [args.org] if args.org is not None else orgs.org_ids()
    if args.app is not None and len(org_ids) > 1:
        raise ConfigError(f"--app: of which org? Add --org ORG (listed: {', '.join(org_ids)})")
    instead = dict(args.instead)
    seen: set[str] = set()
    for org_id in org_ids:
        app_ids: list[str | None] = [args.app] if args.app is not None else [*orgs.app_ids(org_id)]
        for app_id in app_ids or [None]:
            budget = orgs.budget_of_org(org_id) if app_id is None else orgs.budget(org_id, app_id)
            if budget.scope in seen:
                continue
            seen.add(budget.scope)
            model_ids = [instead.get(name, label.model_id) for name, label in budget.labels.items()]
            known = known_prices(orgs.store, model_ids, [region], orgs.clock.now())
            for name, label in budget.labels.items():
                model_id = instead.get(name, label.model_id)
                priced = label if name not in instead else ModelLabel(name, model_id)
                amounts, cost = ZERO, 0
                missing = False
                for day, used in _usage(orgs, budget.scope, name, days, budget.shard_count):
                    price = _price(known, priced, region, args.at or day)
                    amounts = amounts.plus(used)
                    missing = missing or price is None
                    cost += 0 if price is None else cost_pico_usd(used.usage, price)
                yield Repriced(budget.scope, name, model_id, amounts, None if missing else cost)


def _usage(orgs: "Orgs", scope: str, label: str, days: list[date], shard_count: int) -> Iterator[tuple[date, Amounts]]:
    for start in range(0, len(days), _DAYS_AT_ONCE):
        keys = {UsageKey(scope, label, f"{day:%Y%m%d}"): day for day in days[start : start + _DAYS_AT_ONCE]}
        for key, found in orgs.store.read_shards(dict.fromkeys(keys, shard_count)).items():
            if found.amounts != ZERO:
                yield keys[key], found.amounts


def _price(known: "KnownPrices", label: ModelLabel, region: str | None, on: date) -> Price | None:
    found = known.find(label.model_id, region=region, on=on)
    listed = None if found is None else found.price
    return listed if label.price is None else label.price.over(listed)


def _cells(row: Repriced) -> tuple[str, ...]:
    again = row.repriced_pico_usd
    spent = row.amounts.cost_pico_usd
    figures = ("no price", "") if again is None else (amount(again), _signed(again - spent))
    return (row.scope, row.label, row.model_id, f"{row.amounts.requests:,}", amount(spent), *figures)


def _signed(pico_usd: int) -> str:
    return ("+" if micros_half_up(abs(pico_usd)) and pico_usd > 0 else "") + amount(pico_usd)


def _as_json(row: Repriced) -> dict[str, object]:
    again = row.repriced_pico_usd
    return {
        "scope": row.scope,
        "label": row.label,
        "model_id": row.model_id,
        "requests": row.amounts.requests,
        **row.amounts.usage._asdict(),
        "spend_usd_micros": micros_half_up(row.amounts.cost_pico_usd),
        "repriced_usd_micros": None if again is None else micros_half_up(again),
    }


def _instead(text: str) -> tuple[str, str]:
    label, mark, model_id = text.partition("=")
    if not (label and mark and model_id):
        raise argparse.ArgumentTypeError(f"must be LABEL=MODEL, got {text!r}")
    return label, model_id

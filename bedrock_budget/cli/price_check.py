"""``bedrock-budget prices check``: which configured labels have no price, or one that is not fetched any more."""

import argparse
import json
from datetime import UTC
from typing import Any

from ..clock import Clock
from ..core.model_ids import parse_model_id
from .exits import DONE, FAILED
from .options import AddParser, add_command, identifier, opened
from .priced import FETCH, STALE_AFTER, add_region, age_of, known_prices, labels_used, region_of
from .table_text import span

_DESCRIPTION = f"""\
Which labels of the configuration have no price in a region, or one that was fetched more than
{int(STALE_AFTER.total_seconds() // 3600)} hours ago. Ends with exit code 1 if there are any, and says what to do."""


def register(add_parser: AddParser) -> None:
    """Add the command."""
    parser = add_command(add_parser, "check", run, summary="labels without a good price", description=_DESCRIPTION)
    parser.add_argument("--org", metavar="ORG", type=identifier, help="only this org (default: all that are listed)")
    add_region(parser, "where the calls are made (default: the region that boto3 finds)")


def remedy(model_id: str) -> str:
    """What to do about a model without a price."""
    by_hand = "write input_price_usd_micros_per_1m and output_price_usd_micros_per_1m beside the label's id"
    if parse_model_id(model_id).base is None:
        return f"The id does not say which model it is: {by_hand}."
    return f"Fetch prices ({FETCH}), or {by_hand}."


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Check every label."""
    now, region = clock.now(), region_of(args.region)
    on = now.astimezone(UTC).date()
    problems: list[dict[str, Any]] = []
    origins: dict[str, int] = {}
    with opened(args, clock, looking_only=True) as orgs:
        used = list(labels_used(orgs, args.org))
        known = known_prices(orgs.store, [each.label.model_id for each in used], [region], now)
    for org_id, app_id, label in used:
        found = known.find(label.model_id, region=region, on=on)
        age = None if found is None else age_of(found, now)
        if label.price is not None:
            origins["configured"] = origins.get("configured", 0) + 1
            continue
        if found is not None and (age is None or age <= STALE_AFTER):
            where = "bundled" if found.cached is None else "fetched"
            origins[where] = origins.get(where, 0) + 1
            continue
        problem = {"org_id": org_id, "app_id": app_id, "label": label.label, "model_id": label.model_id}
        if found is None:
            problems.append({**problem, "region": region, "problem": "no price", "fix": remedy(label.model_id)})
        elif age is not None:
            text = f"Fetch prices ({FETCH}), and have an aggregator do it (--refresh-prices)."
            problems.append({**problem, "region": region, "problem": f"fetched {span(age)} ago", "fix": text})
    if args.json:
        print(json.dumps({"labels": len(used), "region": region, "problems": problems}, indent=2))
        return FAILED if problems else DONE
    for each in problems:
        print(
            f"{each['org_id']}: {each['label']} ({each['model_id']} in {each['region'] or 'no region'}): "
            f"{each['problem']}. {each['fix']}"
        )
    counts = ", ".join(f"{count} {where}" for where, count in sorted(origins.items()))
    print(f"{len(used)} labels checked, {len(problems)} without a good price" + (f"; {counts}." if counts else "."))
    return FAILED if problems else DONE

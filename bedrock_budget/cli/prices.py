"""``bedrock-budget prices``: fetch list prices, show which one counts, and what usage would cost at others."""

import argparse
import json
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any

from ..clock import Clock
from ..core.errors import StoreError
from ..core.model_ids import parse_model_id
from ..core.price_facts import PriceFact
from . import price_check, reprice
from .exits import DONE, FAILED
from .options import AddParser, add_command, add_group, note, opened
from .priced import (
    FETCH,
    KINDS,
    add_region,
    age_of,
    by_kind,
    day_of,
    known_prices,
    labels_used,
    model_id_named,
    named,
    origin,
    per_1m,
    region_of,
)
from .table_text import aligned

if TYPE_CHECKING:
    from ..price_refresh import Refreshed
    from .orgs import Orgs

_REFRESH = """\
Fetch list prices from the AWS Price List into the store, for all processes that share it, and print what has changed.
All pages are read before anything is written: what cannot be read completely changes nothing. Needs
pricing:GetProducts; with bedrock:ListFoundationModelAgreementOffers the prices of Marketplace models are taken from
their agreement offers."""

_SHOW = """\
The price of a model as calls are priced: the one fetched for the region, else for all regions, else the bundled
table's. A price written in the configuration comes before all of these. Ends with exit code 1 if none is known."""

_DIFF = """\
Where the prices that were fetched differ from the bundled table."""


def register(add_parser: AddParser) -> None:
    """Add the commands."""
    add = add_group(
        add_parser, "prices", summary="fetch, show and check list prices", description="List prices of models."
    )
    parser = add_command(add, "refresh", run_refresh, summary="fetch prices from AWS", description=_REFRESH)
    parser.add_argument(
        "--region", metavar="REGION", action="append", help="only this region, may be repeated (default: all regions)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and write nothing")
    parser = add_command(add, "show", run_show, summary="which price of a model counts", description=_SHOW)
    parser.add_argument("model", metavar="MODEL", help="a label, a model id, an inference profile's id or an ARN")
    add_region(parser, "where the calls are made (default: the region that boto3 finds)")
    parser.add_argument("--at", metavar="DATE", type=day_of, help="the price on this day (default: today)")
    parser = add_command(add, "diff", run_diff, summary="bundled against fetched prices", description=_DIFF)
    add_region(parser, "the prices fetched for this region (default: those for all regions)")
    price_check.register(add)
    reprice.register(add)


def run_refresh(args: argparse.Namespace, clock: Clock) -> int:
    """Fetch prices."""
    from ..price_refresh import refresh  # noqa: PLC0415
    from ..prices.price_list import PriceList, PriceListError  # noqa: PLC0415

    with opened(args, clock, looking_only=args.dry_run, config_needed=False) as orgs:
        try:
            done = refresh(
                orgs.store, PriceList(), clock, regions=args.region, labels=_labels(orgs), dry_run=args.dry_run
            )
        except PriceListError as exc:
            raise StoreError(f"the prices stay as they were: {exc}") from exc
    for text in done.listing.notes:
        note(text)
    if args.json:
        print(json.dumps(_refreshed(done, dry_run=args.dry_run), indent=2))
    else:
        print("\n".join(_lines(done, dry_run=args.dry_run)))
    return DONE


def _labels(orgs: "Orgs") -> dict[str, str] | None:
    """The labels to note beside prices, by base model id; None where no configuration says."""
    from ..core.errors import ConfigError  # noqa: PLC0415

    labels: dict[str, str] = {}
    try:
        for used in labels_used(orgs, None):
            base = parse_model_id(used.label.model_id).base
            if base is not None:
                labels.setdefault(base, used.label.label)
    except ConfigError:
        return None
    return labels


def _lines(done: "Refreshed", *, dry_run: bool) -> list[str]:
    listing = done.listing
    models = {row.fact.model for row in listing.rows}
    regions = {row.fact.region for row in listing.rows}
    lines = [f"Read {len(listing.rows):,} prices of {len(models)} models in {len(regions)} regions."]
    if done.new:
        lines.append(f"New prices: {len(done.new):,}")
        lines += [f"  {model}: {count:,}" for model, count in _counts(done.new).items()]
    if done.changed:
        lines.append(f"Changed prices, USD per 1M tokens: {len(done.changed):,}")
        rows = [
            (
                *(each.fact.model, each.fact.region or "", named(each.fact)),
                *(per_1m(each.before_pico_usd), "->", per_1m(each.fact.pico_usd)),
            )
            for each in done.changed
        ]
        lines += aligned(rows, left=(0, 1, 2), indent=2)
    if done.unlisted:
        lines.append(f"No longer listed, kept: {len(done.unlisted):,}")
        lines += [f"  {model}: {count:,}" for model, count in _counts(done.unlisted).items()]
    for title, left_out in (("Unmapped", listing.unmapped), ("Skipped", listing.skipped)):
        if left_out:
            lines.append(f"{title} rows: {sum(left_out.values()):,}")
            lines += [f"  {name}: {count:,}" for name, count in left_out.items()]
    if listing.differing:
        lines.append(f"Listed at several prices: {len(listing.differing):,}")
        lines += [f"  {place}" for place in listing.differing]
    if not (done.new or done.changed):
        lines.append("No price has changed.")
    verb = "Would write" if dry_run else "Wrote"
    lines.append(f"{verb} {done.written:,} items.")
    return lines


def _counts(facts: tuple[PriceFact, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for fact in facts:
        counts[fact.model] = counts.get(fact.model, 0) + 1
    return dict(sorted(counts.items()))


def _fact(fact: PriceFact) -> dict[str, Any]:
    return {**fact._asdict(), "since": fact.since.isoformat()}


def _refreshed(done: "Refreshed", *, dry_run: bool) -> dict[str, Any]:
    listing = asdict(done.listing)
    return {
        "dry_run": dry_run,
        "prices_read": len(done.listing.rows),
        "new": [_fact(fact) for fact in done.new],
        "changed": [{**_fact(each.fact), "before_pico_usd": each.before_pico_usd} for each in done.changed],
        "unlisted": [_fact(fact) for fact in done.unlisted],
        **{name: listing[name] for name in ("unmapped", "skipped", "differing", "notes")},
        "items_written": 0 if dry_run else done.written,
    }


def run_show(args: argparse.Namespace, clock: Clock) -> int:
    """Show the price of a model."""
    now, region = clock.now(), region_of(args.region)
    on = args.at or now.astimezone(UTC).date()
    with opened(args, clock, looking_only=True, config_needed=False) as orgs:
        model_id = model_id_named(orgs, args.model)
        found = known_prices(orgs.store, [model_id], [region], now).find(model_id, region=region, on=on)
    facts = [] if found is None or found.cached is None else list(found.cached.facts)
    if args.json:
        age = None if found is None else age_of(found, now)
        shown = {
            "model_id": model_id,
            "region": region,
            "at": on.isoformat(),
            "origin": None if found is None else found.origin,
            "source": None if found is None else found.source,
            "since": None if found is None else found.since.isoformat(),
            "age_secs": None if age is None else int(age.total_seconds()),
            "price": None if found is None else by_kind(found.price),
            "variants": [_fact(fact) for fact in facts],
        }
        print(json.dumps(shown, indent=2))
    elif found is None:
        print(f"No price is known of {model_id} ({region or 'no region'}, {on}). {price_check.remedy(model_id)}")
    else:
        print(f"{model_id} ({region or 'no region'}, {on}): {origin(found, now)}")
        rows = [(kind, per_1m(int(getattr(found.price, kind)))) for kind in KINDS]
        print("\n".join(aligned([("USD PER 1M TOKENS", ""), *rows], indent=2)))
        if facts:
            print("Everything that was fetched with it:")
            variants = [(named(fact), per_1m(fact.pico_usd), f"from {fact.since} on") for fact in facts]
            print("\n".join(aligned(variants, left=(0, 2), indent=2)))
    return FAILED if found is None else DONE


def run_diff(args: argparse.Namespace, clock: Clock) -> int:
    """Compare fetched prices with the bundled table."""
    from ..prices import bundled  # noqa: PLC0415
    from ..prices.price_list_names import NAMES  # noqa: PLC0415

    now = clock.now()
    on, table = now.astimezone(UTC).date(), bundled()
    models = sorted({*table.models(), *NAMES})
    with opened(args, clock, looking_only=True, config_needed=False) as orgs:
        known = known_prices(orgs.store, models, [args.region], now)
    differences: list[dict[str, Any]] = []
    compared, only_bundled = 0, 0
    for model in models:
        profiles = [None, "global", *sorted({row.profile for row in table.facts(model) if row.profile} - {"global"})]
        for model_id in [model if profile is None else f"{profile}.{model}" for profile in profiles]:
            fetched = known.find(model_id, region=args.region, on=on)
            listed = table.find(model_id, region=args.region, on=on)
            if fetched is None or fetched.cached is None:
                only_bundled += listed is not None and model_id == model
                continue
            compared += 1
            prices = (by_kind(listed.price) if listed else None, by_kind(fetched.price))
            if prices[0] != prices[1]:
                differences.append({"model_id": model_id, "bundled": prices[0], "fetched": prices[1]})
    if args.json:
        shown = {"region": args.region, "compared": compared, "only_bundled": only_bundled, "differences": differences}
        print(json.dumps(shown, indent=2))
        return DONE
    rows: list[tuple[str, ...]] = [("MODEL", "USD PER 1M TOKENS", "BUNDLED", "FETCHED")]
    for each in differences:
        for kind, fetched_price in each["fetched"].items():
            bundled_price = None if each["bundled"] is None else each["bundled"][kind]
            if bundled_price != fetched_price:
                name = kind.removesuffix("_price_usd_micros_per_1m")
                rows.append((each["model_id"], name, _cell(bundled_price), per_1m(fetched_price)))
    if differences:
        print("\n".join(aligned(rows, left=(0, 1))))
    where = args.region or "all regions"
    print(f"{compared} prices fetched for {where}, {len(differences)} differ; {only_bundled} models are only bundled.")
    if not compared:
        print(f"To fetch prices: {FETCH}")
    return DONE


def _cell(pico_usd: int | None) -> str:
    return "" if pico_usd is None else per_1m(pico_usd)

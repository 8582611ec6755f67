"""``bedrock-budget reconcile``: what was metered against what AWS says."""

import argparse
import json
from collections.abc import Iterable, Sequence
from datetime import UTC
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..clock import Clock
from ..core.budget import ScopeBudget
from ..core.days import org_day, org_day_named
from ..core.errors import ConfigError
from ..core.money import micros_half_up, usd_text
from .exits import DONE, DRIFT
from .options import AddParser, add_command, add_scope, note, opened
from .table_text import aligned, day_text

if TYPE_CHECKING:
    from ..core.keys import UsageKey
    from ..reconcile.comparison import Comparison, Row
    from ..reconcile.metered import Place
    from ..reconcile.names import ModelNames
    from ..reconcile.records import Range, Reading
    from .orgs import Orgs

_DESCRIPTION = """\
Compare what was metered, by day and model, with what AWS says: Cost Explorer, a Cost and Usage Report, or Bedrock's
model invocation logs. Prints the drift of each model and kind of token, and ends with exit code 4 if one is above the
threshold. Changes nothing."""

_HEADINGS = ("DAY", "MODEL", "LABELS", "KIND", "METERED", "BILLED", "DRIFT", "", "")


def register(add_parser: AddParser) -> None:
    """Add the command."""
    parser = add_command(
        add_parser,
        "reconcile",
        run,
        summary="compare with Cost Explorer, a cost report or invocation logs",
        description=_DESCRIPTION,
    )
    parser.add_argument("--from", dest="first", metavar="YYYYMMDD", type=_day, required=True, help="the first org day")
    parser.add_argument(
        "--to", dest="last", metavar="YYYYMMDD", type=_day, required=True, help="the last org day, included"
    )
    add_scope(parser, org_required=False, app_help="only this app (default: every app with usage)")
    source = parser.add_argument_group("what to compare with (one of them)").add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--cost-explorer", action="store_true", help="AWS Cost Explorer, by the credentials of the environment"
    )
    source.add_argument("--cur", metavar="FILE", help="a Cost and Usage Report: .csv, .csv.gz or .parquet")
    source.add_argument("--invocation-logs", metavar="PLACE", help="a folder of invocation logs, or s3://bucket/prefix")
    parser.add_argument(
        "--threshold-pct", metavar="PCT", type=_percent, default=Fraction(1), help="the drift that is allowed (1)"
    )
    parser.add_argument(
        "--alias",
        metavar="NAME=MODEL",
        type=_alias,
        action="append",
        default=[],
        help="the bill's NAME is this model id of a label; may be repeated",
    )
    parser.add_argument(
        "--known-models", action="store_true", help="leave out what is billed for models that no label stands for"
    )


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Print the comparison."""
    from ..reconcile.comparison import compare  # noqa: PLC0415
    from ..reconcile.metered import read_metered, written_keys  # noqa: PLC0415
    from ..reconcile.names import ModelNames  # noqa: PLC0415
    from ..reconcile.records import Range, model_name  # noqa: PLC0415

    if args.last < args.first:
        raise ConfigError(f"--to: {args.last} comes before --from {args.first}")
    with opened(args, clock, looking_only=True) as orgs:
        written = written_keys(orgs.store, Range.of(args.first, args.last, None))
        places = _places(orgs, args.org, args.app, written)
        budgets = _budgets(orgs, places)
        zones = {budget.timezone_name: budget.timezone for budget in budgets}
        zone_name, zone = next(iter(zones.items())) if len(zones) == 1 else ("several time zones", None)
        if set(zones) == {"UTC"}:
            zone = UTC
        days = Range.of(args.first, args.last, zone)
        if zone is not None and args.last >= org_day(clock.now(), zone).name:
            note(f"the org day {args.last} is not over yet: figures are of different moments")
        metered, notes = read_metered(orgs.store, places, written, days, orgs.budget)
    labels_of: dict[str, set[str]] = {}
    for budget in budgets:
        for label, mapped in budget.labels.items():
            labels_of.setdefault(model_name(mapped.model_id), set()).add(label)
    reading = _read(args, days, ModelNames(labels_of, dict(args.alias)))
    comparison = compare(metered, reading, days, labels_of, known_models_only=args.known_models)
    notes += [*reading.notes, *comparison.notes]
    for text in notes:
        note(text)
    above = comparison.above(args.threshold_pct)
    if args.json:
        print(json.dumps(_as_json(args, days, zone_name, reading, comparison, notes), indent=2))
    else:
        print("\n".join(_report(args, zone_name, reading, comparison)))
    return DRIFT if above else DONE


def _read(args: argparse.Namespace, days: "Range", names: "ModelNames") -> "Reading":
    from ..reconcile.cost_explorer import read_cost_explorer  # noqa: PLC0415
    from ..reconcile.cost_report import read_cost_report  # noqa: PLC0415
    from ..reconcile.invocation_logs import read_invocation_logs  # noqa: PLC0415

    if args.cost_explorer:
        return read_cost_explorer(days, names)
    if args.cur is not None:
        return read_cost_report(args.cur, days, names)
    return read_invocation_logs(args.invocation_logs, days, names)


def _places(orgs: "Orgs", org_id: str | None, app_id: str | None, written: "Iterable[UsageKey]") -> "list[Place]":
    """The orgs and apps to compare: the ones named, else those with usage and those that are listed. Raises
    ConfigError."""
    from ..reconcile.metered import Place, place_of  # noqa: PLC0415

    if app_id is not None:
        if org_id is None:
            raise ConfigError("--app: of which org? Add --org ORG")
        return [Place(org_id, app_id)]
    found = {place for key in written if (place := place_of(key.scope)) and org_id in (None, place.org_id)}
    for each in {*(place.org_id for place in found), *([] if org_id is None else [org_id])}:
        found |= {Place(each, app) for app in orgs.app_ids(each)}
    if not found:
        whose = "any org" if org_id is None else f"org {org_id!r}"
        raise ConfigError(
            f"nothing was metered for {whose} on these days in the store; check --store, --from and --to, or name an "
            "app with --org and --app"
        )
    return sorted(found, key=lambda place: (place.org_id, place.app_id or ""))


def _budgets(orgs: "Orgs", places: "Sequence[Place]") -> list[ScopeBudget]:
    """The valid budgets of these places. Raises ConfigError if none is valid."""
    budgets: list[ScopeBudget] = []
    first: ConfigError | None = None
    for place in places:
        try:
            budgets.append(orgs.budget(*place))
        except ConfigError as exc:
            first = first or exc
    if not budgets and first is not None:
        raise first
    return budgets


def _report(args: argparse.Namespace, zone_name: str, reading: "Reading", comparison: "Comparison") -> list[str]:
    span = f"{day_text(args.first)} to {day_text(args.last)}"
    lines = [f"{span} ({zone_name}), metered against {reading.source}:"]
    rows = [_cells(row, span, row.is_above(args.threshold_pct)) for row in comparison.rows]
    if rows:
        lines += aligned([_HEADINGS, *rows], left=(0, 1, 2, 3, 8), indent=2)
    allowed = f"{_pct(args.threshold_pct)} allowed"
    above = len(comparison.above(args.threshold_pct))
    if not comparison.rows:
        lines.append("  Nothing was metered, and nothing billed.")
    elif above:
        lines.append(f"  {above} of {len(rows)} figures drift by more than the {allowed}.")
    else:
        most = max(abs(row.drift_pct) for row in comparison.rows)
        lines.append(f"  No figure drifts by more than {_pct(most)}; {allowed}.")
    return lines


def _cells(row: "Row", span: str, above: bool) -> list[str]:
    is_money = row.kind == "cost"
    figures = [usd_text(each) if is_money else f"{each:,}" for each in (row.metered, row.billed, row.drift)]
    return [
        span if row.day is None else day_text(row.day),
        row.model,
        ", ".join(row.labels) or "-",
        row.kind.replace("_", " "),
        *figures,
        _pct(row.drift_pct),
        "above the threshold" if above else "",
    ]


def _pct(value: Fraction) -> str:
    return f"{float(value):,.2f} %"


def _as_json(
    args: argparse.Namespace,
    days: "Range",
    zone_name: str,
    reading: "Reading",
    comparison: "Comparison",
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "from": days.days[0],
        "to": days.days[-1],
        "timezone": zone_name if days.zone is not None else None,
        "source": reading.source,
        "by_day": comparison.by_day,
        "threshold_pct": float(args.threshold_pct),
        "above_threshold": len(comparison.above(args.threshold_pct)),
        "notes": list(notes),
        "rows": [_row_json(row, args.threshold_pct) for row in comparison.rows],
    }


def _row_json(row: "Row", threshold_pct: Fraction) -> dict[str, Any]:
    def shown(amount: int) -> int:
        if row.kind != "cost":
            return amount
        return micros_half_up(amount) if amount >= 0 else -micros_half_up(-amount)

    return {
        "org_day": row.day,
        "model": row.model,
        "labels": list(row.labels),
        "kind": "cost_usd_micros" if row.kind == "cost" else row.kind,
        "metered": shown(row.metered),
        "billed": shown(row.billed),
        "drift": shown(row.drift),
        "drift_pct": round(float(row.drift_pct), 4),
        "above_threshold": row.is_above(threshold_pct),
    }


def _day(text: str) -> str:
    try:
        return org_day_named(text, UTC).name
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _percent(text: str) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be a number of percent >= 0, such as 1 or 0.5, got {text!r}")
    return value


def _alias(text: str) -> tuple[str, str]:
    name, mark, model = text.partition("=")
    if not (name and mark and model):
        raise argparse.ArgumentTypeError(f"must be NAME=MODEL, such as 'NovaPro=amazon.nova-pro-v1:0', got {text!r}")
    return name, model

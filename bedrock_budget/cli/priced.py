"""What the commands of prices have in common: whose prices, where, and how prices are shown."""

import argparse
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from ..core.budget import ModelLabel
from ..core.budget_values import UNLISTED
from ..core.errors import ConfigError
from ..core.model_ids import parse_model_id
from ..core.money import micros_half_up
from ..core.price_facts import PriceFact
from ..core.pricing import Price
from .options import note
from .table_text import dollars, span

if TYPE_CHECKING:
    from ..prices.resolution import FoundPrice, KnownPrices
    from ..stores import Store
    from .orgs import Orgs

KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")

#: Prices are fetched once a day: older than this, something keeps them from being fetched.
STALE_AFTER = timedelta(hours=36)
FETCH = "bedrock-budget prices refresh"


class Used(NamedTuple):
    """A label that a configuration uses, and the first org and app that do."""

    org_id: str
    app_id: str | None
    label: ModelLabel


def add_region(parser: argparse.ArgumentParser, text: str) -> None:
    """``--region``, one."""
    parser.add_argument("--region", metavar="REGION", help=text)


def region_of(given: str | None) -> str | None:
    """The region of an option, else the one that boto3 finds; None if there is none."""
    import boto3.session  # noqa: PLC0415

    return given or boto3.session.Session().region_name


def day_of(text: str) -> date:
    """A date ``YYYY-MM-DD``, as the type of an option."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a date such as 2026-01-31, got {text!r}") from None


def known_prices(
    store: "Store", model_ids: Iterable[str], regions: Collection[str | None], now: datetime
) -> "KnownPrices":
    """What is known of these models: fetched for these regions or for all, over the bundled table."""
    from ..core.cached_prices import PriceKey, keys_of, last_known  # noqa: PLC0415
    from ..prices import bundled  # noqa: PLC0415
    from ..prices.resolution import KnownPrices  # noqa: PLC0415

    keys: list[PriceKey] = []
    for model_id in dict.fromkeys(model_ids):
        parsed = parse_model_id(model_id)
        if parsed.base is not None:
            keys += keys_of([parsed.base], [parsed.region, *regions, None], now.astimezone(UTC).date())
    found = store.read_prices(list(dict.fromkeys(keys)), now_epoch=now.timestamp())
    return KnownPrices(bundled(), last_known(found.values()))


def labels_used(orgs: "Orgs", org_id: str | None) -> Iterator[Used]:
    """The labels that the configuration maps, each pair of org and label once. Raises ConfigError."""
    listed = [org_id] if org_id is not None else []
    if org_id is None:
        try:
            listed = orgs.org_ids()
        except ConfigError:
            if not orgs.has_file:
                raise
            listed = [UNLISTED]  # a file of defaults alone
    for each in listed:
        seen: set[ModelLabel] = set()
        for app_id in orgs.app_ids(each) or [UNLISTED]:
            for label in orgs.budget(each, app_id).labels.values():
                if label not in seen:
                    seen.add(label)
                    yield Used(each, None if app_id == UNLISTED else app_id, label)


def model_id_named(orgs: "Orgs", name: str) -> str:
    """The model id that a name stands for: a label's, or the name itself."""
    try:
        return next((used.label.model_id for used in labels_used(orgs, None) if used.label.label == name), name)
    except ConfigError as exc:
        if parse_model_id(name).base is None:
            note(f"labels are not known here: {exc}")
        return name


def per_1m(pico_usd: int) -> str:
    """The price of a token, as dollars for 1,000,000: a pico-USD a token is a micro-USD for these."""
    return dollars(pico_usd)


def amount(pico_usd: int) -> str:
    """Money that was, or would be, spent."""
    micros = micros_half_up(abs(pico_usd))
    return ("-" if pico_usd < 0 and micros else "") + dollars(micros)


def named(fact: PriceFact) -> str:
    """What a price is of, beside model and region: ``global batch input``."""
    above = f"above {fact.above_tokens:,} tokens" if fact.above_tokens else ""
    tier = "" if fact.tier == "default" else fact.tier
    latency = "" if fact.latency == "standard" else fact.latency
    return " ".join(filter(None, (fact.profile, tier, latency, above, fact.kind, fact.detail)))


def origin(found: "FoundPrice", now: datetime) -> str:
    """Where a price is from, and how old it is."""
    if found.cached is None:
        return f"the bundled table, from {found.since} on"
    place = found.cached.key.region or "all regions"
    age = span(age_of(found, now) or timedelta())
    return f"fetched for {place} {age} ago, from {found.since} on ({found.source})"


def age_of(found: "FoundPrice", now: datetime) -> timedelta | None:
    """How long ago a price was fetched; None: it was not."""
    return None if found.cached is None else now - datetime.fromtimestamp(found.cached.fetched_at_epoch, UTC)


def by_kind(price: Price) -> dict[str, int]:
    """A price as JSON has it: USD micros per 1M tokens."""
    return {f"{kind}_price_usd_micros_per_1m": int(getattr(price, kind)) for kind in KINDS}

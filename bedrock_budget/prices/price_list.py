"""Reading the AWS Price List (Query API) and the agreement offers of Marketplace models.

All pages are read before anything is made of them: a page that cannot be read gives no prices at all.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from .price_list_names import MARKETPLACE_PROVIDERS, NAMES
from .price_list_rows import MARKETPLACE_CODE, NotMapped, Row, chosen, offer_row, rows_of
from .table import bundled

if TYPE_CHECKING:
    from botocore.client import BaseClient

#: None of them has all models; only the last holds Claude 3.5 and later.
SERVICE_CODES = ("AmazonBedrock", "AmazonBedrockService", MARKETPLACE_CODE)
#: Where the Query API is (eu-central-1 and ap-south-1 have it too).
HOME_REGION = "us-east-1"
_PAGE_SIZE = 100
_MOST_PAGES = 2000


class PriceListError(Exception):
    """The Price List could not be read completely, so nothing of it is used."""


@dataclass(frozen=True, slots=True)
class PriceListing:
    """What the Price List says. ``unmapped`` and ``skipped``: rows that gave no price, by name; see `price_list_rows`.
    ``differing``: what has several prices, of which one was chosen."""

    rows: tuple[Row, ...]
    unmapped: Mapping[str, int]
    skipped: Mapping[str, int]
    differing: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


class PriceList:
    """See the module's text. Clients: given, or made of the usual settings on first use."""

    def __init__(self, pricing: "BaseClient | None" = None, bedrock: "BaseClient | None" = None) -> None:
        self._pricing = pricing
        self._bedrock = bedrock

    def read(self, regions: Collection[str] | None = None) -> PriceListing:
        """All prices of these regions (None: of all). Raises PriceListError; then nothing is known."""
        rows: list[Row] = []
        unmapped: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        found: set[str] = set()
        for service_code in SERVICE_CODES:
            for region in sorted(regions) if regions is not None else [None]:
                for product in self._products(service_code, region):
                    found.add(service_code)
                    try:
                        rows += rows_of(service_code, product, _long_above)
                    except NotMapped as exc:
                        (skipped if exc.known else unmapped).update([exc.name])
                    except (KeyError, TypeError, AttributeError, ValueError) as exc:
                        raise PriceListError(f"{service_code}: not a product ({exc!r}); nothing is used") from exc
        if regions is None and (missing := {SERVICE_CODES[0], MARKETPLACE_CODE} - found):
            raise PriceListError(f"the Price List lists nothing under {', '.join(sorted(missing))}; nothing is used")
        notes: list[str] = []
        offers = list(self._offers(notes, unmapped, skipped))
        kept, differing = chosen([*rows, *(row for row in offers if regions is None or row.fact.region in regions)])
        return PriceListing(
            tuple(kept), dict(sorted(unmapped.items())), dict(sorted(skipped.items())), tuple(differing), tuple(notes)
        )

    def _products(self, service_code: str, region: str | None) -> Iterator[Mapping[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        request: dict[str, Any] = {"ServiceCode": service_code, "FormatVersion": "aws_v1", "MaxResults": _PAGE_SIZE}
        if region is not None:
            request["Filters"] = [{"Type": "TERM_MATCH", "Field": "regionCode", "Value": region}]
        tokens: set[str] = set()
        for page in range(1, _MOST_PAGES + 1):
            where = f"{service_code}, page {page}"
            try:
                self._pricing = client = self._pricing or _client("pricing")
                answer: Any = cast(Any, client).get_products(**request)
                products = [json.loads(text) for text in answer["PriceList"]]
                if not all(isinstance(product, dict) for product in products):
                    raise ValueError("not a list of products")
            except (BotoCoreError, ClientError) as exc:
                raise PriceListError(f"{where}: {_said(exc, 'pricing:GetProducts')}; nothing is used") from exc
            except (KeyError, TypeError, ValueError) as exc:
                raise PriceListError(f"{where} cannot be read ({exc!r}); nothing is used") from exc
            yield from products
            token = answer.get("NextToken")
            if not token:
                return
            if token in tokens:
                raise PriceListError(f"{where} leads back to an earlier one; nothing is used")
            tokens.add(token)
            request["NextToken"] = token
        raise PriceListError(f"{service_code} has more than {_MOST_PAGES} pages; nothing is used")

    def _offers(self, notes: list[str], unmapped: Counter[str], skipped: Counter[str]) -> Iterator[Row]:
        """The public offers of Marketplace models. They refine the Price List, so their failures are notes."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        for model in sorted(model for model in NAMES if model.startswith(MARKETPLACE_PROVIDERS)):
            try:
                self._bedrock = client = self._bedrock or _client("bedrock")
                list_offers: Any = cast(Any, client).list_foundation_model_agreement_offers
                answer = list_offers(modelId=model, offerType="PUBLIC")
                offers = answer.get("offers") or ()
                rates = [rate for offer in offers for rate in offer["termDetails"]["usageBasedPricingTerm"]["rateCard"]]
            except (BotoCoreError, ClientError, KeyError, TypeError) as exc:
                if _code(exc) in {"ResourceNotFoundException", "ValidationException"}:
                    continue  # no offer for this model
                action = "bedrock:ListFoundationModelAgreementOffers"
                notes.append(f"Marketplace models by the Price List alone: {_said(exc, action)}")
                return
            for rate in rates:
                try:
                    yield offer_row(model, rate, _long_above)
                except NotMapped as exc:
                    (skipped if exc.known else unmapped).update([f"offer of {model}: {exc.name}"])


def _long_above(model: str) -> int | None:
    limits = bundled().limits(model)
    return limits.long_context_above_tokens if limits and limits.long_context_above_tokens else None


def _code(exc: Exception) -> str:
    response: Mapping[str, Any] = getattr(exc, "response", None) or {}
    error: Mapping[str, Any] = response.get("Error") or {}
    return str(error.get("Code") or "")


def _said(exc: Exception, action: str) -> str:
    if _code(exc) in {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"}:
        return f"access denied; allow {action} in IAM"
    return f"{type(exc).__name__}: {exc}"


def _client(service: str) -> "BaseClient":
    import boto3.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    # The Query API throttles hard: botocore repeats, waiting up to 20 s between two attempts.
    config = Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 8, "mode": "standard"})
    # Any: its stubs want a package per service
    session: Any = boto3.session.Session()
    client: BaseClient = session.client(service, region_name=HOME_REGION, config=config)
    return client

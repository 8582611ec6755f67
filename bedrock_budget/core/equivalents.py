"""What an inference profile or prompt router stands for: the model ids that are priced as it is.

AWS lists the models of a profile by their ARNs, and does not say which profile it was copied from: one region means
in-region, several mean a geographic profile, an ARN without a region a global one.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from .model_ids import ModelId, parse_model_id
from .pricing import Price

#: The regions that only one narrow profile serves; profiles of more of Asia and the Pacific are ``apac``.
_NARROW: tuple[tuple[str, frozenset[str]], ...] = (
    ("jp", frozenset(("ap-northeast-1", "ap-northeast-3"))),
    ("au", frozenset(("ap-southeast-2", "ap-southeast-4"))),
    ("in", frozenset(("ap-south-1", "ap-south-2"))),
)
#: By how the names of regions begin, the first match wins. A profile of the US may be called from Canada.
_BROAD = (("us-gov-", "us-gov"), ("us-", "us"), ("eu-", "eu"), ("ap-", "apac"), ("ca-", "ca"), ("sa-", "sa"))


class Equivalent(NamedTuple):
    """The model ids that an id stands for: one for a profile, those that it chooses from for a prompt router.

    ``region``: where it is called, for the prices of regions.
    """

    model_ids: tuple[str, ...]
    region: str | None


def geographic_prefix(regions: Collection[str]) -> str | None:
    """The prefix of the profiles that send calls to these regions; None if no profile known here does."""
    for prefix, served in _NARROW:
        if served.issuperset(regions):
            return prefix
    return next((prefix for start, prefix in _BROAD if any(region.startswith(start) for region in regions)), None)


def profile_equivalent(profile: ModelId, model_arns: Iterable[str]) -> Equivalent:
    """What a profile stands for whose models AWS lists as these. Raises ValueError, saying why, where that is open."""
    models = [parse_model_id(arn) for arn in model_arns]
    bases = sorted({model.base or model.text for model in models})
    if len(bases) != 1 or models[0].base is None:
        raise ValueError(f"it lists {', '.join(bases) or 'no model'}, where one model was expected")
    regions = {model.region for model in models}
    named = sorted(region for region in regions if region)
    if None in regions:
        prefix: str | None = "global"
    elif len(regions) == 1:
        return Equivalent((bases[0],), profile.region or named[0])
    else:
        prefix = geographic_prefix(named)
    if prefix is None:
        raise ValueError(f"its regions ({', '.join(named)}) are of no geographic profile that is known here")
    return Equivalent((f"{prefix}.{bases[0]}",), profile.region)


def router_equivalent(router: ModelId, model_arns: Iterable[str]) -> Equivalent:
    """What a prompt router may send calls to. Raises ValueError where an ARN does not say its model."""
    ids = tuple(dict.fromkeys(model_arns))
    unclear = [arn for arn in ids if parse_model_id(arn).base is None]
    if unclear or not ids:
        raise ValueError(f"it lists {', '.join(unclear) or 'no model'}, where models were expected")
    return Equivalent(ids, router.region)


def dearest(prices: Iterable[Price]) -> Price:
    """The dearest of each kind: no usage costs more at one of the prices."""
    return Price(*(max(kind) for kind in zip(*(price.rates() for price in prices), strict=True)))

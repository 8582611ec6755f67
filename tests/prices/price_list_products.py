"""Products of the AWS Price List: real ones of 2026-08-26, and ones made up so that each of its pitfalls is there."""

import json
from pathlib import Path
from typing import Any

from prices.price_list_server import Product

#: Answers of the Query API, trimmed; the values are AWS's.
REAL: list[Product] = [
    json.loads(line)
    for line in Path(__file__).with_name("price_list_real.jsonl").read_text(encoding="utf-8").splitlines()
]

BEDROCK, MARKETPLACE, SERVICE = "AmazonBedrock", "AmazonBedrockFoundationModels", "AmazonBedrockService"
SINCE = "2026-01-01T00:00:00Z"

_skus = iter(range(10**6))


def product(
    price: str | dict[str, str],
    usagetype: str,
    *,
    unit: str = "1K tokens",
    region: str | None = "us-east-1",
    sku: str | None = None,
    since: str | None = SINCE,
    description: str = "",
    **attributes: str,
) -> Product:
    """A product of the Query API."""
    name = sku or f"SKU{next(_skus):06}"
    term: dict[str, Any] = {
        "priceDimensions": {
            f"{name}.T.D": {
                "unit": unit,
                "pricePerUnit": {"USD": price} if isinstance(price, str) else price,
                "description": description,
            }
        }
    }
    if since is not None:
        term["effectiveDate"] = since
    place = {} if region is None else {"regionCode": region}
    return {
        "product": {"sku": name, "attributes": {**place, "usagetype": usagetype, **attributes}},
        "terms": {"OnDemand": {f"{name}.T": term}},
    }


def nova(price: str, usagetype: str, **attributes: Any) -> Product:
    return product(price, usagetype, **{"model": "Nova Pro", "inferenceType": "Input tokens", **attributes})


def edition(price: str, usagetype: str, name: str = "Claude Haiku 4.5", **attributes: Any) -> Product:
    """A product of a Marketplace model."""
    service = f"{name} (Amazon Bedrock Edition)"
    return product(price, f"USE1-MP:{usagetype}", **{"unit": "1M tokens", "servicename": service, **attributes})


#: Real values of version 20260901183649, us-east-1.
HAIKU = [
    edition(
        "1.1000000000",
        "USE1_InputTokenCount-Units",
        sku="JQDUC8Q4K8C6GSGH",
        description="AWS Marketplace software usage|us-east-1|Million Input Tokens Regional",
    ),
    edition(
        "5.5000000000",
        "USE1_OutputTokenCount-Units",
        sku="X629GDA2GXAP6R54",
        description="AWS Marketplace software usage|us-east-1|Million Response Tokens Regional",
    ),
    edition("1.0000000000", "USE1_InputTokenCount_Global-Units", sku="DY4B4Q3TRTAY8V6G", unit="Units"),
    edition("5.0000000000", "USE1_OutputTokenCount_Global-Units", sku="XADKFYXVGBFBJSU7", unit="Units"),
    edition("0.1000000000", "USE1_CacheReadInputTokenCount_Global-Units"),
    edition("1.2500000000", "USE1_CacheWriteInputTokenCount_Global-Units"),
    edition("2.0000000000", "USE1_CacheWrite1hInputTokenCount_Global-Units"),
]
TITAN = product(
    "0.0000200000",
    "USE1-TitanEmbeddingV2-Text-input-tokens",
    servicename="Amazon Bedrock",
    titanModel="TitanEmbeddingsV2-Text-input",
    feature="On-demand Inference",
    inferenceType="Input tokens",
)

#: A small list with everything in it, by service code.
OFFER_FILE: dict[str, list[Product]] = {
    BEDROCK: [
        *REAL,
        TITAN,
        nova("0.0008000000", "USE1-NovaPro-input-tokens"),
        nova("0.0032000000", "USE1-NovaPro-output-tokens", inferenceType="Output tokens"),
        nova("0.0004000000", "USE1-NovaPro-input-tokens-batch"),
        nova("0.0004000000", "USE1-NovaPro-input-tokens-flex", service_tier="flex"),
        nova("0.0014000000", "USE1-NovaPro-input-tokens-priority", service_tier="priority"),
        nova("0.0010000000", "USE1-NovaPro-input-tokens-latency-optimized"),
        nova("0.0008000000", "USE1-NovaPro-input-tokens-custom-model"),
        nova("0.0002000000", "USE1-NovaPro-cache-read-input-token-count"),
        product("0.00015", "USE1-Guardrail-ContentPolicyUnitsConsumed", unit="TextUnit", servicename="Amazon Bedrock"),
        product("0.04", "USE1-NovaCanvas-T2I-1024-Standard", unit="image", model="Nova Canvas"),
        product("0.001", "USE1-Brandnew-input-tokens", model="Brand New 1", inferenceType="Input tokens"),
    ],
    MARKETPLACE: [
        *HAIKU,
        edition("0.3", "USE1_Reserved_1Month_InputTPM_Geo-Units", unit="1KTPMHour"),
        edition("3.3", "USE1_InputTokenCount-Units", "Claude Sonnet 4.5", unit="Units"),
        edition("16.5", "USE1_OutputTokenCount-Units", "Claude Sonnet 4.5", unit="Units"),
        edition("6.6", "USE1_InputTokenCount_LongContext-Units", "Claude Sonnet 4.5", unit="Units"),
        edition("5.5", "USE1_input_tokens_standard-Units", "Claude Opus 4.7"),
        edition("27.5", "USE1_output_tokens_standard-Units", "Claude Opus 4.7"),
        edition("5.0", "USE1_input_tokens_global_standard-Units", "Claude Opus 4.7"),
        edition("10.0", "USE1_cache_write_tokens_1h_global_standard-Units", "Claude Opus 4.7"),
    ],
    SERVICE: [],
}

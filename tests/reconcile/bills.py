"""What AWS writes of the calls that a `LocalBedrock` served, made from its ledger by the test's own arithmetic."""

import csv
import gzip
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bedrock_budget.core.pricing import Price
from bedrock_budget.core.usage import Usage
from bedrock_budget.testing.ledger import LedgerEntry

FOLDER = "AWSLogs/123456789012/BedrockModelInvocationLogs/us-east-1"
PROFILE_ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/"


def log_record(entry: LedgerEntry, at: datetime) -> dict[str, Any]:
    """A call as model invocation logging writes it."""
    usage = entry.usage
    geographic = entry.model_id.split(".")[0] in ("us", "eu", "global")
    record: dict[str, Any] = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "accountId": "123456789012",
        "region": "us-east-1",
        "requestId": entry.request_id,
        "operation": entry.operation,
        "modelId": PROFILE_ARN + entry.model_id if geographic else entry.model_id,
        "input": {"inputContentType": "application/json", "inputTokenCount": usage.input_tokens},
        "output": {"outputContentType": "application/json", "outputTokenCount": usage.output_tokens},
    }
    if any(usage[2:]):
        record["input"]["cacheReadInputTokenCount"] = usage.cache_read_tokens
        record["input"]["cacheWriteInputTokenCount"] = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    if entry.status != 200:
        record["errorCode"] = "ThrottlingException"
    return record


def write_logs(root: Path, entries: Sequence[LedgerEntry], at: datetime) -> Path:
    """The log file of one hour, in a folder as AWS lays it out."""
    path = root / FOLDER / at.strftime("%Y/%m/%d/%H") / "20260115T120000000Z_0a1b2c.json.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(log_record(entry, at)) + "\n" for entry in entries)
    path.write_bytes(gzip.compress(text.encode()))
    return path


#: How AWS names models on bills: product and the beginning of the usage type; Marketplace models share the latter.
PRODUCTS = {
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0": ("Claude Sonnet 4.5 (Amazon Bedrock Edition)", None),
    "amazon.nova-pro-v1:0": ("Amazon Bedrock", "NovaPro"),
    "amazon.nova-micro-v1:0": ("Amazon Bedrock", "NovaMicro"),
    "amazon.titan-embed-text-v2:0": ("Amazon Bedrock", "TitanEmbeddingV2-Text"),
}
_NATIVE = ("input-tokens", "output-tokens", "cache-read-input-token-count", "cache-write-input-token-count")
_NATIVE_1H = "cache-write-1h-input-token-count"
_MARKET = ("InputTokenCount", "OutputTokenCount", "CacheReadInputTokenCount", "CacheWriteInputTokenCount")
_MARKET_1H = "CacheWrite1hInputTokenCount"


def bill_lines(entries: Sequence[LedgerEntry], prices: Mapping[str, Price]) -> list[dict[str, str]]:
    """One line a model and kind of token, as reports and Cost Explorer have them: product, usage type, unit, amount
    in that unit, and cost in USD, as decimal numerals."""
    sums: dict[str, Usage] = {}
    for entry in entries:
        if entry.billed:
            sums[entry.model_id] = sums.get(entry.model_id, Usage()).plus(entry.usage)
    lines: list[dict[str, str]] = []
    for model, usage in sums.items():
        product, native = PRODUCTS[model]
        names = (*_MARKET, _MARKET_1H) if native is None else (*_NATIVE, _NATIVE_1H)
        price = prices[model]
        rates = (price.input, price.output, price.cache_read, price.cache_write_5m, price.cache_write_1h)
        for name, tokens, rate in zip(names, usage, rates, strict=True):
            if tokens:
                factor, unit = (1_000_000, "Units") if native is None else (1_000, "1K tokens")
                usage_type = f"USE1-MP:USE1_{name}-Units" if native is None else f"USE1-{native}-{name}"
                pico = tokens * rate
                lines.append(
                    {
                        "product": product,
                        "usage_type": usage_type,
                        "unit": unit,
                        "amount": f"{tokens // factor}.{tokens % factor:06d}"
                        if factor == 1_000_000
                        else f"{tokens // factor}.{tokens % factor:03d}",
                        "cost": f"{pico // 10**12}.{pico % 10**12:012d}",
                    }
                )
    return lines


def report_csv(lines: Sequence[Mapping[str, str]], begins: datetime, *, hours: int = 24, version: int = 1) -> str:
    """A Cost and Usage Report of these lines, with lines of other services, tax and a credit among them."""
    first = version == 1
    names = {
        "type": "lineItem/LineItemType" if first else "line_item_line_item_type",
        "code": "lineItem/ProductCode" if first else "line_item_product_code",
        "start": "lineItem/UsageStartDate" if first else "line_item_usage_start_date",
        "end": "lineItem/UsageEndDate" if first else "line_item_usage_end_date",
        "usage_type": "lineItem/UsageType" if first else "line_item_usage_type",
        "amount": "lineItem/UsageAmount" if first else "line_item_usage_amount",
        "cost": "lineItem/UnblendedCost" if first else "line_item_unblended_cost",
        "unit": "pricing/unit" if first else "pricing_unit",
        "product": "product/ProductName" if first else "product",
    }
    start, end = begins.strftime("%Y-%m-%dT%H:%M:%SZ"), (begins + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    shared = {"start": start, "end": end, "type": "Usage", "code": "AmazonBedrock"}
    rows = [{**shared, **line} for line in lines]
    bedrock = {"product": "Amazon Bedrock", "usage_type": "USE1-NovaPro-input-tokens", "unit": "1K tokens"}
    rows.append({**shared, **bedrock, "type": "Tax", "amount": "1", "cost": "9.99"})
    rows.append({**shared, **bedrock, "type": "Credit", "amount": "1", "cost": "-9.99"})
    other = {"code": "AmazonS3", "product": "Amazon Simple Storage Service", "usage_type": "Requests-Tier1", "unit": ""}
    rows.append({**shared, **other, "amount": "12", "cost": "0.01"})
    if not first:
        rows = [{**row, "product": json.dumps({"servicename": row["product"]})} for row in rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(names.values()), lineterminator="\n")
    writer.writeheader()
    writer.writerows({names[key]: value for key, value in row.items()} for row in rows)
    return file.getvalue()


Answer = Callable[[str, str, Mapping[str, str], bytes], tuple[int, bytes]]


@contextmanager
def endpoint(answer: Answer) -> Iterator[str]:
    """A loopback HTTP endpoint; ``answer(method, target, headers, body)`` gives status and body."""

    class Requests(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, data = answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815 - the name is http.server's

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

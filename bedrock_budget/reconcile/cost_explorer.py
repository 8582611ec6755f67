"""AWS Cost Explorer: ``GetCostAndUsage`` by day, service and usage type.

Both are needed: models that are sold through the Marketplace have one usage type among them and are services of their
own. Each request costs $0.01. Figures come up to 48 hours late and may change until the month is closed.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from ..core.errors import ConfigError
from .cost_report import KINDS, add_use
from .names import ModelNames
from .records import Bill, Range, Reading

#: Cost Explorer has one endpoint.
REGION = "us-east-1"


def read_cost_explorer(days: Range, names: ModelNames) -> Reading:
    """What Cost Explorer says of Bedrock on these days, by the credentials of the environment. Raises ConfigError."""
    bill = Bill()
    estimated: set[str] = set()
    for result in _results(*days.utc_dates()):
        begins, ends = _time(result["TimePeriod"]["Start"]), _time(result["TimePeriod"]["End"])
        for group in result.get("Groups", ()):
            service, usage_type = group["Keys"]
            if "bedrock" not in service.lower():
                continue
            quantity, cost = group["Metrics"]["UsageQuantity"], group["Metrics"]["UnblendedCost"]
            if cost.get("Unit", "USD") != "USD":
                raise ConfigError(
                    f"--cost-explorer: {usage_type} is billed in {cost['Unit']}; only USD can be compared"
                )
            model = names.of_line(service, usage_type)
            add_use(
                *(bill, (begins, ends), model, usage_type),
                *(Decimal(quantity["Amount"]), quantity.get("Unit", ""), Decimal(cost["Amount"])),
            )
            if result.get("Estimated"):
                estimated.add(result["TimePeriod"]["Start"])
    notes: tuple[str, ...] = ()
    if estimated:
        notes = (f"Cost Explorer calls its figures of {_listed(estimated)} estimated: they may still change",)
    return Reading("Cost Explorer", bill.records(), KINDS, notes)


def _results(first: date, last: date) -> Iterator[dict[str, Any]]:
    import boto3.session  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    request: dict[str, Any] = {
        "TimePeriod": {"Start": first.isoformat(), "End": (last + timedelta(days=1)).isoformat()},
        "Granularity": "DAILY",
        "Metrics": ["UnblendedCost", "UsageQuantity"],
        "Filter": {"Dimensions": {"Key": "RECORD_TYPE", "Values": ["Usage"]}},
        "GroupBy": [{"Type": "DIMENSION", "Key": "SERVICE"}, {"Type": "DIMENSION", "Key": "USAGE_TYPE"}],
    }
    try:
        session: Any = boto3.session.Session()
        client: Any = session.client("ce", region_name=REGION)
        while True:
            page: dict[str, Any] = client.get_cost_and_usage(**request)
            yield from page["ResultsByTime"]
            token = page.get("NextPageToken")
            if not token:
                return
            request["NextPageToken"] = token
    except (BotoCoreError, ClientError) as exc:
        raise ConfigError(f"--cost-explorer: cannot be read: {exc} (it takes ce:GetCostAndUsage)") from exc


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _listed(days: set[str]) -> str:
    ordered = sorted(days)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"

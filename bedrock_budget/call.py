"""One call from its decision to its settlement."""

import json
import logging
from collections.abc import Mapping
from typing import Any, cast

from botocore.exceptions import ClientError

from .core.account import Account
from .core.estimates import estimate
from .core.money import HALF_MICRO, PICO_PER_MICRO, usd_text
from .core.outcomes import OUTCOMES, Outcome
from .core.pricing import Price, cost_pico_usd
from .core.selection import Mode, Reason
from .core.served import CHEAP_TIERS, DEFAULT, Served, served_at_worst, served_of
from .core.usage import NOTHING, Counts, Usage
from .hold import Hold
from .meter import Meter
from .outcomes import outcome_of
from .record import Record
from .snapshots import Route, Snapshot

log = logging.getLogger("bedrock_budget")

NO_USAGE = Usage()
#: Models and ways of serving whose missing price is warned of.
MOST_WARNINGS = 256
#: Estimates that are of the caller's making.
_CALLERS = ("stream_abandoned", "stream_open")


class Call:
    """An admitted call. At most one of `settle`, `settle_unknown`, `failed` and `free` is called, once: none for a dry
    run. `answered` comes first where the service answered.

    ``route`` None: the model is outside the configuration. ``price`` None: tokens are metered at cost 0, marked
    (``on_unknown_price="track"``). ``record`` is what the caller gets to see; its usage and costs are None until then.
    """

    __slots__ = (
        "account",
        "also",
        "hold",
        "meter",
        "price",
        "record",
        "request",
        "request_id",
        "route",
        "served",
        "snapshot",
    )

    def __init__(
        self,
        meter: Meter,
        account: Account,
        route: Route | None,
        price: Price | None,
        snapshot: Snapshot,
        request: Mapping[str, Any],
        label: str | None,
        model_id: str | None,
        label_asked: str,
        reason: Reason,
        mode: Mode,
        org_day: str,
        degraded: bool,
    ) -> None:
        self.meter = meter
        self.account = account
        self.route = route
        self.price = price
        self.snapshot = snapshot  # what it was decided by
        self.request = request
        self.request_id: str | None = None
        self.served: Served | None = None  # as the response says; None: the default tier at standard latency
        self.also: tuple[tuple[Account, Price | None], ...] = ()  # where else its usage counts, at what price
        self.hold: Hold | None = None  # what strict enforcement has set aside for it
        self.record: Record = {
            "label": label,
            "model_id": model_id,
            "label_asked": label_asked,
            "reason": reason,
            "mode": mode,
            "org_day": org_day,
            "usage": None,
            "cost_pico_usd": None,
            "cost_usd_micros": None,
            # Until a response says which model a prompt router chose.
            "estimated": route is not None and route.price_of_served is not None,
            "degraded": degraded,
        }

    def answered(self, response: dict[str, Any]) -> None:
        """The service has answered: have the response carry the record."""
        given: object = response.get("ResponseMetadata")
        if not isinstance(given, dict):
            given = response["ResponseMetadata"] = {}
        metadata = cast("dict[str, Any]", given)
        metadata["PriceKeeper"] = self.record
        self.request_id = metadata.get("RequestId")
        self.served = served_of(response)
        if metadata.get("RetryAttempts"):
            self._count("retried")
            if self.hold is not None:
                self.hold.keep = True  # the service may bill each attempt
                if self.account.outcomes["retried"] == 1:
                    log.warning(
                        "botocore repeated a call of %s, and under strict enforcement it counts as its worst case, "
                        "whatever it cost: each attempt may be billed. Config(retries={'total_max_attempts': 1}) and "
                        "repeating in your own code avoids that",
                        self.account.key.scope,
                    )

    def served_by(self, trace: Mapping[str, Any]) -> None:
        """The trace of a response: where it names the model that a prompt router chose, that is what is paid for."""
        router: dict[str, str] = trace.get("promptRouter") or {}
        model_id, route = router.get("invokedModelId"), self.route
        if not model_id or route is None or route.price_of_served is None:
            return
        self.record["invoked_model_id"] = model_id
        price = route.price_of_served(model_id)
        if price is None:
            return
        before, self.price = self.price, price
        self.also = tuple((account, price if its is before else its) for account, its in self.also)
        self.record["estimated"] = False

    def settle(self, usage: Usage, outcome: Outcome | None = None, served: Served | None = None) -> Record:
        """Meter what the call used; the record is complete afterwards. ``outcome`` None: complete. ``served``: what a
        stream says of it at its end; None: as the response said."""
        price = self.price
        record = self.record
        if outcome is not None:
            record["estimated"] = OUTCOMES[outcome].settlement == "estimated"
        guessed = record["estimated"]
        if served is None:
            served = self.served
        if price is None:
            cost = 0
            record["estimated"] = True
        elif served is None:
            cost = price.cost(usage)
        else:
            cost = self._cost_served(usage, price, served)
        record["usage"] = {
            "input_tokens": usage[0],
            "output_tokens": usage[1],
            "cache_read_tokens": usage[2],
            "cache_write_5m_tokens": usage[3],
            "cache_write_1h_tokens": usage[4],
        }
        record["cost_pico_usd"] = cost
        record["cost_usd_micros"] = (cost + HALF_MICRO) // PICO_PER_MICRO  # as `micros_half_up`
        account = self.account
        self.meter.add(account, usage, cost, outcome, self.request_id)
        for other, its_price in self.also:
            self.meter.add(other, usage, 0 if its_price is None else _cost(usage, its_price, served)[0])
        hold = self.hold
        if hold is not None:
            # An estimate may be too low. Of a model that failed AWS documents no charge at all.
            if guessed and price is not None and outcome != "model_failed":
                hold.keep = True
            hold.settle(cost)
        route, snapshot = self.route, self.snapshot
        if route is not None and (
            route.account.spend >= route.tight_at  # in shadow: of what would have been spent
            or account.unsent_cost >= route.hurry_at
            or (snapshot.caps and snapshot.is_near_cap)
        ):
            self.meter.hurry()
        if outcome is not None:
            self._log(outcome)
        return record

    def _cost_served(self, usage: Usage, price: Price, served: Served) -> int:
        cost, listed = _cost(usage, price, served)
        if not listed:
            self.record["estimated"] = True
            if self.hold is not None and (served.tier not in CHEAP_TIERS or served.latency != DEFAULT.latency):
                self.hold.keep = True  # the price may be too low
            _warn_once(str(self.record["model_id"]), served)
        return cost

    def settle_unknown(self, outcome: Outcome, *, seen: Counts = NOTHING, answer_bytes: int | None = None) -> Record:
        """Meter an estimate: the response did not say what was used. See `core.estimates.estimate`."""
        try:
            usage = estimate(_readable(self.request), seen=seen, answer_bytes=answer_bytes)
        except RecursionError:  # nested too deep to look into
            usage = estimate(b"", seen=seen, answer_bytes=answer_bytes)
        return self.settle(usage, outcome, self.served or served_at_worst(self.request))

    def free(self, outcome: Outcome | None = None) -> Record:
        """The call cost nothing. ``outcome`` None: it was refused by the budget."""
        record = self.record
        record["usage"] = NO_USAGE._asdict()
        record["estimated"] = False
        record["cost_pico_usd"] = record["cost_usd_micros"] = 0
        if self.hold is not None:
            self.hold.settle(0)
        if outcome is not None:
            self._count(outcome)
        return record

    def failed(self, exc: BaseException) -> None:
        """The call raised: settle it by its outcome, and have the exception name its labels. Raises nothing."""
        try:
            self._failed(exc)
        except Exception:  # of an exception that is not as botocore makes it: it is what the caller has to see
            log.exception("a call that failed could not be settled: %r", exc)
            if self.hold is not None:  # nobody knows what it cost
                self.hold.settle(self.hold.worst_case)

    def _failed(self, exc: BaseException) -> None:
        if isinstance(exc, ClientError):
            self.answered(cast("dict[str, Any]", exc.response))
        self.mark(exc)
        outcome = outcome_of(exc)
        if OUTCOMES[outcome].settlement == "zero":
            self.free(outcome)
        else:  # a model that failed gave no answer; of a lost one nothing is known
            self.settle_unknown(outcome, answer_bytes=0 if outcome == "model_failed" else None)

    def _count(self, outcome: Outcome) -> None:
        self.meter.count(self.account, outcome)
        self._log(outcome)

    def _log(self, outcome: Outcome) -> None:
        # The first of a kind that nobody here brought about is worth an operator's attention; all are counted.
        rule = OUTCOMES[outcome]
        loud = rule.settlement == "estimated" and outcome not in _CALLERS and self.account.outcomes[outcome] == 1
        record = self.record
        log.log(
            logging.WARNING if loud else logging.DEBUG,
            "%s: %s (%s, label %s, request %s, %s)%s",
            outcome,
            rule.reason,
            self.account.key.scope,
            record["label"],
            self.request_id,
            "not settled yet" if record["cost_pico_usd"] is None else usd_text(record["cost_pico_usd"]),
            "; more of these are counted in status() and logged at DEBUG" if loud else "",
        )

    def bounded_request(self) -> Mapping[str, Any]:
        """The request as its worst case is judged by: a file-like body read."""
        self.keep_body()
        return self.request

    def keep_body(self) -> None:
        """Read a file-like body now: a stream settles later, when the caller may use the file for something else."""
        body = self.request.get("body")
        if hasattr(body, "read"):
            self.request = {**self.request, "body": _contents(body)}

    def mark(self, exc: BaseException) -> None:
        """Have an exception of this call carry its record (a service error) and name its labels."""
        record = self.record
        if isinstance(exc, ClientError):
            metadata: dict[str, Any] = exc.response.setdefault("ResponseMetadata", {})  # type: ignore[typeddict-item, assignment]
            metadata["PriceKeeper"] = record
        exc.add_note(
            f"bedrock_budget: label asked {record['label_asked']}, served {record['label']} ({record['model_id']})"
        )


def _cost(usage: Usage, price: Price, served: Served | None) -> tuple[int, bool]:
    """What usage costs, and whether its price is listed."""
    if served is None:
        return price.cost(usage), True
    tokens, _, read, written, written_1h = usage
    quote = price.served(served, tokens + read + written + written_1h)
    return cost_pico_usd(usage, quote.price), quote.listed


#: What has been warned of.
_warned: set[tuple[str, Served]] = set()


def _warn_once(model_id: str, served: Served) -> None:
    if (model_id, served) not in _warned and len(_warned) < MOST_WARNINGS:
        _warned.add((model_id, served))
        log.warning(
            "%s was served in the tier %r at the latency %r, whose price is not listed: its cost is estimated",
            *(model_id, *served),
        )


def _readable(request: Mapping[str, Any]) -> object:
    """A request as estimates can read it: an ``invoke_model`` body parsed, else the arguments themselves."""
    body = request.get("body")
    if body is None:
        return request
    if hasattr(body, "read"):
        body = _contents(body)
    if not body:
        return b""  # which counts as an attachment
    try:
        return cast(object, json.loads(body))
    except (ValueError, RecursionError):
        return body if isinstance(body, str) else bytes(body).decode(errors="replace")


def _contents(file: Any) -> bytes | str:
    """What a file-like body holds; nothing if it cannot be read again. It is left at its place."""
    try:
        place = file.tell()
        file.seek(0)
        try:
            contents: object = file.read()
        finally:
            file.seek(place)
    except Exception:  # whatever the caller's object raises: an estimate must not fail
        return b""
    return contents if isinstance(contents, bytes | str) else b""

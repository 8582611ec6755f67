"""`PriceKeeperClient`: a boto3 ``bedrock-runtime`` client that keeps to a daily budget."""

import logging
import os
import warnings
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, Self, cast

from .admission import MakeBody
from .call import Call
from .clock import Clock, SystemClock
from .config import ConfigSource, load_budgets
from .control_plane import ControlPlane
from .core.budget import OnExhausted, OnStoreError, OnUnknownModel, Refresh
from .core.errors import ConfigError
from .core.estimates import text_bytes
from .core.outcomes import GUARDRAIL_INTERVENED, guardrail_outcome
from .core.usage import from_token_usage
from .explanation import decision_of
from .invoke import body_bytes, check_body, is_portable, settle_response
from .journal import journal_for
from .keeper import Keeper
from .keywords import check_process_keywords, max_cost_pico_usd, store_of
from .known_scopes import Scope
from .meter import CLOSE_SECS
from .record import Decision, LabelStatus
from .stores import Store
from .streams import ConverseEvents, InvokeEvents

log = logging.getLogger("bedrock_budget")

#: Operations that cost money and are not metered.
UNMETERED = (
    "apply_guardrail",
    "invoke_guardrail_checks",
    "start_async_invoke",
    "invoke_model_with_bidirectional_stream",
)
_OWN_FIELDS = ("_client", "_keeper", "_scope", "_warned", "_is_view")

Metering = Literal["background", "sync"]
JournalSync = Literal["normal", "full"]


class PriceKeeperClient:
    """A boto3 ``bedrock-runtime`` client under a daily budget; everything else of the client works through it.

    ``client``: the client to wrap; it stays as it was and is never closed. ``org_id``, ``app_id``: who spends;
    ``app_id`` may be left out only under ``quota_scope: ORG``.

    Keywords; those that an org, app or ``org_defaults`` may also set win over what these say, and None leaves them to
    these, else to the default given here:

    ``config``: path of a YAML file, a mapping, or None: ``$BEDROCK_BUDGET_CONFIG``, else the org's Config item.
    ``store``: a URL, a `Store`, or None: ``$BEDROCK_BUDGET_STORE``, else a SQLite file in the user's state folder.
    ``refresh``: ``"adaptive"`` (default) or ``"fixed"``.
    ``metering``: ``"background"`` (default) or ``"sync"``: write usage before the call returns. AWS Lambda, which
    freezes background threads, always gets ``"sync"``.
    ``on_exhausted``: ``"raise"`` `BudgetExhausted` (default), or serve the ``"last"`` label whose quota is not 0.
    ``on_unknown_model``: ``"reject"`` (default), or ``"pass"`` unchanged, metered under ``unlabelled``, no quota.
    ``on_unknown_price``: ``"reject"`` (default), a price (mapping of the price keys, or USD micros per 1M tokens of
    any kind), or ``"track"``: meter tokens at cost 0, marked ``estimated``.
    ``on_store_error``: USD micros that may be spent in a scope while the store is away (default 1,000,000),
    ``"open"`` or ``"closed"``.
    ``drain_abandoned``: read a stream that is closed early or dropped to its end in the background, to learn what it
    cost (default True; at most 8 at a time for 30 s each); False: settle it by an estimate from what was seen.
    ``journal``: a folder on a local disk in which usage survives the end of the process, however it ends; or None:
    ``$BEDROCK_BUDGET_JOURNAL``, else none. All processes of a machine may share it.
    ``journal_sync``: ``"normal"`` (default; survives a kill) or ``"full"`` (survives a loss of power, and waits for
    the disk in each call).
    ``clock``: an object with ``now()`` -> aware datetime and ``monotonic()`` -> seconds.
    ``enforcement``: ``"normal"`` (default), ``"strict"`` (no call starts unless its worst case is left of every quota
    that it counts towards) or ``"shadow"`` (decide and count, change nothing).
    ``max_cost_usd_micros``: refuse a call that could cost more (default None: no limit); also an argument of each
    metered call, where it wins over this one.

    Raises ConfigError for any mistake in these.
    """

    _client: Any
    _keeper: Keeper
    _scope: Scope
    _warned: set[str]
    _is_view: bool

    def __init__(
        self,
        client: Any,
        *,
        org_id: str,
        app_id: str | None = None,
        config: ConfigSource | None = None,
        store: str | Store | None = None,
        enforcement: Literal["normal", "strict", "shadow"] | None = None,
        refresh: Refresh | None = None,
        metering: Metering = "background",
        journal: str | os.PathLike[str] | None = None,
        journal_sync: JournalSync = "normal",
        drain_abandoned: bool = True,
        max_cost_usd_micros: int | None = None,
        on_exhausted: OnExhausted | None = None,
        on_unknown_model: OnUnknownModel | None = None,
        on_unknown_price: Literal["reject", "track"] | int | Mapping[str, int] | None = None,
        on_store_error: OnStoreError | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(client, PriceKeeperClient):
            raise ConfigError("client: is a PriceKeeperClient already; use its for_app() for another org or app")
        if not hasattr(client, "converse") or not hasattr(client, "meta"):
            raise ConfigError(
                f"client: must be a boto3 'bedrock-runtime' client (with converse), got {type(client).__name__}; "
                'make it with boto3.client("bedrock-runtime")'
            )
        check_process_keywords(metering=metering, drain_abandoned=drain_abandoned, clock=clock)
        keywords: dict[str, Any] = {
            "enforcement": enforcement,
            "refresh": refresh,
            "max_cost_usd_micros": max_cost_usd_micros,
            "on_exhausted": on_exhausted,
            "on_unknown_model": on_unknown_model,
            "on_unknown_price": on_unknown_price,
            "on_store_error": on_store_error,
        }
        self._client = client
        self._warned = set()
        self._is_view = False
        opened = store_of(store)
        # There each call's usage is in the store before it returns, and the disk ends with the sandbox: no journal.
        in_lambda = "AWS_LAMBDA_RUNTIME_API" in os.environ
        self._keeper = Keeper(
            opened,
            load_budgets(config),
            clock or SystemClock(),
            keywords={key: value for key, value in keywords.items() if value is not None},
            region=client.meta.region_name,
            drain_abandoned=drain_abandoned,
            look_up=ControlPlane(client).look_up,
            sync=metering == "sync" or in_lambda,
            transactions=in_lambda,
            journal=None if in_lambda else journal_for(journal, journal_sync, opened.url),
        )
        self._scope = self._keeper.scopes.enter(org_id, app_id)

    # -- metered operations

    def converse(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the wrapped client's ``converse``; ``modelId`` may be left out or be a label."""
        call = self._admit(kwargs, "Converse")
        kwargs["modelId"] = call.record["model_id"]
        try:
            response: dict[str, Any] = self._client.converse(*args, **kwargs)
        except BaseException as exc:
            call.failed(exc)
            raise
        call.answered(response)
        if "trace" in response:
            call.served_by(response["trace"])
        usage = from_token_usage(response.get("usage"))
        if usage is None:
            output = response.get("output")
            if output is None:  # botocore takes a reply that was cut off for an empty one
                call.settle_unknown("unanswered")
            else:
                call.settle_unknown("no_usage", answer_bytes=text_bytes(output))
        elif response.get("stopReason") == GUARDRAIL_INTERVENED:
            call.settle(usage, guardrail_outcome(usage))
        else:
            call.settle(usage)
        return response

    def converse_stream(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the wrapped client's ``converse_stream``; ``modelId`` may be left out or be a label."""
        call = self._admit(kwargs, "ConverseStream")
        kwargs["modelId"] = call.record["model_id"]
        try:
            response: dict[str, Any] = self._client.converse_stream(*args, **kwargs)
        except BaseException as exc:
            call.failed(exc)
            raise
        call.answered(response)
        response["stream"] = ConverseEvents(response["stream"], call, self._keeper.drainer)
        return response

    def invoke_model(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the wrapped client's ``invoke_model``; ``modelId`` may be left out or be a label, and ``body`` a
        callable ``body(decision) -> bytes | str | dict``."""
        if isinstance(kwargs.get("body"), bytes | str):
            arguments = kwargs
            call = self._admit(kwargs, "InvokeModel", True)
        else:
            call, arguments = self._admit_body(kwargs, "InvokeModel")
        arguments["modelId"] = call.record["model_id"]
        try:
            response: dict[str, Any] = self._client.invoke_model(*args, **arguments)
        except BaseException as exc:
            call.failed(exc)
            raise
        call.answered(response)
        settle_response(call, response)
        return response

    def invoke_model_with_response_stream(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the wrapped client's, with ``modelId`` and ``body`` as in `invoke_model`."""
        call, arguments = self._admit_body(kwargs, "InvokeModelWithResponseStream")
        arguments["modelId"] = call.record["model_id"]
        try:
            response: dict[str, Any] = self._client.invoke_model_with_response_stream(*args, **arguments)
        except BaseException as exc:
            call.failed(exc)
            raise
        call.answered(response)
        call.keep_body()
        response["body"] = InvokeEvents(response["body"], call, self._keeper.drainer)
        return response

    def count_tokens(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the wrapped client's ``count_tokens``, which costs nothing; ``modelId`` may be left out (the label that
        the next call would go to) or be a label."""
        model_id = self._keeper.model_id_for_counting(self._scope, kwargs.get("modelId"))
        counted: dict[str, Any] = self._client.count_tokens(*args, **{**kwargs, "modelId": model_id})
        return counted

    def _admit_body(self, kwargs: dict[str, Any], operation: str) -> tuple[Call, dict[str, Any]]:
        body = kwargs.get("body")
        check_body(body)
        fixed = not is_portable(body)
        if fixed or body is None:
            return self._admit(kwargs, operation, fixed), kwargs

        def make_body(call: Call) -> dict[str, Any]:
            return {**kwargs, "body": body_bytes(body(decision_of(call)))}

        call = self._admit(kwargs, operation, make_body=make_body)
        return call, cast("dict[str, Any]", call.request)

    def _admit(
        self, kwargs: dict[str, Any], operation: str, fixed_body: bool = False, make_body: MakeBody | None = None
    ) -> Call:
        most = None
        if "max_cost_usd_micros" in kwargs:
            most = max_cost_pico_usd(kwargs.pop("max_cost_usd_micros"))
        return self._keeper.admit(self._scope, kwargs.get("modelId"), operation, kwargs, fixed_body, make_body, most)

    # -- asking

    def decide(self, modelId: str | None = None) -> Decision:  # noqa: N803 - as in boto3's calls
        """Where a call would go now, and why: a dry run. Raises what the call would raise before it is sent."""
        return self._keeper.decide(self._scope, modelId)

    def status(self) -> list[LabelStatus]:
        """Today's figures of every label of the ordering, read fresh: the consistent sum of the shards, plus what
        this process has not written yet. Raises StoreError if the store cannot be read."""
        return self._keeper.status(self._scope)

    # -- views and the end

    def for_app(self, app_id: str | None, org_id: str | None = None) -> "PriceKeeperClient":
        """A cheap view for another app or org: same client, store, meter and caches. Raises ConfigError."""
        view = object.__new__(PriceKeeperClient)
        view._client = self._client
        view._keeper = self._keeper
        view._warned = self._warned
        view._is_view = True
        view._scope = self._keeper.scopes.enter(org_id if org_id is not None else self._scope.org_id, app_id)
        return view

    def flush(self, timeout: float | None = None) -> bool:
        """Write all usage metered so far, that of streams being drained included. False if it could not be done in
        ``timeout`` seconds (None: wait as long as it takes)."""
        return self._keeper.flush(timeout)

    def close(self) -> None:
        """Flush and stop the meter; on a view only flush. The wrapped client stays open."""
        if self._is_view:
            self._keeper.flush(CLOSE_SECS)
        else:
            self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- everything else of the wrapped client

    def __getattr__(self, name: str) -> Any:
        if name in _OWN_FIELDS or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        attribute = getattr(self._client, name)
        return self._unmetered(name, attribute) if name in UNMETERED else attribute

    def _unmetered(self, name: str, operation: Any) -> Any:
        def passed_through(*args: Any, **kwargs: Any) -> Any:
            if name not in self._warned:
                self._warned.add(name)
                text = f"{name} costs money and is not metered: its spend does not count towards the budget"
                log.warning(text)  # for operators
                warnings.warn(text, RuntimeWarning, stacklevel=2)  # for developers
            return operation(*args, **kwargs)

        return passed_through

    @property
    def __class__(self) -> Any:
        # Some frameworks check for a botocore client. Inheriting from one would hide get_paginator and close.
        return cast(Any, type)(self._client)

    @__class__.setter
    def __class__(self, value: Any) -> NoReturn:
        raise TypeError("the class of a PriceKeeperClient cannot be changed")

    def __dir__(self) -> list[str]:
        # object.__dir__ would go by __class__.
        return sorted({*self.__dict__, *dir(type(self)), *dir(self._client)})

    def __repr__(self) -> str:
        app = "" if self._scope.app_id is None else f", app_id={self._scope.app_id!r}"
        return f"<PriceKeeperClient org_id={self._scope.org_id!r}{app} store={self._keeper.store!r}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PriceKeeperClient cannot be pickled: make one in each process")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()

"""The budget of a scope, frozen: what `budget_rules` makes of a configuration and every call reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Literal

from .money import PICO_PER_MICRO
from .pricing import Price

OnExhausted = Literal["raise", "last"]
OnUnknownModel = Literal["reject", "pass"]
OnUnknownPrice = Literal["reject", "track"] | Price
OnStoreError = int | Literal["open", "closed"]
Refresh = Literal["adaptive", "fixed"]
Enforcement = Literal["normal", "strict", "shadow"]

#: The pseudo-label of models outside the configuration (``on_unknown_model="pass"``).
UNLABELLED = "unlabelled"
#: The ``modelId`` that means the same as leaving it out.
AUTO = "auto"
#: Stands for all labels of a scope, in the keys of caps.
ALL_LABELS = "*"


@dataclass(frozen=True, slots=True)
class HandPrice:
    """A price written in a configuration, in USD micros per 1M tokens. Cache prices may be left to the price table."""

    input: int
    output: int
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None

    def over(self, listed: Price | None) -> Price:
        """This price, with cache prices it leaves out taken from the table's price of the model, if it has one."""
        if listed is None:
            return Price.of(
                self.input,
                self.output,
                cache_read=self.cache_read,
                cache_write_5m=self.cache_write_5m,
                cache_write_1h=self.cache_write_1h,
            )
        return Price(
            self.input,
            self.output,
            listed.cache_read if self.cache_read is None else self.cache_read,
            listed.cache_write_5m if self.cache_write_5m is None else self.cache_write_5m,
            listed.cache_write_1h if self.cache_write_1h is None else self.cache_write_1h,
        )


@dataclass(frozen=True, slots=True)
class ModelLabel:
    """A label and the model id, inference-profile id or ARN it stands for. Its limits: None is what the table lists."""

    label: str
    model_id: str
    price: HandPrice | None = None
    context_window_tokens: int | None = None
    max_output_tokens: int | None = None
    registered: bool = False  # as an inference profile, in the store


@dataclass(frozen=True, slots=True)
class Settings:
    """What a constructor keyword, an app, an org or the defaults may set.

    ``on_store_error``: USD micros, or a word. ``max_cost_usd_micros``: of a single call's worst case; None: no limit.
    """

    refresh: Refresh = "adaptive"
    on_exhausted: OnExhausted = "raise"
    on_unknown_model: OnUnknownModel = "reject"
    on_unknown_price: OnUnknownPrice = "reject"
    on_store_error: OnStoreError = 1_000_000
    enforcement: Enforcement = "normal"
    max_cost_usd_micros: int | None = None

    @property
    def price_anyway(self) -> Price | None:
        """The price of models that have none, if that is what ``on_unknown_price`` says."""
        return self.on_unknown_price if isinstance(self.on_unknown_price, Price) else None


@dataclass(frozen=True, slots=True)
class ScopeBudget:
    """Everything configured for one org and app. ``quotas``: USD micros a day by label; None is unlimited.

    ``daily_total_usd_micros``: a cap over all labels of the scope, ``org_daily_total_usd_micros``: over all of the
    org's apps as well; None: no cap.
    """

    org_id: str
    app_id: str | None
    scope: str
    timezone_name: str
    timezone: tzinfo = field(compare=False, repr=False)
    ordering: tuple[str, ...]
    labels: Mapping[str, ModelLabel]
    quotas: Mapping[str, int | None]
    shard_count: int
    tight_mode_threshold_pct: int
    refresh_interval_normal_secs: int
    refresh_interval_tight_secs: int
    sticky_fallback_enabled: bool
    aggregator_interval_secs: int
    settings: Settings
    daily_total_usd_micros: int | None = None
    org_daily_total_usd_micros: int | None = None
    stop_at_pct: int | None = None

    def quota_usd_micros(self, label: str) -> int | None:
        """The daily quota of a label; None if it is unlimited. Outside the ordering no quota means unlimited."""
        return self.quotas.get(label)

    @property
    def total_usd_micros(self) -> int | None:
        """What the scope may spend in a day: its cap, else the quotas of the ordering; None if one is unlimited."""
        if self.daily_total_usd_micros is not None:
            return self.daily_total_usd_micros
        quotas = [self.quotas.get(label) for label in self.ordering]
        return None if None in quotas else sum(quota or 0 for quota in quotas)

    @property
    def stop_at_pico_usd(self) -> int | None:
        """The spend of a day at which the scope stops itself; None: it does not."""
        total = self.total_usd_micros
        if self.stop_at_pct is None or total is None:
            return None
        return max(-(-total * PICO_PER_MICRO * self.stop_at_pct // 100), 1)  # nothing spent is never too much

    def label_of(self, asked: str) -> str | None:
        """The label that a call's ``modelId`` names: itself, or the first in the ordering that maps to it."""
        if asked in self.labels:
            return asked
        candidates = (*self.ordering, *self.labels)
        return next((label for label in candidates if self.labels[label].model_id == asked), None)

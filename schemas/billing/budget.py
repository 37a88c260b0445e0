"""Budgets: how much of a meter may be used in a window, and when a share of it was reached.

Streams: `billing.budget/<budget id>` for the budget as set, and for what happened to it in one
window `billing.budget_window/<budget id>@<start>`, so that each stream stays small for ever.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.billing.usage import Meter
from schemas.billing.window import WindowKind
from schemas.types import Micros

STREAM = "billing.budget"
WINDOW_STREAM = "billing.budget_window"

# What Avro's long can say. Ten times the highest limit (1,000 percent) still fits.
Total = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Meta(ge=1, le=9 * 10**17)]
Percent = Annotated[int, Meta(ge=1, le=1000)]


class BudgetSet(Struct, frozen=True, tag="billing.budget_set.v1", kw_only=True):
    """From now on `limit` of the meter may be used in each window.

    revision counts the settings of this budget from 1; each starts its alerts anew.
    """

    budget_id: str
    revision: int
    meter: Meter
    window: WindowKind
    limit: Limit
    alert_percents: list[Percent]


class BudgetRemoved(Struct, frozen=True, tag="billing.budget_removed.v1", kw_only=True):
    """The budget holds no more."""

    budget_id: str
    revision: int


class BudgetReached(Struct, frozen=True, tag="billing.budget_reached.v1", kw_only=True):
    """The usage in a window has reached `percent` of the limit; `total` is what it came to."""

    budget_id: str
    revision: int
    meter: Meter
    window: WindowKind
    window_start: Micros
    window_end: Micros
    percent: Percent
    limit: Limit
    total: Total


BudgetEvent = BudgetSet | BudgetRemoved
BudgetWindowEvent = BudgetReached

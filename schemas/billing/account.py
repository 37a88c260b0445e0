"""Events of a tenant's account: its plan, its spending caps, every charge from its reservation to
its end, and how many evaluation keys it has.

Stream `billing.account/account`: a tenant has one. Money is whole nanodollars (10^-9 US dollars).
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.billing.budget import Percent
from schemas.types import Count, Micros, Text

STREAM = "billing.account"
ACCOUNT_ID = "account"

# Nine million dollars, which every JSON reader still takes as a whole number.
NANODOLLARS_MAX = 9 * 10**15
Nanodollars = Annotated[int, Meta(ge=0, le=NANODOLLARS_MAX)]
CapWindow = Literal["day", "month"]
ReleaseReason = Literal["failed", "cancelled", "expired"]


class SpendingCap(Struct, frozen=True):
    """How much may be spent in each window. Only a hard one refuses; each percent alerts once."""

    limit: Nanodollars
    hard: bool
    alert_percents: list[Percent]


class Balance(Struct, frozen=True):
    """What is reserved for open charges, and what was spent in the windows that start then."""

    reserved: Nanodollars = 0
    day_start: Micros = 0
    day_spent: Nanodollars = 0
    month_start: Micros = 0
    month_spent: Nanodollars = 0


class PlanAssigned(Struct, frozen=True, tag="billing.plan_assigned.v1", kw_only=True):
    """From now on the plan's limits hold. subscription_id: by which one, empty for none."""

    plan_code: Text
    subscription_id: Text = ""


class SpendingCapsSet(Struct, frozen=True, tag="billing.spending_caps_set.v1", kw_only=True):
    """From now on these caps hold, and no others; their alerts start anew."""

    day: SpendingCap | None = None
    month: SpendingCap | None = None


class ChargeReserved(Struct, frozen=True, tag="billing.charge_reserved.v1", kw_only=True):
    """The amount is set aside for a charge that may come. charge_id: the job it is for."""

    charge_id: str
    amount: Nanodollars
    price_version: str
    balance: Balance


class ChargeCommitted(Struct, frozen=True, tag="billing.charge_committed.v1", kw_only=True):
    """What was reserved is spent, in the windows of this event's time."""

    charge_id: str
    amount: Nanodollars
    balance: Balance


class ChargeReleased(Struct, frozen=True, tag="billing.charge_released.v1", kw_only=True):
    """What was reserved is free again: nothing was delivered."""

    charge_id: str
    amount: Nanodollars
    reason: ReleaseReason
    balance: Balance


class CapThresholdReached(
    Struct, frozen=True, tag="billing.cap_threshold_reached.v1", kw_only=True
):
    """What was spent in a window has come to `percent` of its cap."""

    window: CapWindow
    window_start: Micros
    window_end: Micros
    percent: Percent
    limit: Nanodollars
    spent: Nanodollars
    hard: bool


class EvaluationKeyAdmitted(
    Struct, frozen=True, tag="billing.evaluation_key_admitted.v1", kw_only=True
):
    """A key takes one of the plan's places; `live` places are taken with it."""

    key_id: str
    live: Count


class EvaluationKeyReleased(
    Struct, frozen=True, tag="billing.evaluation_key_released.v1", kw_only=True
):
    """A key that was admitted is gone; `live` places are still taken."""

    key_id: str
    live: Count


class UsagePeriodOpened(Struct, frozen=True, tag="billing.usage_period_opened.v1", kw_only=True):
    """The first thing of a month was spent on pay as you go: what follows is billed at its end."""

    period_start: Micros
    period_end: Micros


class UsagePeriodClosed(Struct, frozen=True, tag="billing.usage_period_closed.v1", kw_only=True):
    """What was spent on pay as you go in a month, and what of it is billed.

    carried: what no whole cent was left for, from the month before (in) and for the next one (out),
    so that `spent + carried_in == amount_minor * 10^7 + carried_out`. amount_minor: US cents.
    """

    period_start: Micros
    period_end: Micros
    spent: Nanodollars
    carried_in: Nanodollars
    carried_out: Nanodollars
    amount_minor: Count


AccountEvent = (
    PlanAssigned
    | SpendingCapsSet
    | ChargeReserved
    | ChargeCommitted
    | ChargeReleased
    | CapThresholdReached
    | EvaluationKeyAdmitted
    | EvaluationKeyReleased
    | UsagePeriodOpened
    | UsagePeriodClosed
)

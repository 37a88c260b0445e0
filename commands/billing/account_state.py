"""Commands, refusals and state of `billing.account`, and how its events fold."""

from typing import assert_never

import msgspec
from msgspec import Struct

from commands.billing.plans import PAYG, PlanCode
from commands.refusals import Refusal
from schemas.billing.account import (
    AccountEvent,
    Balance,
    CapThresholdReached,
    CapWindow,
    ChargeCommitted,
    ChargeReleased,
    ChargeReserved,
    EvaluationKeyAdmitted,
    EvaluationKeyReleased,
    PlanAssigned,
    SpendingCap,
    SpendingCapsSet,
    UsagePeriodClosed,
    UsagePeriodOpened,
)
from schemas.billing.window import window_of
from schemas.types import Micros


class SpendingLimitReached(Refusal):
    """The charge does not fit into what is left of a limit in its window."""

    kind = "payment_required"


class BudgetCapReached(SpendingLimitReached):
    """A hard cap that the tenant has set leaves too little."""

    code = "budget_cap_reached"


class QuotaExhausted(SpendingLimitReached):
    """The plan's monthly quota leaves too little."""

    code = "quota_exhausted"


class EvaluationKeysExhausted(Refusal):
    """The tenant has as many live evaluation keys as its plan allows."""

    code = "evaluation_keys_exhausted"
    kind = "payment_required"


class SetSpendingCaps(Struct, frozen=True, tag="billing.set_spending_caps.v1", kw_only=True):
    """Set the caps that are given, take away those of `removed`, and leave the others."""

    day: SpendingCap | None = None
    month: SpendingCap | None = None
    removed: list[CapWindow] = []


class AssignPlan(Struct, frozen=True, tag="billing.assign_plan.v1"):
    """Put a tenant without a subscription on a plan that was agreed upon. The operator's only."""

    plan_code: PlanCode


class CloseUsagePeriod(Struct, frozen=True, tag="billing.close_usage_period.v1"):
    """The month that began then is over (timer)."""

    period_start: Micros


AccountCommand = SetSpendingCaps | AssignPlan | CloseUsagePeriod


class Alerted(Struct, frozen=True):
    """The highest percent reached in the window that starts at `start`."""

    start: int = 0
    percent: int = 0


class UsagePeriod(Struct, frozen=True):
    """A month in which something is spent on pay as you go: how much, in nanodollars."""

    start: int
    end: int
    spent: int = 0


class Account(Struct, frozen=True):
    """A tenant's account; one that nothing happened to is on the default plan without caps."""

    plan_code: str = PAYG
    subscription_id: str = ""
    day_cap: SpendingCap | None = None
    month_cap: SpendingCap | None = None
    day_alerted: Alerted = Alerted()
    month_alerted: Alerted = Alerted()
    balance: Balance = Balance()
    evaluation_keys: int = 0
    period: UsagePeriod | None = None
    carried: int = 0


class AccountAnswer(Struct, frozen=True):
    """The account as it stands at the command's time."""

    plan_code: str
    day: SpendingCap | None
    month: SpendingCap | None
    balance: Balance
    evaluation_keys: int = 0


def balance_at(balance: Balance, now: int) -> Balance:
    """The balance in the windows of `now`: what was spent in earlier ones counts no more."""
    day, month = window_of("day", now).start, window_of("month", now).start
    return Balance(
        reserved=balance.reserved,
        day_start=day,
        day_spent=balance.day_spent if balance.day_start == day else 0,
        month_start=month,
        month_spent=balance.month_spent if balance.month_start == month else 0,
    )


def evolve(state: Account, event: AccountEvent) -> Account:
    replace = msgspec.structs.replace
    match event:
        case PlanAssigned():
            return replace(state, plan_code=event.plan_code, subscription_id=event.subscription_id)
        case SpendingCapsSet():
            return replace(
                state,
                day_cap=event.day,
                month_cap=event.month,
                day_alerted=Alerted(),
                month_alerted=Alerted(),
            )
        case ChargeReserved() | ChargeReleased():
            return replace(state, balance=event.balance)
        case ChargeCommitted():
            return replace(state, balance=event.balance, period=_spent(state, event))
        case UsagePeriodOpened():
            return replace(state, period=UsagePeriod(event.period_start, event.period_end))
        case UsagePeriodClosed():
            return replace(state, period=None, carried=event.carried_out)
        case EvaluationKeyAdmitted() | EvaluationKeyReleased():
            return replace(state, evaluation_keys=event.live)
        case CapThresholdReached():
            alerted = Alerted(event.window_start, event.percent)
            if event.window == "day":
                return replace(state, day_alerted=alerted)
            return replace(state, month_alerted=alerted)
    assert_never(event)


def _spent(state: Account, event: ChargeCommitted) -> UsagePeriod | None:
    period = state.period
    if period is None or state.plan_code != PAYG or period.start != event.balance.month_start:
        return period
    return msgspec.structs.replace(period, spent=period.spent + event.amount)

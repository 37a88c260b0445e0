"""Usage, budgets, accounts, bills of usage, subscriptions and invoices."""

from msgspec import Struct

from schemas.billing.account import (
    CapThresholdReached,
    ChargeCommitted,
    ChargeReleased,
    ChargeReserved,
    EvaluationKeyAdmitted,
    EvaluationKeyReleased,
    PlanAssigned,
    SpendingCapsSet,
    UsagePeriodClosed,
    UsagePeriodOpened,
)
from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.subscription import (
    InvoiceChanged,
    SubscriptionChanged,
    SubscriptionChangeDue,
    SubscriptionChangeRequested,
    SubscriptionChangeWithdrawn,
)
from schemas.billing.usage import UsageRecorded
from schemas.billing.usage_bill import UsageBillDue, UsageBilled

EVENTS: list[type[Struct]] = [
    UsageRecorded,
    BudgetSet,
    BudgetRemoved,
    BudgetReached,
    PlanAssigned,
    SpendingCapsSet,
    ChargeReserved,
    ChargeCommitted,
    ChargeReleased,
    CapThresholdReached,
    EvaluationKeyAdmitted,
    EvaluationKeyReleased,
    UsagePeriodOpened,
    UsagePeriodClosed,
    UsageBillDue,
    UsageBilled,
    SubscriptionChangeRequested,
    SubscriptionChangeDue,
    SubscriptionChangeWithdrawn,
    SubscriptionChanged,
    InvoiceChanged,
]

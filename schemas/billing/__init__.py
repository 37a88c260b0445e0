"""Usage, budgets, accounts, subscriptions and invoices."""

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
    SubscriptionChangeRequested,
    SubscriptionChangeDue,
    SubscriptionChangeWithdrawn,
    SubscriptionChanged,
    InvoiceChanged,
]

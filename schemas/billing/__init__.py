"""Usage, budgets, accounts, bills of usage, subscriptions and invoices."""

from msgspec import Struct

from schemas.billing.account import AccountEvent
from schemas.billing.budget import BudgetEvent, BudgetWindowEvent
from schemas.billing.subscription import InvoiceEvent, SubscriptionEvent
from schemas.billing.usage import UsageEvent
from schemas.billing.usage_bill import UsageBillEvent
from schemas.unions import members

EVENTS: list[type[Struct]] = [
    *members(UsageEvent),
    *members(BudgetEvent),
    *members(BudgetWindowEvent),
    *members(AccountEvent),
    *members(UsageBillEvent),
    *members(SubscriptionEvent),
    *members(InvoiceEvent),
]

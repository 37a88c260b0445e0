"""Usage, budgets, accounts, bills of usage, subscriptions and invoices."""

from typing import Any

from commands.billing import (
    account,
    budget,
    budget_window,
    invoice,
    subscription,
    usage,
    usage_bill,
)
from commands.decider import Decider

DECIDERS: list[Decider[Any, Any, Any]] = [
    usage.DECIDER,
    budget.DECIDER,
    budget_window.DECIDER,
    account.DECIDER,
    usage_bill.DECIDER,
    subscription.DECIDER,
    invoice.DECIDER,
]

"""Usage, budgets, accounts, subscriptions and invoices."""

from typing import Any

from commands.billing import account, budget, budget_window, invoice, subscription, usage
from commands.decider import Decider

DECIDERS: list[Decider[Any, Any, Any]] = [
    usage.DECIDER,
    budget.DECIDER,
    budget_window.DECIDER,
    account.DECIDER,
    subscription.DECIDER,
    invoice.DECIDER,
]

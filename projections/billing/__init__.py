"""Billing events and budgets; `usage_windows` is the usage processor's own."""

from projections.billing.billing_events import BILLING_EVENTS
from projections.billing.budgets import BUDGETS
from projections.statements import View

VIEWS: list[View] = [BILLING_EVENTS, BUDGETS]

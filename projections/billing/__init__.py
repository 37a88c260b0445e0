"""The billing read models; `usage_windows` is the usage processor's own."""

from projections.billing.billing_accounts import BILLING_ACCOUNTS
from projections.billing.billing_events import BILLING_EVENTS
from projections.billing.budgets import BUDGETS
from projections.billing.invoices import INVOICES
from projections.billing.subscriptions import SUBSCRIPTIONS
from projections.statements import View

VIEWS: list[View] = [BILLING_EVENTS, BUDGETS, BILLING_ACCOUNTS, SUBSCRIPTIONS, INVOICES]

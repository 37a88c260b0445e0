"""Usage, budgets, subscriptions, invoices and billing events over HTTP."""

from api.billing import budget_caps, budgets, events, invoices, stripe_webhook, subscriptions, usage
from api.routing import Route

ROUTES: list[Route] = [
    *usage.ROUTES,
    *events.ROUTES,
    *budgets.ROUTES,
    *budget_caps.ROUTES,
    *subscriptions.ROUTES,
    *invoices.ROUTES,
    *stripe_webhook.ROUTES,
]

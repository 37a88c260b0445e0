"""The Observe API: what agents report, and what is made of it."""

from api.observability import (
    llm_calls,
    model_analytics,
    policies,
    policy_checks,
    policy_simulations,
    runs,
)
from api.routing import Route

ROUTES: list[Route] = [
    *runs.ROUTES,
    *policy_checks.ROUTES,
    *policies.ROUTES,
    *policy_simulations.ROUTES,
    *llm_calls.ROUTES,
    *model_analytics.ROUTES,
]

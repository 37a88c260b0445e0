"""The Observe API: what agents report, and what is made of it."""

from api.observability import (
    llm_calls,
    model_analytics,
    model_costs,
    policies,
    policy_checks,
    policy_simulations,
    repricing,
    runs,
    traces,
)
from api.routing import Route

ROUTES: list[Route] = [
    *runs.ROUTES,
    *traces.ROUTES,
    *model_costs.ROUTES,
    *repricing.ROUTES,
    *policy_checks.ROUTES,
    *policies.ROUTES,
    *policy_simulations.ROUTES,
    *llm_calls.ROUTES,
    *model_analytics.ROUTES,
]

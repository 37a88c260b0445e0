"""The Observe API: what agents report, and what is made of it."""

from api.observability import (
    erasures,
    events,
    llm_calls,
    model_analytics,
    model_costs,
    policies,
    policy_checks,
    policy_simulations,
    repricing,
    runs,
    scores,
    sessions,
    traces,
    users,
)
from api.routing import Route

ROUTES: list[Route] = [
    *runs.ROUTES,
    *traces.ROUTES,
    *events.ROUTES,
    *model_costs.ROUTES,
    *repricing.ROUTES,
    *policy_checks.ROUTES,
    *policies.ROUTES,
    *policy_simulations.ROUTES,
    *llm_calls.ROUTES,
    *sessions.ROUTES,
    *users.ROUTES,
    *erasures.ROUTES,
    *scores.ROUTES,
    *model_analytics.ROUTES,
]

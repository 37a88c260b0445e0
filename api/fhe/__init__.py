"""Encrypted computation over HTTP: evaluation keys, computations, jobs, prices."""

from api.fhe import compute, gates, job_events, jobs, keys, models, pricing
from api.routing import Route

ROUTES: list[Route] = [
    *keys.ROUTES,
    *compute.ROUTES,
    *models.ROUTES,
    *gates.ROUTES,
    *jobs.ROUTES,
    *job_events.ROUTES,
    *pricing.ROUTES,
]

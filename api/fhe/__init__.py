"""Encrypted computation over HTTP: evaluation keys, computations, jobs."""

from api.fhe import compute, gates, job_events, jobs, keys
from api.routing import Route

ROUTES: list[Route] = [
    *keys.ROUTES,
    *compute.ROUTES,
    *gates.ROUTES,
    *jobs.ROUTES,
    *job_events.ROUTES,
]

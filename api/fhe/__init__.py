"""Encrypted computation over HTTP: evaluation keys, computations, jobs, prices."""

from api.fhe import (
    compute,
    gates,
    generation,
    job_events,
    jobs,
    key_uploads,
    keys,
    models,
    pricing,
)
from api.routing import Route

ROUTES: list[Route] = [
    *keys.ROUTES,
    *generation.ROUTES,
    *key_uploads.ROUTES,
    *compute.ROUTES,
    *models.ROUTES,
    *gates.ROUTES,
    *jobs.ROUTES,
    *job_events.ROUTES,
    *pricing.ROUTES,
]

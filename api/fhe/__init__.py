"""Encrypted computation over HTTP: evaluation keys, computations, jobs, prices."""

from api.fhe import compute, jobs, keys, models, pricing
from api.routing import Route

ROUTES: list[Route] = [
    *keys.ROUTES,
    *compute.ROUTES,
    *models.ROUTES,
    *jobs.ROUTES,
    *pricing.ROUTES,
]

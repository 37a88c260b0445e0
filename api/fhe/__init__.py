"""Encrypted computation over HTTP: evaluation keys, computations, jobs."""

from api.fhe import compute, generation, jobs, key_uploads, keys
from api.routing import Route

ROUTES: list[Route] = [
    *keys.ROUTES,
    *generation.ROUTES,
    *key_uploads.ROUTES,
    *compute.ROUTES,
    *jobs.ROUTES,
]

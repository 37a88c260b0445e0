"""Encrypted computation over HTTP: evaluation keys, computations, jobs."""

from api.fhe import compute, jobs, keys, pricing
from api.routing import Route

ROUTES: list[Route] = [*keys.ROUTES, *compute.ROUTES, *jobs.ROUTES, *pricing.ROUTES]

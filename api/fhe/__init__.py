"""Encrypted computation over HTTP: evaluation keys, computations, jobs."""

from api.fhe import compute, jobs, keys, models
from api.routing import Route

ROUTES: list[Route] = [*keys.ROUTES, *compute.ROUTES, *models.ROUTES, *jobs.ROUTES]

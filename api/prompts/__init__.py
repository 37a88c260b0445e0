"""Routes of the prompts domain: for the web UI under `/api/v1/prompts`, for agents' code under
`/api/v1/observe/prompts`."""

from api.prompts import fetch, labels, metrics, playground, prompts, provider, versions
from api.routing import Route

ROUTES: list[Route] = [
    *fetch.ROUTES,
    *prompts.ROUTES,
    *playground.ROUTES,
    *provider.ROUTES,
    *versions.ROUTES,
    *labels.ROUTES,
    *metrics.ROUTES,
]

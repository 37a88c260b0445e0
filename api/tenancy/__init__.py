"""Trials over HTTP."""

from api.routing import Route
from api.tenancy import temp_keys

ROUTES: list[Route] = [*temp_keys.ROUTES]

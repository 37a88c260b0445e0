"""Login, sessions and API keys over HTTP."""

from api.identity import api_keys, login, sessions
from api.routing import Route

ROUTES: list[Route] = [
    *login.ROUTES,
    *sessions.ROUTES,
    *api_keys.ROUTES,
]

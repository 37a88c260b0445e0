"""The application: every domain's routes, served by the dispatcher."""

from api.routing import Route

ROUTES: list[Route] = []

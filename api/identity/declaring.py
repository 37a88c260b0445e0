"""How this domain declares the routes of people's own sessions."""

from functools import partial

from api.problems import SERVICE
from api.routing import Route, Who

AUTH = "/api/v1/auth"

auth_route = partial(Route, dialect=SERVICE, who=Who.HUMAN, tags=("auth",))

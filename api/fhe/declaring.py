"""How this surface declares a route that a tenant's plan covers."""

from functools import partial

from api.problems import FHE
from api.routing import Route, Who

fhe_route = partial(Route, dialect=FHE, who=Who.SESSION_OR_KEY, by_plan=True)

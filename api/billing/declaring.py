"""How this domain declares its routes: those of the Service document, and those of the FHE one."""

from functools import partial

from api.problems import FHE, SERVICE
from api.routing import Route, Who

TENANT = "/api/v1/billing/tenants/{tenant_id}"

service_route = partial(Route, dialect=SERVICE, who=Who.SESSION_OR_KEY, tags=("billing",))
fhe_route = partial(Route, dialect=FHE, who=Who.SESSION_OR_KEY, tags=("billing",))

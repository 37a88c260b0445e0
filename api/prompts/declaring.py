"""How this domain declares its routes, for the web UI."""

from functools import partial

from api.problems import OBSERVE
from api.roles import ADMINS, BUILDERS, READERS
from api.routing import Route, Who

PROMPTS = "/api/v1/prompts/"
PROMPT = f"{PROMPTS}{{prompt_id}}/"

_route = partial(Route, dialect=OBSERVE, who=Who.SESSION_OR_KEY, tags=("prompts",))
read_route = partial(_route, roles=READERS)
write_route = partial(_route, roles=BUILDERS)
admin_route = partial(_route, roles=ADMINS)

"""How this surface declares a route: its dialect, its limit, its tag, who may call it."""

from typing import Any

from api.problems import WAITROOM
from api.roles import BUILDERS, READERS
from api.routing import Handler, Route, Who

# The largest valid body: 10 KB of context, and 5,500 characters that may all be written `\uXXXX`
# pairs, with room for white space.
_MAX_BODY = 256 * 1024
# What agents may read is open to every person too; an agent's key says what it reaches.


def route(method: str, path: str, handler: Handler, who: Who, summary: str, **more: Any) -> Route:
    """A row of this surface: its dialect, its limit, its tag after the path."""
    tag = path.split("/")[2]
    if Who.HUMAN in who and method != "GET":
        more["roles"] = BUILDERS
    elif who is Who.HUMAN:
        more["roles"] = READERS
    return Route(
        method,
        path,
        handler,
        dialect=WAITROOM,
        who=who,
        tags=(tag,),
        summary=summary,
        max_body=_MAX_BODY,
        **more,
    )

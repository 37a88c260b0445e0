"""What is kept of a request when it is over: metrics, and one line in the log.

The line names the request's id, the route, the actor and how it went; never a query string, a
header or a body, since those may hold secrets. Paths are logged as they came but for their length,
and where they name a person: a log is not among what is erased.
Successful telemetry is counted, not logged, unless the level is debug: at thousands a second the
log would cost more than the requests.
"""

import logging
from typing import Any

from api.exchange import Exchange
from infra.telemetry import HTTP_REQUESTS

logger = logging.getLogger("api.access")

_SLOW_SECONDS = 1.0
_MAX_PATH = 512
_PERSONAL = ("/observability/users/{user_id}/", "/observability/sessions/{session_id}/")


class RequestObserver:
    """Counts and logs requests."""

    def __call__(self, exchange: Exchange, seconds: float) -> None:
        route = exchange.route
        path = route.path if route is not None else "none"
        method = route.method if route is not None else _known(exchange.method)
        HTTP_REQUESTS.record(method, path, exchange.status, seconds)
        level = _level(exchange, seconds)
        if logger.isEnabledFor(level):
            logger.log(level, "request", extra=_fields(exchange, method, path, seconds))


def _known(method: str) -> str:
    # A label takes no text that a client makes up.
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"


def _level(exchange: Exchange, seconds: float) -> int:
    if exchange.status >= 500:
        return logging.WARNING
    route = exchange.route
    stream = route is not None and route.stream
    if seconds >= _SLOW_SECONDS and not stream:
        return logging.WARNING
    if route is not None and route.quiet and exchange.status < 400:
        return logging.DEBUG
    return logging.INFO


def _fields(exchange: Exchange, method: str, route: str, seconds: float) -> dict[str, Any]:
    principal = exchange.principal
    path = exchange.path[:_MAX_PATH].decode("latin-1")
    return {
        "request_id": exchange.request_id,
        "method": method,
        "route": route,
        "path": route if route.endswith(_PERSONAL) else path,
        "status": exchange.status,
        "ms": round(seconds * 1000, 2),
        "address": exchange.address,
        "tenant": principal.tenant if principal else "",
        "actor": principal.actor.id if principal else "",
    }

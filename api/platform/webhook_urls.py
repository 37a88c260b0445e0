"""Whether a URL may be an endpoint of webhooks."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from api.problems import Problem
from infra.egress import may_reach


def check_url(url: str, allowed: Iterable[str], *, field: str) -> None:
    """Refuse what can never be posted to; names are resolved when they are connected to.

    allowed: networks that may be reached although they are not public. field: the body's, that the
    URL comes from. Raises Problem (400).
    """

    def refuse(message: str) -> Problem:
        return Problem(400, "validation_error", message, field=field)

    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise refuse("is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise refuse("must be an http or https URL")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise refuse("must hold neither credentials nor a fragment")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not may_reach(address, [ipaddress.ip_network(network) for network in allowed]):
        raise refuse("is not a public address")

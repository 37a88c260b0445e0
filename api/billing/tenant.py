"""The tenant that a billing path names: the caller's own, or it is not there."""

from typing import Any

from api.problems import not_found
from api.routing import Call


def own_tenant(call: Call[Any, Any]) -> None:
    """Raises Problem (404) when the path names another tenant, whether or not that one exists."""
    if call.path["tenant_id"] != call.tenant:
        not_found("Tenant not found")

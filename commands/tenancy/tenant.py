"""A tenant: created once."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import Refusal
from schemas.tenancy.tenant import TenantCreated, TenantEvent
from schemas.types import Text

STREAM = "tenancy.tenant"


class TenantExists(Refusal):
    """The id belongs to a tenant of another name."""

    code = "tenant_exists"


class CreateTenant(Struct, frozen=True, tag="tenancy.create_tenant.v1"):
    """Begin a customer. The stream's id is the tenant's own id."""

    name: Text


class Tenant(Struct, frozen=True):
    """`name` is empty until the tenant exists."""

    name: str = ""


def decide(command: CreateTenant, state: Tenant, context: Context) -> Sequence[TenantEvent]:
    """Raises TenantExists when the id is taken under another name."""
    if not state.name:
        return [TenantCreated(command.name)]
    if state.name != command.name:
        raise TenantExists(f"this tenant is called {state.name}")
    return []


def evolve(state: Tenant, event: TenantEvent) -> Tenant:
    match event:
        case TenantCreated():
            return Tenant(event.name)
    assert_never(event)


def _describe(command: CreateTenant) -> Mapping[str, Any]:
    return {"name": command.name}


DECIDER: Decider[CreateTenant, Tenant, TenantEvent] = Decider(
    stream=STREAM,
    commands=(CreateTenant,),
    events=(TenantCreated,),
    initial=Tenant(),
    decide=decide,
    evolve=evolve,
    describe=_describe,
)

"""Events of a tenant, stream `tenancy.tenant/<ten_>` of the tenant itself."""

from msgspec import Struct

from schemas.types import Text


class TenantCreated(Struct, frozen=True, tag="tenancy.tenant_created.v1"):
    """A customer exists, under this name."""

    name: Text


TenantEvent = TenantCreated

"""`tenants`: one row for each tenant."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Statement, View
from schemas.envelope import Envelope
from schemas.tenancy.tenant import TenantCreated


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case TenantCreated():
            values = {"name": event.name, "created_at": envelope.time}
            return [Put({"tenant": envelope.tenant}, values)]
    return []


TENANTS = View(
    name="tenants",
    version=1,
    events=(TenantCreated,),
    columns={"tenant": "text", "name": "text", "created_at": "bigint"},
    key=("tenant",),
    reduce=reduce,
)

BY_ID = f"SELECT tenant, name, created_at FROM {TENANTS.table} WHERE tenant = %s"

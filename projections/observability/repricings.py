"""`repricings`: every later version of what calls cost, with its prices."""

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.statements import Put, Statement, View
from schemas.envelope import Envelope
from schemas.observability.repricing import CallsRepriced


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case CallsRepriced():
            values = {
                "repriced_at": event.repriced_at,
                "prices": msgspec.json.encode(event.prices).decode(),
                "repriced_by": envelope.actor.id,
            }
            return [Put({"tenant": envelope.tenant, "version": event.version}, values)]
    return []


REPRICINGS = View(
    name="repricings",
    version=1,
    events=(CallsRepriced,),
    columns={
        "tenant": "text",
        "version": "bigint",
        "repriced_at": "bigint",
        "prices": "jsonb",
        "repriced_by": "text",
    },
    key=("tenant", "version"),
    reduce=reduce,
)

# Parameter: tenant.
NEWEST_FIRST = f"""
SELECT version, repriced_at, prices FROM {REPRICINGS.table} WHERE tenant = %s ORDER BY version DESC
"""

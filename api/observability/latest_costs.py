"""The later versions of a tenant's costs: what every query on costs is asked with."""

from typing import Any

import msgspec

from api.routing import Call
from projections.observability.cost_versions import Costs, costs
from projections.observability.repricings import NEWEST_FIRST
from schemas.observability.repricing import CallsRepriced, NewPrice


async def repricings_of(call: Call[Any, Any]) -> list[CallsRepriced]:
    """The tenant's repricings, newest first."""
    return [
        CallsRepriced(
            version=row["version"],
            repriced_at=row["repriced_at"],
            prices=msgspec.convert(row["prices"], list[NewPrice]),
        )
        for row in await call.services.reads.all(NEWEST_FIRST, call.tenant)
    ]


async def costs_now(call: Call[Any, Any]) -> Costs:
    """What the tenant's calls cost by the latest version of each."""
    return costs(await repricings_of(call))

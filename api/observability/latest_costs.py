"""The later versions of a tenant's costs: what every query on costs is asked with."""

import time
from collections import OrderedDict
from typing import Any

import msgspec

from api.routing import Call
from api.services import Reads, Services
from api.subscription import LiveEvent
from infra.postgres import DatabaseUnavailable
from projections.observability.cost_versions import Costs, costs
from projections.observability.repricings import NEWEST_FIRST
from schemas.avro_derivation import tag_of
from schemas.observability.repricing import CallsRepriced, NewPrice

CACHE = "observability.repricings"  # its name in Services.caches
TENANTS_MAX = 10_000
AWAY_SECONDS = 2.0

_TAG = tag_of(CallsRepriced)


class TenantRepricings:
    """By tenant: its repricings, read when they are asked for; what was read last goes on to hold
    while Postgres is away, unless the tail of `events` has told of another since."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._known: OrderedDict[str, list[CallsRepriced]] = OrderedDict()
        self._changes = 0
        self._away_until = 0.0

    async def of(self, tenant: str) -> list[CallsRepriced]:
        """Newest first. Raises DatabaseUnavailable when they can't be known."""
        if time.monotonic() < self._away_until and tenant in self._known:
            return self._known[tenant]
        changes = self._changes
        try:
            rows = await self._reads.all(NEWEST_FIRST, tenant)
        except DatabaseUnavailable:
            self._away_until = time.monotonic() + AWAY_SECONDS
            if tenant in self._known:
                return self._known[tenant]
            raise
        found = [
            CallsRepriced(
                version=row["version"],
                repriced_at=row["repriced_at"],
                prices=msgspec.convert(row["prices"], list[NewPrice]),
            )
            for row in rows
        ]
        if changes == self._changes:
            self._known[tenant] = found
            self._known.move_to_end(tenant)
            while len(self._known) > TENANTS_MAX:
                self._known.popitem(last=False)
        return found

    def follow(self, event: LiveEvent) -> None:
        """Take note of a record of the log, whatever it is."""
        if event.type == _TAG:
            self._changes += 1
            self._known.pop(event.tenant, None)

    def clear(self) -> None:
        """Forget everything: changes may have been missed."""
        self._changes += 1
        self._known.clear()


def tenant_repricings(services: Services) -> TenantRepricings:
    """The one of this process."""
    found: TenantRepricings | None = services.caches.get(CACHE)
    if found is None:
        found = services.caches[CACHE] = TenantRepricings(services.reads)
    return found


async def repricings_of(call: Call[Any, Any]) -> list[CallsRepriced]:
    """The tenant's repricings, newest first."""
    return await tenant_repricings(call.services).of(call.tenant)


async def costs_now(call: Call[Any, Any]) -> Costs:
    """What the tenant's calls cost by the latest version of each."""
    return costs(await repricings_of(call))

"""The later versions of a tenant's costs: what every query on costs is asked with."""

from collections import OrderedDict
from typing import Any

import msgspec

from api.routing import Call
from api.services import Reads, Services
from api.subscription import LiveEvent
from projections.observability.cost_versions import Costs, costs
from projections.observability.repricings import NEWEST_FIRST
from schemas.avro_derivation import tag_of
from schemas.observability.repricing import CallsRepriced, NewPrice

CACHE = "observability.repricings"  # its name in Services.caches
TENANTS_MAX = 10_000

_TAG = tag_of(CallsRepriced)
_ByVersion = dict[int, CallsRepriced]


class TenantRepricings:
    """By tenant: its repricings, read from Postgres when they are first needed; from then on the
    tail of `events` adds to them. What it tells of a tenant that is not read yet is kept until it
    is: Postgres may hold it only a moment later. All of it runs on one event loop."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._known: OrderedDict[str, _ByVersion] = OrderedDict()
        self._told: OrderedDict[str, _ByVersion] = OrderedDict()
        self._generation = 0

    async def of(self, tenant: str) -> list[CallsRepriced]:
        """Newest first. Raises DatabaseUnavailable when they were never read and can't be."""
        known = self._known.get(tenant)
        if known is None:
            known = await self._read(tenant)
        else:
            self._known.move_to_end(tenant)
        return [known[version] for version in sorted(known, reverse=True)]

    async def _read(self, tenant: str) -> _ByVersion:
        generation = self._generation
        rows = await self._reads.all(NEWEST_FIRST, tenant)
        found = {
            row["version"]: CallsRepriced(
                version=row["version"],
                repriced_at=row["repriced_at"],
                prices=msgspec.convert(row["prices"], list[NewPrice]),
            )
            for row in rows
        }
        if generation == self._generation:
            # Versions only ever come: whoever read at the same time may have been told of more.
            found |= self._told.pop(tenant, {}) | self._known.get(tenant, {})
            self._known[tenant] = found
            _bound(self._known)
        return found

    def follow(self, event: LiveEvent) -> None:
        """Take note of a record of the log, whatever it is."""
        if event.type != _TAG:
            return
        repriced: CallsRepriced = event.event
        known = self._known.get(event.tenant)
        if known is None:
            known = self._told.setdefault(event.tenant, {})
            _bound(self._told)
        known[repriced.version] = repriced

    def forget(self, tenant: str) -> None:
        """Read the tenant's anew: this process had one decided, and Postgres has it."""
        self._generation += 1
        self._known.pop(tenant, None)

    def clear(self) -> None:
        """Forget everything: changes may have been missed."""
        self._generation += 1
        self._known.clear()
        self._told.clear()


def _bound(kept: OrderedDict[str, _ByVersion]) -> None:
    while len(kept) > TENANTS_MAX:
        kept.popitem(last=False)


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

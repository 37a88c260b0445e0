"""The tenants' own prices of models, in memory: what calls are priced from as they come in.

A tenant's prices are read once, from Postgres, when they are first needed; from then on the tail of
`events` keeps them as they stand, in every API process. What the tail tells of a tenant that is not
read yet is kept until it is: Postgres may hold it only a moment later.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

from api.services import Reads, Services
from api.subscription import LiveEvent
from commands.observability.prices import History, Override, Price, with_event
from infra.postgres import DatabaseUnavailable
from projections.observability.model_costs import HELD_SINCE
from schemas.avro_derivation import tag_of
from schemas.observability.model_cost import ModelCostEvent, ModelCostRemoved, ModelCostSet

CACHE = "observability.tenant_prices"  # its name in Services.caches
TENANTS_MAX = 10_000
EVENTS_KEPT_MAX = 1_000  # of a tenant that is not read yet
AWAY_SECONDS = 2.0

_TAGS = frozenset({tag_of(ModelCostSet), tag_of(ModelCostRemoved)})

Overrides = Mapping[str, History]


class TenantPrices:
    """By tenant: the histories of its prices, by model. All of it runs on one event loop."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._read: OrderedDict[str, dict[str, History]] = OrderedDict()
        self._reading: dict[str, asyncio.Task[dict[str, History]]] = {}
        self._waiting: OrderedDict[str, deque[ModelCostEvent]] = OrderedDict()
        self._generation = 0
        self._away_until = 0.0

    async def of(self, tenant: str, instant: int) -> Overrides:
        """The prices that hold at an instant (about now), and those that held just before.

        Raises DatabaseUnavailable when the tenant was never read and can't be.
        """
        known = self._read.get(tenant)
        if known is not None:
            self._read.move_to_end(tenant)
            return known
        if time.monotonic() < self._away_until:
            raise DatabaseUnavailable("it was away a moment ago")
        reading = self._reading.get(tenant)
        if reading is None:
            reading = asyncio.create_task(self._fetch(tenant, instant))
            self._reading[tenant] = reading
        try:
            return await asyncio.shield(reading)
        except DatabaseUnavailable:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise

    async def _fetch(self, tenant: str, instant: int) -> dict[str, History]:
        generation = self._generation
        try:
            rows = await self._reads.all(HELD_SINCE, tenant, instant)
        finally:
            self._reading.pop(tenant, None)
        found: dict[str, History] = {}
        for row in rows:
            found[row["model"]] = (*found.get(row["model"], ()), override_of(row))
        if generation == self._generation:
            for event in self._waiting.pop(tenant, ()):
                _fold(found, event)
            self._read[tenant] = found
            _bound(self._read)
        return found

    def follow(self, event: LiveEvent) -> None:
        """Take note of a record of the log, whatever it is."""
        if event.type in _TAGS:
            self.apply(event.tenant, event.event)

    def apply(self, tenant: str, event: ModelCostEvent) -> None:
        """Take note of what was decided; twice is once."""
        known = self._read.get(tenant)
        if known is not None:
            _fold(known, event)
            return
        self._waiting.setdefault(tenant, deque(maxlen=EVENTS_KEPT_MAX)).append(event)
        self._waiting.move_to_end(tenant)
        _bound(self._waiting)

    def clear(self) -> None:
        """Forget everything: changes may have been missed."""
        self._generation += 1
        self._read.clear()
        self._waiting.clear()


def tenant_prices(services: Services) -> TenantPrices:
    """The one of this process."""
    prices: TenantPrices | None = services.caches.get(CACHE)
    if prices is None:
        prices = services.caches[CACHE] = TenantPrices(services.reads)
    return prices


def override_of(row: Mapping[str, Any]) -> Override:
    """A row of `model_costs`."""
    price = Price(row["input_price_pico"], row["output_price_pico"])
    return Override(row["revision"], price, row["since"], row["ended_at"])


def _fold(found: dict[str, History], event: ModelCostEvent) -> None:
    found[event.model] = with_event(found.get(event.model, ()), event)


def _bound(kept: OrderedDict[str, Any]) -> None:
    while len(kept) > TENANTS_MAX:
        kept.popitem(last=False)

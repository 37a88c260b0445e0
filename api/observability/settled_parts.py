"""Which parts of the tables have no duplicates among each other, by tenant: what this process has
found so far. See `projections/observability/unmerged.py`."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from api.services import Analytics, Services
from infra.clickhouse import AnalyticsUnavailable
from projections.observability import unmerged
from projections.observability.unmerged import Part, Parts

CACHE = "observability.settled_parts"  # its name in Services.caches
FOUND_MAX = 2_000
"""Tenants and tables that are remembered; of others it is found out anew."""

LISTED_SECONDS = 0.2
"""How long parts that were listed are taken for those that there are; a query notices others."""

_UNNAMED = UUID(int=0)
_Key = tuple[str, str]


class _Found(NamedTuple):
    """Parts of a table, and whether a tenant has no duplicates in them."""

    parts: Parts
    settled: bool


class SettledParts:
    """It asks ClickHouse; who asks at the same time waits for the same answer. All of it runs on
    one event loop."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics
        self._found: OrderedDict[_Key, _Found] = OrderedDict()
        self._listing: asyncio.Task[Mapping[str, Parts]] | None = None
        self._listed_at = 0.0
        self._finding: dict[_Key, asyncio.Task[_Found]] = {}

    async def of(
        self, tenant: str, tables: Sequence[str], *, anew: bool
    ) -> Mapping[str, Sequence[UUID]] | None:
        """By table, parts that have none of the tenant's rows twice; None when a table has.

        anew: because those of a moment ago were not all. Raises AnalyticsUnavailable.
        """
        listed = await self._parts(anew)
        found = await asyncio.gather(
            *(self._of_table((tenant, table), listed.get(table, ())) for table in tables)
        )
        if not all(each.settled for each in found):
            return None
        return {
            table: [part.id for part in each.parts]
            for table, each in zip(tables, found, strict=True)
        }

    async def _parts(self, anew: bool) -> Mapping[str, Parts]:
        now, task = asyncio.get_running_loop().time(), self._listing
        if task is None or (task.done() and (anew or now > self._listed_at + LISTED_SECONDS)):
            task = self._listing = asyncio.create_task(self._list())
            self._listed_at = now
        try:
            return await asyncio.shield(task)
        except AnalyticsUnavailable:
            self._listing = None
            raise

    async def _list(self) -> Mapping[str, Parts]:
        found = defaultdict[str, list[Part]](list)
        for row in await self._analytics.query(*unmerged.parts()):
            if row["id"] != _UNNAMED:
                found[row["table"]].append(Part(row["id"], row["first"], row["last"]))
        return {table: tuple(parts) for table, parts in found.items()}

    async def _of_table(self, key: _Key, now: Parts) -> _Found:
        before = self._found.get(key)
        if before is not None and before.parts == now:
            self._found.move_to_end(key)
            return before
        if key not in self._finding:
            task = asyncio.create_task(self._find(key, now, before))
            task.add_done_callback(lambda _: self._finding.pop(key, None))
            self._finding[key] = task
        return await asyncio.shield(self._finding[key])

    async def _find(self, key: _Key, now: Parts, before: _Found | None) -> _Found:
        known = unmerged.covered(now, before.parts) if before and before.settled else []
        settled = len(known) == len(now)
        if not settled:
            query = unmerged.without_duplicates(*key, known)
            settled = bool((await self._analytics.query(*query))[0]["settled"])
        found = self._found[key] = _Found(now, settled)
        self._found.move_to_end(key)
        while len(self._found) > FOUND_MAX:
            self._found.popitem(last=False)
        return found


def settled_parts(services: Services) -> SettledParts:
    """The one of this process."""
    found: SettledParts | None = services.caches.get(CACHE)
    if found is None:
        found = services.caches[CACHE] = SettledParts(services.analytics)
    return found

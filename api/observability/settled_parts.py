"""Which parts of the tables have no duplicates among each other, by tenant: what this process has
found so far. See `projections/observability/unmerged.py`."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from api.services import Analytics, Services
from infra.clickhouse import AnalyticsUnavailable
from projections.observability import unmerged
from projections.observability.unmerged import Part, Parts

CACHE = "observability.settled_parts"  # its name in Services.caches
FOUND_MAX = 2_000
"""Tenants and tables that are remembered; of others it is found out anew."""

LISTED_SECONDS = 0.2
"""How long parts that were listed are taken for those that there are; `hold_all` notices others."""

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

    async def of(self, tenant: str, tables: Sequence[str]) -> Mapping[str, Parts] | None:
        """By table, parts that have none of the tenant's rows twice; None when a table has.

        They were all parts a moment ago. Raises AnalyticsUnavailable.
        """
        listed = await self._recent()
        found = await asyncio.gather(
            *(self._of_table((tenant, table), listed.get(table, ())) for table in tables)
        )
        if not all(each.settled for each in found):
            return None
        return {table: each.parts for table, each in zip(tables, found, strict=True)}

    async def hold_all(self, tenant: str, among: Mapping[str, Parts]) -> bool:
        """Whether these parts have held all of the tenant's rows up to now.

        among: by table. Raises AnalyticsUnavailable.
        """
        if not among:
            return True
        listed = await self._anew()
        covered = {
            table: known
            for table, parts in among.items()
            if len(known := unmerged.covered(listed.get(table, ()), parts))
            < len(listed.get(table, ()))
        }
        if not covered:
            return True
        (row,) = await self._analytics.query(*unmerged.without_others(tenant, covered))
        return bool(row["settled"])

    async def _recent(self) -> Mapping[str, Parts]:
        now = asyncio.get_running_loop().time()
        if self._listing is None or now > self._listed_at + LISTED_SECONDS:
            return await self._anew()
        return await asyncio.shield(self._listing)

    async def _anew(self) -> Mapping[str, Parts]:
        """The parts that there are from now on: not what is being listed already."""
        self._listed_at = asyncio.get_running_loop().time()
        task = self._listing = asyncio.create_task(self._list())
        try:
            return await asyncio.shield(task)
        except AnalyticsUnavailable:
            if self._listing is task:
                self._listing = None
            raise

    async def _list(self) -> Mapping[str, Parts]:
        found = defaultdict[str, list[Part]](list)
        for row in await self._analytics.query(*unmerged.parts()):
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

"""A Postgres view that the deciders fill, as a rebuild sees it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from projections.runner import VIEWS_LOCK, apply, create_table, reduce_all
from projections.statements import View
from schemas.codec import Codec
from schemas.envelope import from_headers
from streams.rebuild_tables import Connection, Place

TOPIC = "events"


class ViewTables:
    """`streams.rebuild_tables.Tables` of a view: one table, folded from `events`."""

    topics: Sequence[str] = (TOPIC,)
    scratch: Sequence[str] = ()
    writer = "the deciders"

    def __init__(self, view: View, codec: Codec) -> None:
        self._view, self._codec = view, codec
        self.name = view.name
        self.keys: Mapping[str, Sequence[str]] = {view.table: view.key}

    async def create(self, work: Connection) -> None:
        for statement in create_table(self._view):
            await work.execute(statement.encode())

    async def reached(self, control: Connection) -> Mapping[Place, int]:
        cursor = await control.execute("SELECT partition, events_next FROM decider_checkpoints")
        return {(TOPIC, row["partition"]): row["events_next"] for row in await cursor.fetchall()}

    def check(self, first: Mapping[Place, int]) -> None:
        """A view is the fold of what there is."""

    @asynccontextmanager
    async def held(self, control: Connection) -> AsyncIterator[None]:
        await control.execute("SELECT pg_advisory_lock(%s)", (VIEWS_LOCK,))
        try:
            yield
        finally:
            await control.execute("SELECT pg_advisory_unlock(%s)", (VIEWS_LOCK,))

    async def fold(
        self, work: Connection, place: Place, start: int, records: Sequence[Any], end: int
    ) -> None:
        pairs = reduce_all(
            [self._view],
            [(from_headers(item.headers), self._codec.decode(item.value)) for item in records],
        )
        if pairs:
            async with work.transaction():
                await apply(work, pairs)

    async def switched(self, control: Connection, reached: Mapping[Place, int]) -> None:
        """The new table holds every partition's history: no decider need fill it."""
        for (_, partition), events_next in reached.items():
            await control.execute(
                "INSERT INTO view_fills VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (self._view.table, partition, events_next),
            )

"""The usage processor's tables, as a rebuild sees them.

Filled by the processor's own ledger, partition by partition from the log's beginning. Totals,
budgets, counted calls and what agents used come out the same in whatever order the partitions are
read, so they are compared row by row and change places. The alerts don't: which shares of a budget
were reached, and with which total, depends on how usage in one partition met a change of the budget
in another. And they say what was sent. So the live ones stay as they are, a rebuild sends nothing,
and what a corrected total has come to is set off by the next usage in its window.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition

from projections.billing.usage_windows import (
    ALERTS,
    BUDGETS,
    BY_AGENT,
    CALLS,
    DDL,
    DDL_LOCK,
    OFFSETS,
    RUNS,
    UNNAMED,
    WINDOWS,
)
from schemas.codec import Codec
from streams.billing.agent import TOPICS
from streams.billing.ledger import Ledger
from streams.rebuild_report import CannotRebuild
from streams.rebuild_tables import Connection, Place

NAME = "usage_windows"


class UsageTables:
    """`streams.rebuild_tables.Tables` of usage metering."""

    name = NAME
    topics: Sequence[str] = TOPICS
    keys: Mapping[str, Sequence[str]] = {
        WINDOWS: ("tenant", "meter", "window_kind", "window_start"),
        BUDGETS: ("tenant", "budget_id"),
        CALLS: ("tenant", "run_id", "record_offset"),
        BY_AGENT: ("tenant", "window_kind", "who"),
        RUNS: ("tenant", "run_id"),
        UNNAMED: ("tenant", "run_id", "record_offset"),
        OFFSETS: ("topic", "partition"),
    }
    scratch: Sequence[str] = (ALERTS,)
    writer = "the usage processors"

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    async def create(self, work: Connection) -> None:
        for statement in DDL:
            await work.execute(statement.encode())

    async def reached(self, control: Connection) -> Mapping[Place, int]:
        cursor = await control.execute(f"SELECT * FROM {OFFSETS}".encode())
        return {
            (row["topic"], row["partition"]): row["next_offset"] for row in await cursor.fetchall()
        }

    def check(self, first: Mapping[Place, int]) -> None:
        """A sum is wrong without its first addends."""
        for (topic, partition), offset in first.items():
            if offset:
                raise CannotRebuild(
                    f"{topic}:{partition} begins at {offset}: what was used before is in the live "
                    "tables only"
                )

    @asynccontextmanager
    async def held(self, control: Connection) -> AsyncIterator[None]:
        """Every batch begins by writing to the offsets: with that table locked, none is under way
        and none begins. The lock on making tables comes first, as everywhere."""
        async with control.transaction():
            await control.execute("SELECT pg_advisory_xact_lock(%s)", (DDL_LOCK,))
            await control.execute(f"LOCK TABLE {OFFSETS} IN EXCLUSIVE MODE".encode())
            yield

    async def fold(
        self, work: Connection, place: Place, start: int, records: Sequence[Any], end: int
    ) -> None:
        if start < end:
            await Ledger(work, self._codec).apply(TopicPartition(*place), start, records, end)

    async def switched(self, control: Connection, reached: Mapping[Place, int]) -> None:
        """The offsets have changed places with the rest: the processors go on by them."""

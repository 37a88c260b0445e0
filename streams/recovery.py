"""Folding what the log holds beyond a partition's checkpoint, after a restart or a takeover.

Events, audit and outcomes are read from the checkpoint to their ends and written to Postgres by the
same code that a batch uses, a chunk and a checkpoint at a time; the end is final because the caller
has fenced every older owner. The outcomes say how far the commands are done.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.failpoints import failpoint
from infra.ids import new_id
from infra.kafka import bounds, range_reader, read_range, stop_consumer
from projections import VIEWS
from projections.runner import apply, reduce_all
from schemas.codec import Codec
from schemas.envelope import from_headers
from streams.deciding import Registry, Workspace
from streams.effects import Effects, Recorded, StateKey
from streams.needs import needs_of_fold
from streams.store import Checkpoint, Store

FOLD_BATCH = 2000

Fold = Callable[[Sequence[Any]], Awaitable[Effects]]
Folded = Callable[[Effects, Checkpoint], None]


class Recovery:
    """One partition's way back. `folded(effects, checkpoint)` is told of each chunk written."""

    def __init__(
        self,
        *,
        bootstrap: str,
        partition: int,
        registry: Registry,
        codec: Codec,
        store: Store,
        connection: psycopg.AsyncConnection[Any],
        folded: Folded,
    ) -> None:
        self._bootstrap, self._partition = bootstrap, partition
        self._registry, self._codec = registry, codec
        self._store, self._connection, self._folded = store, connection, folded

    async def run(self, checkpoint: Checkpoint) -> Checkpoint:
        """Fold everything up to the ends of the topics; returns the checkpoint reached."""
        reader = range_reader(self._bootstrap, f"decider-{self._partition}-recovery")
        try:
            await reader.start()
            await self._fill_views(reader, checkpoint)
            folds: dict[str, Fold] = {
                "events": self._fold_events,
                "audit": self._fold_audit,
                "outcomes": self._fold_outcomes,
            }
            for topic, fold in folds.items():
                checkpoint = await self._replay(reader, topic, fold, checkpoint)
        finally:
            await stop_consumer(reader)
        return checkpoint

    async def _replay(
        self, reader: AIOKafkaConsumer, topic: str, fold: Fold, checkpoint: Checkpoint
    ) -> Checkpoint:
        partition = TopicPartition(topic, self._partition)
        reader.assign([partition])
        first, end = await bounds(reader, partition)
        field = f"{topic}_next"
        start = max(first, getattr(checkpoint, field))
        async for records in read_range(reader, partition, start, end, FOLD_BATCH):
            effects = await fold(records)
            done = [outcome.command_offset + 1 for _, outcome in effects.outcomes]
            after = msgspec.structs.replace(
                checkpoint,
                commands_next=max([checkpoint.commands_next, *done]),
                **{field: records[-1].offset + 1},
            )
            await self._store.apply(self._store.writes(effects), checkpoint, after)
            failpoint("recovery.folded")
            checkpoint = after
            self._folded(effects, checkpoint)
        return checkpoint

    async def _fold_events(self, records: Sequence[Any]) -> Effects:
        events = [self._recorded(record) for record in records]
        # Events of a stream that no decider of today folds stay in the log and are passed over.
        events = [item for item in events if _stream_of(item) in self._registry.by_stream]
        states = await self._store.states(needs_of_fold(self._registry, events))
        workspace = self._workspace(states)
        workspace.fold(events, (), ())
        return workspace.effects

    async def _fold_audit(self, records: Sequence[Any]) -> Effects:
        workspace = self._workspace({})
        workspace.fold((), [self._codec.decode(record.value) for record in records], ())
        return workspace.effects

    async def _fold_outcomes(self, records: Sequence[Any]) -> Effects:
        workspace = self._workspace({})
        outcomes = [
            (from_headers(record.headers).tenant, self._codec.decode(record.value))
            for record in records
        ]
        workspace.fold((), (), outcomes)
        return workspace.effects

    def _workspace(self, states: Mapping[StateKey, tuple[int, Any]]) -> Workspace:
        return Workspace(
            registry=self._registry,
            states=states,
            lookups={},
            outcomes={},
            heads={},
            new_id=new_id,
        )

    def _recorded(self, record: Any) -> Recorded:
        return Recorded(from_headers(record.headers), self._codec.decode(record.value))

    async def _fill_views(self, reader: AIOKafkaConsumer, checkpoint: Checkpoint) -> None:
        """Fill new versions of views with this partition's history up to the checkpoint, all of
        them in one reading. What breaks off is done again from the beginning."""
        cursor = await self._connection.execute(
            "SELECT view_table FROM view_fills WHERE partition = %s", (self._partition,)
        )
        filled = {row["view_table"] for row in await cursor.fetchall()}
        views = [view for view in VIEWS if view.table not in filled]
        if not views:
            return
        partition = TopicPartition("events", self._partition)
        reader.assign([partition])
        first, _ = await bounds(reader, partition)
        end = checkpoint.events_next
        async for records in read_range(reader, partition, first, end, FOLD_BATCH):
            items = [self._recorded(record) for record in records]
            async with self._connection.transaction():
                await apply(self._connection, reduce_all(views, items))
        await self._connection.execute(
            "INSERT INTO view_fills SELECT unnest(%s::text[]), %s, %s ON CONFLICT DO NOTHING",
            ([view.table for view in views], self._partition, end),
        )


def _stream_of(item: Recorded) -> str:
    return item.envelope.stream.partition("/")[0]

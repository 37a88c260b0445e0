"""The approvals surface with a live tail: what is recorded goes to a log in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition

from api.approvals import ROUTES
from api.live import LiveHub
from api.subscription import Subscription
from schemas.approvals import EVENTS
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import to_headers
from streams.effects import Recorded
from tests.api.approvals.client import PATIENCE
from tests.api.approvals.conftest import Waitroom
from tests.api.approvals.tables import Tables
from tests.api.fake_log import FakeLog, FakeRecord
from tests.api.harness import Harness

CODEC = Codec(
    EVENTS,
    [
        SchemaVersion(number, tag_of(event), 1, derive(event))
        for number, event in enumerate(EVENTS, start=1)
    ],
)


class WatchedHub(LiveHub):
    """A hub that tells when somebody has joined."""

    joined: asyncio.Event

    def attach(self, subscription: Subscription) -> None:
        super().attach(subscription)
        self.joined.set()


class LiveWaitroom(Waitroom):
    """A Waitroom whose events reach `hub`, by way of `log`.

    views_lag: while it is true, events are on the log and not yet in the views.
    """

    def __init__(self, harness: Harness, tables: Tables, log: FakeLog, hub: WatchedHub) -> None:
        super().__init__(harness, tables)
        self.log, self.hub = log, hub
        self.views_lag = False
        self.views_next: dict[TopicPartition, int] = {}

    async def listening(self) -> None:
        """Wait until somebody has joined the tail."""
        async with asyncio.timeout(PATIENCE):
            await self.hub.joined.wait()


async def append(log: FakeLog, partition: TopicPartition, item: Recorded) -> None:
    """Put a recorded event on the log, as the decider loop writes it."""
    offset = log.end[partition]
    headers = tuple(to_headers(item.envelope))
    record = FakeRecord(*partition, offset, headers, CODEC.encode(item.event))
    log.records[partition].append(record)
    log.end[partition] = offset + 1
    async with log.changed:
        log.changed.notify_all()


@asynccontextmanager
async def live_waitroom() -> AsyncIterator[LiveWaitroom]:
    """A LiveWaitroom that is up."""
    log, tables = FakeLog(), Tables()
    hub = WatchedHub(log.consumer, CODEC)
    hub.joined = asyncio.Event()

    held: list[Recorded] = []

    async def apply(recorded: Sequence[Recorded]) -> None:
        for item in recorded:
            await append(log, hub.partition_of(item.envelope.tenant), item)
        if it.views_lag:
            held.extend(recorded)
        else:
            await tables.apply([*held, *recorded])
            it.views_next = dict(log.end)
            held.clear()

    def views_next(partition: int) -> list[dict[str, Any]]:
        return [{"events_next": it.views_next.get(TopicPartition("events", partition), 0)}]

    await hub.start()
    try:
        async with Harness(ROUTES, apply=apply) as harness:
            harness.services.live = hub
            tables.answer(harness.reads)
            harness.reads.when("decider_checkpoints", views_next)
            it = LiveWaitroom(harness, tables, log, hub)
            yield it
    finally:
        await hub.stop()

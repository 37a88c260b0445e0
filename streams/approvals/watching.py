"""The fan-out: an event of a room triggers the watchers that it matches.

It reads `events` in a consumer group of its own. For each batch, in this order: the watchers of the
rooms in it are looked up; each that an event matches is triggered by a command; the offsets are
committed. A crash anywhere repeats the batch, and the decider, which knows how far each watcher is,
triggers none twice. A watcher that an agent was told of is in the table before anything that was
decided later is read here.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import psycopg
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from commands.approvals.watch_filter import passes
from commands.approvals.watcher import TriggerWatcher
from infra.failpoints import failpoint
from infra.ids import command_id
from infra.kafka import LogUnavailable, consumer, header, stop_consumer
from infra.postgres import DatabaseUnavailable, Reads, Row
from projections.approvals.watchers import OF_ROOMS
from schemas.codec import Codec, Undecodable
from schemas.envelope import SYSTEM, Envelope, from_headers
from schemas.instants import iso
from schemas.types import Json
from streams.approvals.room_feed import Told, of_a_room, told_of
from streams.bus import CommandRequest, KafkaCommandBus

logger = logging.getLogger(__name__)

GROUP = "streams.approvals.watchers.v1"
_TRIGGERED = "watcher.triggered"
_BATCH_MAX = 500
_POST_MAX = 500
# What passes by itself.
_FORESEEN = (
    LogUnavailable,
    DatabaseUnavailable,
    KafkaError,
    psycopg.errors.UndefinedTable,  # the deciders make it when they start
)


class Happened(NamedTuple):
    """An event of a room, where it lies, and what is told of it. fields: as decoded JSON."""

    envelope: Envelope
    room_id: str
    partition: int
    offset: int
    told: Told
    fields: Any


def happened(envelope: Envelope, event: Any, partition: int, offset: int) -> Happened | None:
    """An event as watchers see it; None for what they are not told of."""
    told = told_of(envelope, event)
    if told is None or told.name == _TRIGGERED:
        return None  # a watcher that watches watchers would never end
    fields = msgspec.json.decode(msgspec.json.encode(told.fields))
    return Happened(envelope, event.room_id, partition, offset, told, fields)


def matches(watcher: Row, event: Happened) -> bool:
    """Whether a watcher of the event's room wants it: made before it, and its type and fields."""
    return (
        event.told.name in watcher["event_types"]
        and watcher["created_at"] <= event.envelope.time
        and passes(watcher["filter"], event.fields)
    )


def body_of(event: Happened) -> Json:
    """The webhook's body, as Standard Webhooks recommends it."""
    body = {
        "type": event.told.name,
        "timestamp": iso(event.envelope.time),
        "data": event.told.fields,
    }
    return msgspec.json.encode(body).decode()


def triggers(events: Iterable[Happened], watchers: Sequence[Row]) -> list[CommandRequest]:
    """The commands that events set off, in the events' order. Pure."""
    of_room: dict[tuple[str, str], list[Row]] = {}
    for watcher in watchers:
        of_room.setdefault((watcher["tenant"], watcher["room_id"]), []).append(watcher)
    return [
        _trigger(watcher, event)
        for event in events
        for watcher in of_room.get((event.envelope.tenant, event.room_id), ())
        if matches(watcher, event)
    ]


def _trigger(watcher: Row, event: Happened) -> CommandRequest:
    tenant = event.envelope.tenant
    return CommandRequest(
        tenant=tenant,
        stream_id=watcher["id"],
        command=TriggerWatcher(
            room_id=watcher["room_id"],
            agent_id=watcher["agent_id"],
            event_id=event.envelope.id,
            event_type=event.told.name,  # type: ignore[arg-type]  # one that the watcher names
            body=body_of(event),
            partition=event.partition,
            offset=event.offset,
        ),
        actor=SYSTEM,
        command_id=command_id(tenant, f"{watcher['id']}\0{event.envelope.id}", "watcher"),
        fingerprint="watcher",
        correlation_id=event.envelope.correlation_id,
    )


class Watching:
    """Triggers watchers until cancelled; any number of processes may do so at once."""

    def __init__(
        self,
        *,
        bootstrap: str,
        codec: Codec,
        bus: KafkaCommandBus,
        reads: Reads,
        group: str = GROUP,
    ) -> None:
        self._bootstrap, self._codec, self._bus, self._reads = bootstrap, codec, bus, reads
        self._group = group

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        delay = 0.2
        while True:
            reader = consumer(
                self._bootstrap,
                self._group,
                group_id=self._group,
                auto_offset_reset="earliest",
                session_timeout_ms=10_000,
                rebalance_timeout_ms=20_000,
                fetch_max_wait_ms=100,
            )
            try:
                await reader.start()
                reader.subscribe(["events"])
                while True:
                    await self._batch(reader)
                    delay = 0.2
            except _FORESEEN as error:
                logger.warning("the fan-out to watchers starts over: %r", error)
            finally:
                await stop_consumer(reader)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    async def _batch(self, reader: AIOKafkaConsumer) -> None:
        found = await reader.getmany(timeout_ms=1_000, max_records=_BATCH_MAX)
        records = [record for batch in found.values() for record in batch]
        events = [event for record in records if (event := self._read(record)) is not None]
        if events:
            rooms = sorted({(event.envelope.tenant, event.room_id) for event in events})
            tenants, ids = (list(names) for names in zip(*rooms, strict=True))
            requests = triggers(events, await self._reads.all(OF_ROOMS, tenants, ids))
            # An event may trigger a hundred watchers, and the log takes only so much at once.
            for first in range(0, len(requests), _POST_MAX):
                await self._bus.post_many(requests[first : first + _POST_MAX])
                failpoint("watchers.posted")
        if found:
            await reader.commit()

    def _read(self, record: Any) -> Happened | None:
        if not of_a_room(header(record.headers, "ce_type")):
            return None
        try:
            envelope = from_headers(record.headers)
            event = self._codec.decode(record.value)
        except (Undecodable, KeyError, ValueError) as error:
            # Whoever wrote it knows more than this release: not ours to fail.
            logger.warning("an event of a room cannot be read: %r", error)
            return None
        return happened(envelope, event, record.partition, record.offset)

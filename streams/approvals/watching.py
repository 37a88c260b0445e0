"""The fan-out: an event of a room triggers the watchers that it matches.

For each batch of `events`, in this order: the watchers of the rooms in it are looked up; each that
an event matches is triggered by a command; the offsets are committed. A crash anywhere repeats the
batch, and the decider, which knows how far each watcher is, triggers none twice. A watcher that an
agent was told of is in the table before anything that was decided later is read here.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from commands.approvals.watch_filter import passes
from commands.approvals.watcher import TriggerWatcher
from commands.platform.webhook_endpoint import body_of
from infra.ids import command_id
from infra.postgres import Reads, Row
from projections.approvals.watchers import OF_ROOMS
from schemas.codec import Codec
from schemas.envelope import SYSTEM, Envelope
from streams.approvals.room_feed import Told, of_a_room, told_of
from streams.bus import CommandRequest, KafkaCommandBus
from streams.following import Followed, Follower
from streams.platform.fan_out import fan_out

GROUP = "streams.approvals.watchers.v1"
_TRIGGERED = "watcher.triggered"


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
            body=body_of(event.told.name, event.envelope.time, event.told.fields),
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
        self._bus, self._reads = bus, reads
        self._follower = Follower(
            bootstrap=bootstrap, group=group, codec=codec, wants=of_a_room, handle=self._handle
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        await self._follower.run()

    async def _handle(self, batch: Sequence[Followed]) -> None:
        events = [event for one in batch if (event := happened(*one)) is not None]
        if not events:
            return
        rooms = sorted({(event.envelope.tenant, event.room_id) for event in events})
        tenants, ids = (list(names) for names in zip(*rooms, strict=True))
        requests = triggers(events, await self._reads.all(OF_ROOMS, tenants, ids))
        await fan_out(self._bus, requests)

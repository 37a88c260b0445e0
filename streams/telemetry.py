"""The telemetry path: what agents report goes to the log, and nothing else is asked.

The API validates and calls `Telemetry.record`; it returns when Kafka has acknowledged. One record
holds what one request reported, keyed by run (or by tenant, where there is no run), so that a run's
reports stay in one partition. A large report becomes several records of at most `MAX_EVENT_BYTES`.

Ids: an item keeps the client's id, else it gets one made of the request's command id and its place
in the request, so that a repeat under the same Idempotency-Key makes the same ids and counts once.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Protocol, cast

from msgspec import Struct, structs

from infra.clock import SYSTEM_CLOCK, Clock
from infra.failpoints import failpoint
from infra.kafka import Record
from schemas.avro_derivation import tag_of
from schemas.codec import Codec, load_schemas
from schemas.envelope import Actor, Envelope, Position, to_headers
from schemas.observability import EVENTS
from schemas.observability.governance import GovernanceEventsRecorded
from schemas.observability.run import ITEMS as ITEMS_OF_RUNS
from schemas.observability.run import STREAM, RunEvent, RunStarted
from streams.sealing import Seal, sealed

TelemetryEvent = RunEvent | GovernanceEventsRecorded
Encode = Callable[[TelemetryEvent], bytes]

TOPIC = "telemetry"
MAX_EVENT_BYTES = 900_000
ITEMS_PER_RECORD = 500
ITEMS: dict[type[Struct], str] = {**ITEMS_OF_RUNS, GovernanceEventsRecorded: "events"}
"""The list of items in an event that can be cut into several."""


class Appender(Protocol):
    """The log, as far as telemetry needs it (`infra.kafka.Log`)."""

    async def append(self, topic: str, records: Sequence[Record]) -> list[Position]: ...


class ItemTooLarge(ValueError):
    """One item alone exceeds what a record may hold. `field` names it, such as `calls[3]`."""

    def __init__(self, field: str, size: int) -> None:
        super().__init__(f"{size} bytes, at most {MAX_EVENT_BYTES} fit")
        self.field = field


class Origin(Struct, frozen=True):
    """Whose report it is and which request brought it; attempt: as `Envelope` has it."""

    tenant: str
    actor: Actor
    command_id: str
    correlation_id: str = ""
    attempt: str = ""


@cache
def codec() -> Codec:
    """The codec of telemetry events."""
    return Codec(EVENTS, load_schemas())


def item_id(prefix: str, command_id: str, index: int) -> str:
    """The id of a request's item that came without one: the same request, the same id."""
    return f"{prefix}_{command_id.removeprefix('cmd_')}_{index}"


class Telemetry:
    """Appends reports."""

    def __init__(self, log: Appender, clock: Clock = SYSTEM_CLOCK) -> None:
        self._log, self._clock = log, clock

    async def record(
        self,
        origin: Origin,
        key: str,
        events: Sequence[TelemetryEvent],
        *,
        stream: str = STREAM,
        at: int | None = None,
        seal: Seal | None = None,
    ) -> Position:
        """Append what one request reported of one run, in order; the position of the last event.

        key: the id of the run, or of what else the stream is named by. at: when the report arrived,
        now unless given. seal: for a run that is for a person.

        Raises LogUnavailable (a part may be in: a repeat with the same ids is safe), ItemTooLarge
        (nothing is in).
        """
        time = self._clock.now() if at is None else at
        seals = {} if seal is None else {key: seal}
        return (await self._append(origin, stream, {key: events}, time, seals))[-1]

    async def record_runs(
        self,
        origin: Origin,
        runs: Mapping[str, Sequence[RunEvent]],
        seals: Mapping[str, Seal],
    ) -> list[Position]:
        """Append what one request reported of several runs, by their ids; where each record lies.

        seals: of those runs that are for a person. Raises as `record` does.
        """
        return await self._append(origin, STREAM, runs, self._clock.now(), seals)

    async def _append(
        self,
        origin: Origin,
        stream: str,
        reports: Mapping[str, Sequence[TelemetryEvent]],
        time: int,
        seals: Mapping[str, Seal],
    ) -> list[Position]:
        body = origin.command_id.removeprefix("cmd_")
        records: list[Record] = []
        for key, events in reports.items():
            place = f"{stream}/{key}"
            seal = seals.get(key)
            sealed_for = "" if seal is None or seal.key is None else seal.key.name
            encode = _encoding(seal, origin.tenant, place)
            for tag, value in await _encode_all(events, encode):
                envelope = Envelope(
                    id=f"evt_{body}_{len(records)}",
                    type=tag,
                    tenant=origin.tenant,
                    stream=place,
                    version=0,
                    time=time,
                    actor=origin.actor,
                    correlation_id=origin.correlation_id,
                    causation_id=origin.command_id,
                    attempt=origin.attempt,
                    sealed_for=sealed_for,
                )
                records.append(Record(key.encode(), value, to_headers(envelope)))
        positions = await self._log.append(TOPIC, records)
        failpoint("telemetry.appended")
        return positions


def _encode_clear(event: TelemetryEvent) -> bytes:
    """Raises ValueError for a run that is for a user: what is told of a person is sealed."""
    if isinstance(event, RunStarted) and event.user_id:
        raise ValueError("a run that is for a user needs a seal")
    return codec().encode(event)


def _encoding(seal: Seal | None, tenant: str, stream: str) -> Encode:
    """How events of a stream become bytes."""
    if seal is None:
        return _encode_clear
    # Only a run is for a person.
    return lambda event: codec().encode(sealed(cast(RunEvent, event), seal, tenant, stream))


async def _encode_all(events: Sequence[TelemetryEvent], encode: Encode) -> list[tuple[str, bytes]]:
    """Every event as one or more (tag, record value). Raises ItemTooLarge."""
    parts: list[tuple[str, bytes]] = []
    for event in events:
        name = ITEMS.get(type(event), "")
        count = len(getattr(event, name)) if name else 0
        if count <= ITEMS_PER_RECORD:
            parts += _encode(event, name, 0, encode)
            continue
        for first in range(0, count, ITEMS_PER_RECORD):
            part = _part(event, name, first, first + ITEMS_PER_RECORD)
            parts += _encode(part, name, first, encode)
            # Thousands of items take long: other requests go on meanwhile.
            await asyncio.sleep(0)
    return parts


def _encode(
    event: TelemetryEvent, name: str, first: int, encode: Encode
) -> list[tuple[str, bytes]]:
    """One event, halved until each part fits; `first` is the index of its first item."""
    value = encode(event)
    if len(value) <= MAX_EVENT_BYTES:
        return [(tag_of(type(event)), value)]
    count = len(getattr(event, name)) if name else 0
    if count < 2:
        raise ItemTooLarge(f"{name}[{first}]" if name else "", len(value))
    middle = count // 2
    return [
        *_encode(_part(event, name, 0, middle), name, first, encode),
        *_encode(_part(event, name, middle, count), name, first + middle, encode),
    ]


def _part(event: TelemetryEvent, name: str, begin: int, end: int) -> TelemetryEvent:
    """The event with only these of its items."""
    part: TelemetryEvent = structs.replace(event, **{name: getattr(event, name)[begin:end]})
    return part

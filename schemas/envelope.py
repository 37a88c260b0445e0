"""The envelope of every record on the log: CloudEvents 1.0 attributes carried as Kafka headers.

The Kafka protocol binding of CloudEvents (binary mode) puts each attribute in a `ce_` header; the
payload is the Avro body. Extension names are lower-case letters only, as the specification asks.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from schemas.instants import iso, parse_iso

ActorKind = Literal["user", "agent", "api_key", "system", "anonymous"]

SPEC_VERSION = b"1.0"
CONTENT_TYPE = b"application/avro"
ATTEMPT = "ce_attempt"
"""The header of `Envelope.attempt`."""
SEALED_FOR = "ce_sealedfor"
"""The header of `Envelope.sealed_for`: the last one, so that one look tells whether it is there."""


class Actor(Struct, frozen=True):
    """Who caused a command or an event. `id` is the user's, agent's or key's public id."""

    kind: ActorKind
    id: str
    name: str = ""


SYSTEM = Actor("system", "weir")


class Envelope(Struct, frozen=True):
    """What is known of an event besides its payload.

    id: unique per event (`evt_…`). type: the tag, `domain.name.vN`. tenant: the owner.
    stream: `domain.stream/id`. version: 1..n within the stream. time: microseconds since 1970 UTC.
    correlation_id: the HTTP request's id. causation_id: the command's (or event's) id.
    attempt: of a report without an Idempotency-Key: which API process took it, and a keyed hash of
    the request, as `process.hash`, by which a repeat is known if that process has died.
    sealed_for: the name of the person's key that the event's personal fields are sealed under,
    empty where nothing is sealed (`schemas.observability.personal`).
    """

    id: str
    type: str
    tenant: str
    stream: str
    version: int
    time: int
    actor: Actor
    correlation_id: str = ""
    causation_id: str = ""
    source: str = "weir"
    attempt: str = ""
    sealed_for: str = ""

    @property
    def stream_id(self) -> str:
        """The id part of `stream`."""
        return self.stream.partition("/")[2]


class Position(Struct, frozen=True, order=True):
    """A place in the log, written `topic:partition:offset`. The only cursor there is."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `topic:partition:offset`; raises ValueError on anything else."""
        topic, partition, offset = text.rsplit(":", 2)
        if not topic:
            raise ValueError("a position names its topic")
        return cls(topic, int(partition), int(offset))


Headers = list[tuple[str, bytes]]


def to_headers(envelope: Envelope) -> Headers:
    """CloudEvents headers of an envelope, in a fixed order."""
    headers: Headers = [
        ("ce_specversion", SPEC_VERSION),
        ("ce_id", envelope.id.encode()),
        ("ce_type", envelope.type.encode()),
        ("ce_source", envelope.source.encode()),
        ("ce_time", iso(envelope.time).encode()),
        ("ce_subject", envelope.stream.encode()),
        ("ce_tenant", envelope.tenant.encode()),
        ("ce_streamversion", str(envelope.version).encode()),
        ("ce_actorkind", envelope.actor.kind.encode()),
        ("ce_actorid", envelope.actor.id.encode()),
        ("content-type", CONTENT_TYPE),
    ]
    if envelope.actor.name:
        headers.append(("ce_actorname", envelope.actor.name.encode()))
    if envelope.correlation_id:
        headers.append(("ce_correlationid", envelope.correlation_id.encode()))
    if envelope.causation_id:
        headers.append(("ce_causationid", envelope.causation_id.encode()))
    if envelope.attempt:
        headers.append((ATTEMPT, envelope.attempt.encode()))
    if envelope.sealed_for:
        headers.append((SEALED_FOR, envelope.sealed_for.encode()))
    return headers


def from_headers(headers: Iterable[tuple[str, bytes]]) -> Envelope:
    """Read an envelope back. Raises KeyError when a required attribute is missing."""
    found = {name: value.decode() for name, value in headers}
    return Envelope(
        id=found["ce_id"],
        type=found["ce_type"],
        tenant=found["ce_tenant"],
        stream=found["ce_subject"],
        version=int(found["ce_streamversion"]),
        time=parse_iso(found["ce_time"]),
        actor=Actor(
            found["ce_actorkind"],  # type: ignore[arg-type]  # written by to_headers only
            found["ce_actorid"],
            found.get("ce_actorname", ""),
        ),
        correlation_id=found.get("ce_correlationid", ""),
        causation_id=found.get("ce_causationid", ""),
        source=found["ce_source"],
        attempt=found.get(ATTEMPT, ""),
        sealed_for=found.get(SEALED_FOR, ""),
    )

"""Kafka records for tests of what reads the log, made without a broker."""

from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from infra.ids import Signer
from infra.objects import Objects
from schemas import EVENTS
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import Actor, Envelope, Headers, to_headers
from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import GENESIS_HASH, seal
from streams.person_keys import PersonKeys
from streams.sealing import Keyring

HOUR = 3_600_000_000
START = 1_700_000_000_000_000


class Line(Struct, frozen=True):
    """Nested in Sample."""

    name: str
    amount: float


class Sample(Struct, frozen=True, tag="billing.sample_taken.v1"):
    """One field of each kind that events have."""

    name: str
    count: int
    rate: float
    flag: bool
    blob: bytes
    lines: list[Line]
    tags: dict[str, str]
    maybe: Line | None = None


TYPES: list[type[Struct]] = [*EVENTS, Sample]


def sample_codec() -> Codec:
    """A codec that knows every event and Sample, from the structs alone."""
    schemas = [
        SchemaVersion(number, tag_of(struct), 1, derive(struct))
        for number, struct in enumerate(TYPES, 1)
    ]
    return Codec(TYPES, schemas)


def no_keys() -> Keyring:
    """A keyring that opens nothing."""
    return Keyring(PersonKeys(Objects("memory:///"), Signer(bytes(32))), sample_codec())


@dataclass
class FakeRecord:
    """What aiokafka hands out, as far as it is read."""

    topic: str = "billing"
    partition: int = 0
    offset: int = 0
    timestamp: int = START // 1000
    key: bytes | None = b"ten_1"
    value: bytes | None = None
    headers: Headers = field(default_factory=list)


def sample(number: int, **changes: Any) -> Sample:
    """The n-th sample; two of them differ."""
    fields: dict[str, Any] = {
        "name": f'n{number}, "Ünï"\n;',
        "count": number * 2**40,
        "rate": number / 8,
        "flag": number % 2 == 0,
        "blob": bytes([number % 256, 0, 255]),
        "lines": [Line("a", 0.1), Line("b", float(number))],
        "tags": {"k": "v"},
        "maybe": Line("only", 1.0) if number % 2 else None,
    }
    return Sample(**(fields | changes))


def headers_of(event: Struct, number: int, tenant: str = "ten_1") -> Headers:
    """The headers of the n-th event; its time is `number` seconds after START."""
    return to_headers(
        Envelope(
            id=f"evt_{number}",
            type=tag_of(type(event)),
            tenant=tenant,
            stream=f"billing.sample/{number % 3}",
            version=number + 1,
            time=START + number * 1_000_000,
            actor=Actor("user", "usr_1", "Ada"),
            correlation_id="req_1",
            causation_id="cmd_1",
        )
    )


def sample_record(codec: Codec, number: int, **changes: Any) -> FakeRecord:
    """The record of the n-th sample, at offset n."""
    event = sample(number)
    record = FakeRecord(
        offset=number,
        timestamp=(START + number * 1_000_000) // 1000,
        value=codec.encode(event),
        headers=headers_of(event, number),
    )
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def audit_record(seq: int, tenant: str = "ten_1", **changes: Any) -> AuditRecorded:
    """An unsealed audit record."""
    fields: dict[str, Any] = {
        "tenant": tenant,
        "seq": seq,
        "at": START + seq * 1_000_000,
        "actor_kind": "user",
        "actor_id": "usr_1",
        "actor_name": 'Ada "the first", Countess',
        "action": "approvals.create_room",
        "resource_type": "approvals.room",
        "resource_id": f"room_{seq}",
        "outcome": "accepted",
        "command_id": f"cmd_{seq}",
        "correlation_id": "req_1",
        "details": '{"name": "Zürich"}',
        "events": ["approvals.room_created.v1"],
        "related": ["approvals.agent/agt_1"],
    }
    return AuditRecorded(**(fields | changes))


def audit_chain(length: int, tenant: str = "ten_1") -> list[AuditRecorded]:
    """A sealed chain of so many records."""
    records: list[AuditRecorded] = []
    for seq in range(1, length + 1):
        prev = records[-1].hash if records else GENESIS_HASH
        records.append(seal(audit_record(seq, tenant), prev))
    return records


def audit_log_record(codec: Codec, record: AuditRecorded, offset: int) -> FakeRecord:
    """An audit record as it stands on the topic."""
    envelope = Envelope(
        id=f"aud_{record.tenant}_{record.seq}",
        type=tag_of(AuditRecorded),
        tenant=record.tenant,
        stream=f"platform.audit/{record.tenant}",
        version=record.seq,
        time=record.at,
        actor=Actor("system", "weir"),
    )
    return FakeRecord(
        topic="audit", offset=offset, value=codec.encode(record), headers=to_headers(envelope)
    )

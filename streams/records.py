"""What a batch writes to Kafka, as records. Pure."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from infra.kafka import Record
from schemas.avro_derivation import tag_of
from schemas.codec import Codec
from schemas.envelope import SYSTEM, Envelope, to_headers
from schemas.platform.audit import AuditRecorded
from schemas.platform.outcome import CommandHandled
from schemas.topics import copy_targets
from streams.bus import Reply
from streams.effects import Dead, Effects, Recorded


def records_of(effects: Effects, codec: Codec) -> dict[str, list[Record]]:
    """The records for the batch's own partition, by topic, each topic's in order."""
    found: dict[str, list[Record]] = {}
    for recorded in effects.events:
        record = _event_record(recorded, codec)
        found.setdefault("events", []).append(record)
        for topic in copy_targets(recorded.envelope.type):
            if topic.copy_key is None:
                found.setdefault(topic.name, []).append(record)
    if effects.audit:
        found["audit"] = [_audit_record(record, codec) for record in effects.audit]
    if effects.outcomes:
        found["outcomes"] = [_outcome_record(*item, codec) for item in effects.outcomes]
    return found


def keyed_copies_of(effects: Effects, codec: Codec) -> Iterable[tuple[str, Record]]:
    """The copies whose topic has another key, hence other partitions, with the topic of each."""
    for recorded in effects.events:
        for topic in copy_targets(recorded.envelope.type):
            if topic.copy_key is not None:
                key = str(getattr(recorded.event, topic.copy_key)).encode()
                yield topic.name, _event_record(recorded, codec)._replace(key=key)


def dead_record(dead: Dead) -> Record:
    """The record of a command that is put aside."""
    headers = [("reason", dead.reason.encode()), ("incident", dead.incident.encode())]
    return Record(dead.key, dead.raw, headers)


def reply_record(outcome: CommandHandled, position: str) -> Record:
    """The answer to who waits; `position` is how far the log was then."""
    instance, _, partition = outcome.reply_to.partition("/")
    reply = Reply(
        command_id=outcome.command_id,
        status=outcome.status,
        code=outcome.code,
        kind=outcome.kind,
        message=outcome.message,
        details=outcome.details,
        answer=outcome.answer,
        stream=outcome.stream,
        version=outcome.version,
        position=position,
        replayed=outcome.replay,
        incident=outcome.incident,
    )
    return Record(instance.encode(), msgspec.json.encode(reply), [], int(partition))


def _event_record(recorded: Recorded, codec: Codec) -> Record:
    return _record(recorded.envelope, recorded.event, codec)


def _audit_record(record: AuditRecorded, codec: Codec) -> Record:
    envelope = Envelope(
        id=f"aud_{record.tenant}_{record.seq}",
        type=tag_of(AuditRecorded),
        tenant=record.tenant,
        stream=f"platform.audit/{record.tenant}",
        version=record.seq,
        time=record.at,
        actor=SYSTEM,
        correlation_id=record.correlation_id,
        causation_id=record.command_id,
    )
    return _record(envelope, record, codec)


def _outcome_record(tenant: str, outcome: CommandHandled, codec: Codec) -> Record:
    envelope = Envelope(
        id=outcome.command_id,
        type=tag_of(CommandHandled),
        tenant=tenant,
        stream=outcome.stream,
        version=outcome.version,
        time=outcome.at,
        actor=SYSTEM,
    )
    return _record(envelope, outcome, codec)


def _record(envelope: Envelope, value: Struct, codec: Codec) -> Record:
    return Record(envelope.tenant.encode(), codec.encode(value), to_headers(envelope))

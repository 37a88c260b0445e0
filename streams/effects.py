"""What a batch of commands reads and does, as values: commands, events, all that follows."""

from typing import Any, NamedTuple

from msgspec import Struct

from schemas.envelope import Envelope
from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import Link
from schemas.platform.outcome import CommandHandled

StateKey = tuple[str, str, str]  # tenant, stream type, stream id
LookupKey = tuple[str, str, str]  # tenant, index, key


class Incoming(NamedTuple):
    """A command as read. `command` is None when its bytes could not be decoded."""

    offset: int
    envelope: Envelope
    command: Struct | None
    fingerprint: str = ""
    reply_to: str = ""
    timer: str = ""
    key: bytes = b""
    raw: bytes = b""
    error: str = ""


class Recorded(NamedTuple):
    """An event with its envelope."""

    envelope: Envelope
    event: Struct


class Dead(NamedTuple):
    """A command for the dead-letter topic, with the reason."""

    key: bytes
    raw: bytes
    reason: str
    incident: str


class TimerChange(NamedTuple):
    """A timer of a stream set (`due_at` and `command` given) or cleared."""

    tenant: str
    stream: str
    name: str
    due_at: int = 0
    command: Struct | None = None


class Effects:
    """All that a batch does. Events, audit, outcomes and dead letters go to Kafka, the rest to
    Postgres."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.audit: list[AuditRecorded] = []
        self.outcomes: list[tuple[str, CommandHandled]] = []
        self.dead: list[Dead] = []
        self.states: dict[StateKey, tuple[int, Any]] = {}
        self.lookups: dict[LookupKey, str | None] = {}
        self.heads: dict[str, Link] = {}
        self.timers: list[TimerChange] = []


def split_stream(stream: str) -> tuple[str, str]:
    """The type and the id of a stream such as `approvals.room/room_06f3…`."""
    kind, _, id = stream.partition("/")
    return kind, id

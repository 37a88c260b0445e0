"""What the API asks of a decider and what it hears back."""

from typing import Literal

from msgspec import Struct

from schemas.envelope import Actor
from schemas.types import Json


class CommandRequest(Struct, frozen=True):
    """One command on its way to the decider of its tenant.

    fingerprint: SHA-256 of method, path and body when the client gave an Idempotency-Key, so that
    the same key with another request is told apart.
    """

    tenant: str
    stream_id: str
    command: Struct
    actor: Actor
    command_id: str
    fingerprint: str = ""
    correlation_id: str = ""


class Reply(Struct, frozen=True):
    """What became of a command. `position` is where its last event lies in the log."""

    command_id: str
    status: Literal["accepted", "refused", "failed"]
    code: str = ""
    kind: str = ""
    message: str = ""
    details: Json = "{}"
    answer: Json = "null"
    stream: str = ""
    version: int = 0
    position: str = ""
    replayed: bool = False
    incident: str = ""


class OutcomeUnknown(Exception):
    """The command is on the log, or may be, but no reply came in time."""

    def __init__(self, command_id: str) -> None:
        super().__init__(f"the outcome of {command_id} is not known yet")
        self.command_id = command_id


class LogUnavailable(Exception):
    """Kafka could not be reached in time: nothing was recorded."""

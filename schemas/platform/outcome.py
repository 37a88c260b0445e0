"""What became of a command, on the internal topic `outcomes`."""

from msgspec import Struct

from schemas.platform.audit import AuditOutcome
from schemas.types import Json


class CommandHandled(Struct, frozen=True, kw_only=True, tag="platform.command_handled.v1"):
    """One per command read, in the transaction of its events.

    Its `command_offset` is how far the partition's commands are done: the consumed offset of the
    transaction, kept where the fold can read it. `replay` marks the repeat of an idempotent
    command: it advances the offset and is not an outcome of its own.
    """

    command_id: str
    command_offset: int
    at: int
    status: AuditOutcome
    fingerprint: str = ""
    code: str = ""
    kind: str = ""
    message: str = ""
    details: Json = "{}"
    answer: Json = "null"
    stream: str = ""
    version: int = 0
    events: int = 0
    incident: str = ""
    reply_to: str = ""
    timer: str = ""
    replay: bool = False

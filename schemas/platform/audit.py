"""The audit record: one for every decision, numbered and hash-chained per tenant."""

from typing import Literal

from msgspec import Struct

from schemas.envelope import ActorKind
from schemas.types import Json, Micros

AuditOutcome = Literal["accepted", "refused", "failed"]


class AuditRecorded(Struct, frozen=True, tag="platform.audit_recorded.v1", kw_only=True):
    """A command was decided: who asked for what, and what became of it.

    tenant, seq: the record's place, 1..n without a gap for each tenant. prev_hash: the hash of the
    record before it (64 zeros for the first). hash: SHA-256 over all other fields in canonical form
    (`schemas.platform.audit_chain`). at: when it was decided, microseconds. action: the command's
    tag without its version. resource_type, resource_id: the stream it was sent to.
    code, message: why it was not accepted. details: what the command says of itself, no secrets.
    events: the types of the events it recorded. related: other streams that the decision read or
    wrote, `domain.stream/id` each, so that a room's trail finds the check-ins in it.
    """

    tenant: str
    seq: int
    at: Micros
    actor_kind: ActorKind
    actor_id: str
    action: str
    resource_type: str
    resource_id: str
    outcome: AuditOutcome
    command_id: str
    actor_name: str = ""
    code: str = ""
    message: str = ""
    correlation_id: str = ""
    details: Json = "{}"
    events: list[str] = []
    related: list[str] = []
    prev_hash: str = ""
    hash: str = ""

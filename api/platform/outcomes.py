"""What became of a command: the way out of a 503 `outcome_unknown`."""

from typing import Literal

import msgspec
from msgspec import Struct

from api.problems import Problem
from api.routing import Call
from schemas.platform.outcome import CommandHandled

_BY_ID = "SELECT outcome FROM decider_outcomes WHERE tenant = %s AND command_id = %s"


class Outcome(Struct, frozen=True, kw_only=True):
    """answer: what the decider told, the same that the first reply carried."""

    command_id: str
    status: Literal["accepted", "refused", "failed"]
    code: str = ""
    message: str = ""
    incident_id: str = ""
    stream: str = ""
    version: int = 0
    answer: msgspec.Raw


async def get_outcome(call: Call[None, None]) -> Outcome:
    """The outcome of one of the tenant's commands, for 24 hours."""
    command_id = call.path["command_id"]
    row = await call.services.reads.one(_BY_ID, call.tenant, command_id)
    if row is None:
        raise Problem(
            404,
            "not_found",
            "No outcome is known of such a command: it waits to be decided, or it never came; "
            "sending it again with the same Idempotency-Key is safe",
        )
    kept = msgspec.msgpack.decode(bytes(row["outcome"]), type=CommandHandled)
    return Outcome(
        command_id=command_id,
        status=kept.status,
        code=kept.code,
        message=kept.message,
        incident_id=kept.incident,
        stream=kept.stream,
        version=kept.version,
        answer=msgspec.Raw(kept.answer.encode()),
    )

"""`check_ins`: one row for each check-in, as it is now."""

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.statements import Put, Set, Statement, View
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInRejected,
    CheckInWithdrawn,
    Decision,
)
from schemas.approvals.vocabulary import CheckInStatus
from schemas.envelope import Envelope
from schemas.types import Json


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case CheckInCreated():
            return [Put(key, _asked(event))]
        case CheckInApproved():
            return [Set(key, _settled("approved", event.decision))]
        case CheckInRejected():
            return [Set(key, _settled("rejected", event.decision))]
        case CheckInModified():
            return [Set(key, _settled("modified", event.decision, event.modifications))]
        case CheckInWithdrawn():
            return [Set(key, _settled("withdrawn", event.decision))]
        case CheckInExpired():
            return [Set(key, _settled("expired", event.decision))]
        case CheckInHeld():
            return [Set(key, {"held_at": event.held_at, "updated_at": event.held_at})]
    return []


def _asked(event: CheckInCreated) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in event.__struct_fields__}
    values["verdict"] = msgspec.json.encode(event.verdict).decode()
    return values | {
        "held_at": None,
        "status": "pending",
        "decision": None,
        "modifications": None,
        "updated_at": event.created_at,
    }


def _settled(
    status: CheckInStatus, decision: Decision, modifications: Json | None = None
) -> dict[str, Any]:
    return {
        "status": status,
        "decision": msgspec.json.encode(decision).decode(),
        "modifications": modifications,
        "updated_at": decision.decided_at,
    }


CHECK_INS = View(
    name="check_ins",
    version=1,
    events=(
        CheckInCreated,
        CheckInApproved,
        CheckInRejected,
        CheckInModified,
        CheckInWithdrawn,
        CheckInExpired,
        CheckInHeld,
    ),
    columns={
        "tenant": "text",
        "id": "text",
        "room_id": "text",
        "agent_id": "text",
        "agent_name": "text",
        "action": "text",
        "description": "text",
        "risk_level": "text",
        "urgency": "text",
        "context": "text",  # canonical JSON, given back as it was hashed
        "payload_hash": "text",
        "verdict": "jsonb",
        "trust_score": "float8",
        "timeout_minutes": "integer",
        "timeout_action": "text",
        "created_at": "bigint",
        "due_at": "bigint",
        "held_at": "bigint",
        "status": "text",
        "decision": "jsonb",
        "modifications": "text",  # canonical JSON
        "updated_at": "bigint",
    },
    key=("tenant", "id"),
    indexes=("(tenant, room_id, status, created_at, id)",),
    reduce=reduce,
)

_SELECT = f"""
SELECT id, room_id, agent_id, agent_name, action, description, risk_level, urgency, context,
       payload_hash, verdict, trust_score, timeout_minutes, timeout_action, created_at, due_at,
       held_at, status, decision, modifications
FROM {CHECK_INS.table}
"""
BY_ID = f"{_SELECT} WHERE tenant = %s AND id = %s"
# What never changes of a check-in: whose it is. Parameters: tenant, id.
OWNERS = f"SELECT room_id, agent_id FROM {CHECK_INS.table} WHERE tenant = %s AND id = %s"


def page(
    tenant: str, room_id: str, filters: dict[str, str], after: tuple[int, str], limit: int
) -> tuple[str, list[Any]]:
    """SQL and parameters of a room's check-ins, newest first.

    filters: of the columns status, risk_level, urgency and agent_id, the values asked for. after:
    created_at and id of the last row seen.
    """
    where, parameters = ["tenant = %s", "room_id = %s"], [tenant, room_id]
    for column in ("status", "risk_level", "urgency", "agent_id"):
        if column in filters:
            where.append(f"{column} = %s")
            parameters.append(filters[column])
    sql = f"""{_SELECT} WHERE {" AND ".join(where)} AND (created_at, id) < (%s, %s)
ORDER BY created_at DESC, id DESC LIMIT %s"""
    return sql, [*parameters, *after, limit]

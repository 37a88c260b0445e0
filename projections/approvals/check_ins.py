"""`check_ins`: one row for each check-in, as it is now."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from projections.approvals.agents import AGENTS
from projections.statements import Put, Set, Statement, View, json_text
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInEscalated,
    CheckInEvent,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInOutcomeReported,
    CheckInRejected,
    CheckInVoted,
    CheckInWithdrawn,
    Decision,
)
from schemas.approvals.vocabulary import CheckInStatus
from schemas.envelope import Envelope
from schemas.types import Json
from schemas.unions import members


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
        case CheckInVoted():
            values = {
                "votes": json_text(event.votes),
                "proposed": event.modifications,
                "updated_at": event.votes[-1].voted_at,
            }
            return [Set(key, values)]
        case CheckInEscalated():
            values = {
                "escalated_at": event.escalated_at,
                "escalated_to": json_text(event.reviewers),
                "updated_at": event.escalated_at,
            }
            return [Set(key, values)]
        case CheckInOutcomeReported():
            reported_at = event.outcome.reported_at
            return [Set(key, {"outcome": json_text(event.outcome), "updated_at": reported_at})]
    return []


def _asked(event: CheckInCreated) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in event.__struct_fields__}
    for name in ("verdict", "escalate_to"):
        values[name] = json_text(values[name])
    return values | {
        "held_at": None,
        "status": "pending",
        "decision": None,
        "modifications": None,
        "votes": "[]",
        "proposed": None,
        "escalated_at": None,
        "escalated_to": "[]",
        "outcome": None,
        "updated_at": event.created_at,
    }


def _settled(
    status: CheckInStatus, decision: Decision, modifications: Json | None = None
) -> dict[str, Any]:
    return {
        "status": status,
        "decision": json_text(decision),
        "modifications": modifications,
        "updated_at": decision.decided_at,
    }


CHECK_INS = View(
    name="check_ins",
    version=2,
    events=members(CheckInEvent),
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
        "approvals_required": "integer",
        "votes": "jsonb",
        "proposed": "text",  # canonical JSON
        "escalate_at": "bigint",
        "escalate_to": "jsonb",
        "escalated_at": "bigint",
        "escalated_to": "jsonb",
        "outcome": "jsonb",
        "updated_at": "bigint",
    },
    key=("tenant", "id"),
    indexes=(
        "(tenant, room_id, status, created_at, id)",
        "(tenant, room_id, status, created_at, id) WHERE escalated_at IS NOT NULL",
        # What waits is looked through by these: the few critical ones among very many. Partial, so
        # that a decision costs them nothing but the end of an entry.
        "(tenant, room_id, risk_level, created_at, id) WHERE status = 'pending'",
        "(tenant, room_id, urgency, created_at, id) WHERE status = 'pending'",
        "(tenant, room_id, agent_id, created_at, id) WHERE status = 'pending'",
    ),
    reduce=reduce,
)

_SELECT = f"""
SELECT id, room_id, agent_id, agent_name, action, description, risk_level, urgency, context,
       payload_hash, verdict, trust_score, timeout_minutes, timeout_action, created_at, due_at,
       held_at, status, decision, modifications, approvals_required, votes, proposed, escalate_at,
       escalate_to, escalated_at, escalated_to, outcome
FROM {CHECK_INS.table}
"""
BY_ID = f"{_SELECT} WHERE tenant = %s AND id = %s"
# What was asked of those that were modified, and the changes. Parameters: tenant, ids (text[]).
MODIFIED = f"""
SELECT id, action, context, modifications, payload_hash FROM {CHECK_INS.table}
WHERE tenant = %s AND id = ANY(%s) AND modifications IS NOT NULL
"""
# What never changes of a check-in: whose it is. Parameters: tenant, id.
OWNERS = f"SELECT room_id, agent_id FROM {CHECK_INS.table} WHERE tenant = %s AND id = %s"


def page(
    tenant: str, room_id: str, filters: Mapping[str, Any], after: tuple[int, str], limit: int
) -> tuple[str, list[Any]]:
    """SQL and parameters of a room's check-ins, newest first.

    filters: of the columns status, risk_level, urgency and agent_id, the values asked for, and
    whether they were `escalated`. after: created_at and id of the last row seen.
    """
    where, parameters = ["tenant = %s", "room_id = %s"], [tenant, room_id]
    waiting = filters.get("status") == "pending"
    if waiting:
        where.append("status = 'pending'")  # as the indexes have it, so that any plan may use them
    for column in ("status", "risk_level", "urgency", "agent_id"):
        if column in filters and not (waiting and column == "status"):
            where.append(f"{column} = %s")
            parameters.append(filters[column])
    if "escalated" in filters:
        where.append(f"escalated_at IS {'NOT ' if filters['escalated'] else ''}NULL")
    sql = f"""{_SELECT} WHERE {" AND ".join(where)} AND (created_at, id) < (%s, %s)
ORDER BY created_at DESC, id DESC LIMIT %s"""
    return sql, [*parameters, *after, limit]


_STATUSES = list(get_args(CheckInStatus))
_ASKED = f"""
SELECT c.*, coalesce(a.platform, '') AS platform
FROM unnest(%s::text[]) AS of(status), LATERAL (
  SELECT id, tenant, agent_id, action, risk_level, urgency, context, created_at, trust_score,
         verdict, approvals_required, status
  FROM {CHECK_INS.table}
  WHERE tenant = %s AND room_id = %s AND status = of.status AND created_at >= %s
    AND (created_at, id) < (%s, %s)
  ORDER BY created_at DESC, id DESC LIMIT %s) AS c
LEFT JOIN {AGENTS.table} a ON a.tenant = c.tenant AND a.id = c.agent_id
ORDER BY c.created_at DESC, c.id DESC LIMIT %s
"""


def asked(
    tenant: str, room_id: str, since: int, after: tuple[int, str], limit: int
) -> tuple[str, list[Any]]:
    """SQL and parameters of what a room was asked since an instant (microseconds), newest first.

    Whatever became of it: each status is a range of the one index. after: created_at and id of the
    last row seen.
    """
    return _ASKED, [_STATUSES, tenant, room_id, since, *after, limit, limit]

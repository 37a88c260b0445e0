"""`tasks`: one row for each task, as it is now."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.approvals.task import (
    TaskClaimed,
    TaskClaimRenewed,
    TaskDecided,
    TaskEvent,
    TaskHelperJoined,
    TaskHelpRequested,
    TaskPosted,
    TaskReleased,
)
from schemas.envelope import Envelope
from schemas.unions import members

_UNCLAIMED = {
    "agent_id": "",
    "agent_name": "",
    "claimed": False,
    "claimed_at": None,
    "claimed_until": None,
    "claim_minutes": None,
    "help_body": None,
    "help_requested_at": None,
    "helpers": "[]",
}


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case TaskPosted():
            return [Put(key, _posted(event))]
        case TaskClaimed():
            return [Set(key, _claimed(event))]
        case TaskClaimRenewed():
            return [Set(key, {"claimed_until": event.claimed_until})]
        case TaskReleased():
            return [
                Set(key, _UNCLAIMED | {"status": "pending", "updated_at": event.released_at}),
            ]
        case TaskHelpRequested():
            values = {
                "help_body": event.body,
                "help_requested_at": event.requested_at,
                "updated_at": event.requested_at,
            }
            return [Set(key, values)]
        case TaskHelperJoined():
            helpers = json_text(event.helpers)
            return [Set(key, {"helpers": helpers, "updated_at": event.joined_at})]
        case TaskDecided():
            return [Set(key, _decided(event))]
    return []


def _posted(event: TaskPosted) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in event.__struct_fields__}
    return {
        **values,
        **_UNCLAIMED,
        "status": "pending",
        "decision": None,
        "modifications": None,
        "updated_at": event.posted_at,
    }


def _claimed(event: TaskClaimed) -> dict[str, Any]:
    return {
        "status": "in_progress",
        "agent_id": event.agent_id,
        "agent_name": event.agent_name,
        "claimed": True,
        "claimed_at": event.claimed_at,
        "claimed_until": event.claimed_until,
        "claim_minutes": event.claim_minutes,
        "updated_at": event.claimed_at,
    }


def _decided(event: TaskDecided) -> dict[str, Any]:
    return {
        "status": event.status,
        "decision": json_text(event.decision),
        "modifications": event.modifications,
        "updated_at": event.decision.decided_at,
    }


TASKS = View(
    name="tasks",
    version=1,
    events=members(TaskEvent),
    columns={
        "tenant": "text",
        "id": "text",
        "room_id": "text",
        "action": "text",
        "description": "text",
        "risk_level": "text",
        "urgency": "text",
        "context": "text",  # canonical JSON, given back as it was hashed
        "payload_hash": "text",
        "posted_by": "text",
        "posted_by_name": "text",
        "posted_at": "bigint",
        "status": "text",
        "agent_id": "text",
        "agent_name": "text",
        "claimed": "boolean",
        "claimed_at": "bigint",
        "claimed_until": "bigint",
        "claim_minutes": "integer",
        "help_body": "text",
        "help_requested_at": "bigint",
        "helpers": "jsonb",
        "decision": "jsonb",
        "modifications": "text",  # canonical JSON
        "updated_at": "bigint",
    },
    key=("tenant", "id"),
    # One for each way to ask, so that every page is read in its order and nothing is read for it.
    indexes=(
        "(tenant, room_id, posted_at, id)",
        "(tenant, room_id, status, posted_at, id)",
        "(tenant, room_id, claimed, posted_at, id)",
        "(tenant, agent_id, posted_at, id)",
        "(tenant, agent_id, status, posted_at, id)",
    ),
    reduce=reduce,
)

_SELECT = f"""
SELECT id, room_id, action, description, risk_level, urgency, context, payload_hash, posted_by,
       posted_by_name, posted_at, status, agent_id, agent_name, claimed, claimed_at, claimed_until,
       claim_minutes, help_body, help_requested_at, helpers, decision, modifications
FROM {TASKS.table}
"""
BY_ID = f"{_SELECT} WHERE tenant = %s AND id = %s"
# What was asked of those that were modified, and the changes. Parameters: tenant, ids (text[]).
MODIFIED = f"""
SELECT id, action, context, modifications, payload_hash FROM {TASKS.table}
WHERE tenant = %s AND id = ANY(%s) AND modifications IS NOT NULL
"""


def page(
    tenant: str, filters: dict[str, Any], after: tuple[int, str], limit: int
) -> tuple[str, list[Any]]:
    """SQL and parameters of tasks, newest first.

    filters: of the columns room_id, agent_id, status and claimed, the values asked for. after:
    posted_at and id of the last row seen.
    """
    where, parameters = ["tenant = %s"], [tenant]
    for column in ("room_id", "agent_id", "status", "claimed"):
        if column in filters:
            where.append(f"{column} = %s")
            parameters.append(filters[column])
    sql = f"""{_SELECT} WHERE {" AND ".join(where)} AND (posted_at, id) < (%s, %s)
ORDER BY posted_at DESC, id DESC LIMIT %s"""
    return sql, [*parameters, *after, limit]

"""`agents`: one row for each agent, deactivated ones too, with what its key is checked against."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.approvals.agent import AgentAdopted, AgentDeactivated, AgentEvent, AgentRegistered
from schemas.envelope import Envelope
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case AgentRegistered():
            return [
                Put(key, _new(event, event.room_scopes, event.registered_by, event.registered_at))
            ]
        case AgentAdopted():
            return [Put(key, _new(event, [], event.adopted_by, event.adopted_at))]
        case AgentDeactivated():
            return [Set(key, {"active": False, "updated_at": event.deactivated_at})]
    return []


def _new(
    event: AgentRegistered | AgentAdopted, room_scopes: list[str], by: str, at: int
) -> dict[str, Any]:
    return {
        "name": event.name,
        "description": event.description,
        "platform": event.platform,
        "room_scopes": json_text(room_scopes),
        "key_prefix": event.key_prefix,
        "key_hash": event.key_hash,
        "active": True,
        "registered_by": by,
        "registered_at": at,
        "updated_at": at,
    }


AGENTS = View(
    name="agents",
    version=1,
    events=members(AgentEvent),
    columns={
        "tenant": "text",
        "id": "text",
        "name": "text",
        "description": "text",
        "platform": "text",
        "room_scopes": "jsonb",
        "key_prefix": "text",
        "key_hash": "text",
        "active": "boolean",
        "registered_by": "text",
        "registered_at": "bigint",
        "updated_at": "bigint",
    },
    key=("tenant", "id"),
    indexes=("(key_prefix)", "(tenant, registered_at, id)"),
    reduce=reduce,
)

_SELECT = f"""
SELECT id, name, description, platform, room_scopes, key_prefix, active, registered_by,
       registered_at, updated_at
FROM {AGENTS.table}
"""
BY_ID = f"{_SELECT} WHERE tenant = %s AND id = %s"
# Parameters: tenant, then registered_at and id of the last row seen, then the limit.
PAGE = f"""{_SELECT} WHERE tenant = %s AND (registered_at, id) < (%s, %s)
ORDER BY registered_at DESC, id DESC LIMIT %s"""
# For authentication, across tenants. Two keys may share a prefix; the caller compares the hashes.
BY_KEY_PREFIX = f"""
SELECT tenant, id, name, key_hash, room_scopes, active
FROM {AGENTS.table} WHERE key_prefix = %s ORDER BY id LIMIT 10
"""

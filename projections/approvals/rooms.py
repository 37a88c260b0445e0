"""`rooms`: one row for each room, with its policies as they are now."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.approvals.room import RoomCreated, RoomEvent, RoomPoliciesReplaced
from schemas.envelope import Envelope
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case RoomCreated():
            values = {
                "slug": event.slug,
                "name": event.name,
                "description": event.description,
                "policies": json_text(event.policies),
                "owner_id": event.owner_id,
                "created_at": event.created_at,
                "updated_at": event.created_at,
            }
            return [Put(key, values)]
        case RoomPoliciesReplaced():
            values = {"policies": json_text(event.policies), "updated_at": event.replaced_at}
            return [Set(key, values)]
    return []


ROOMS = View(
    name="rooms",
    version=1,
    events=members(RoomEvent),
    columns={
        "tenant": "text",
        "id": "text",
        "slug": "text",
        "name": "text",
        "description": "text",
        "policies": "jsonb",
        "owner_id": "text",
        "created_at": "bigint",
        "updated_at": "bigint",
    },
    key=("tenant", "id"),
    indexes=("unique (tenant, slug)", "(tenant, created_at, id)"),
    reduce=reduce,
)

_SELECT = f"""
SELECT id, slug, name, description, policies, owner_id, created_at, updated_at
FROM {ROOMS.table}
"""
# Parameters: tenant, then the slug or the id. No slug can look like an id: ids hold an underscore.
BY_SLUG = f"{_SELECT} WHERE tenant = %s AND slug = %s"
BY_ID = f"{_SELECT} WHERE tenant = %s AND id = %s"
# Parameters: tenant, then created_at and id of the last row seen, then the limit.
PAGE = f"""{_SELECT} WHERE tenant = %s AND (created_at, id) < (%s, %s)
ORDER BY created_at DESC, id DESC LIMIT %s"""
# The same of the rooms that a key is scoped to; their ids (text[]) follow the tenant.
PAGE_OF_SCOPES = f"""{_SELECT}
WHERE tenant = %s AND id = ANY(%s) AND (created_at, id) < (%s, %s)
ORDER BY created_at DESC, id DESC LIMIT %s"""

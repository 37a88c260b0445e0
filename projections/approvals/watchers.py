"""`watchers`: one row for each watcher, removed ones too, and what triggered it last."""

from collections.abc import Sequence
from typing import Any

from projections.platform.webhook_endpoints import WEBHOOK_ENDPOINTS
from projections.statements import Put, Set, Statement, View, json_text
from schemas.approvals.watcher import WatcherCreated, WatcherEvent, WatcherRemoved, WatcherTriggered
from schemas.envelope import Envelope
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case WatcherCreated():
            values = {
                "room_id": event.room_id,
                "agent_id": event.agent_id,
                "event_types": json_text(event.event_types),
                "filter": event.filter,
                "webhook_url": event.webhook_url,
                "created_at": event.created_at,
                "removed_at": None,
                "triggered_at": None,
                "triggered_by": "",
            }
            return [Put(key, values)]
        case WatcherTriggered():
            values = {"triggered_at": event.triggered_at, "triggered_by": event.event_id}
            return [Set(key, values)]
        case WatcherRemoved():
            return [Set(key, {"removed_at": event.removed_at})]
    return []


WATCHERS = View(
    name="watchers",
    version=1,
    events=members(WatcherEvent),
    columns={
        "tenant": "text",
        "id": "text",
        "room_id": "text",
        "agent_id": "text",
        "event_types": "jsonb",
        "filter": "text",  # canonical JSON
        "webhook_url": "text",
        "created_at": "bigint",
        "removed_at": "bigint",
        "triggered_at": "bigint",
        "triggered_by": "text",
    },
    key=("tenant", "id"),
    indexes=("(tenant, room_id, created_at, id) WHERE removed_at IS NULL",),
    reduce=reduce,
)

_SELECT = f"""
SELECT w.id, w.room_id, w.agent_id, w.event_types, w.filter, w.webhook_url, w.created_at,
       w.triggered_at, w.triggered_by, e.status AS endpoint_status, e.reason AS endpoint_reason
FROM {WATCHERS.table} w
LEFT JOIN {WEBHOOK_ENDPOINTS.table} e ON e.tenant = w.tenant AND e.id = w.id
"""
BY_ID = f"{_SELECT} WHERE w.tenant = %s AND w.id = %s AND w.removed_at IS NULL"
# Parameters: tenant, room, agent twice (empty for every agent's), then created_at and id of the
# last row seen, then the limit.
PAGE = f"""{_SELECT}
WHERE w.tenant = %s AND w.room_id = %s AND w.removed_at IS NULL AND (%s = '' OR w.agent_id = %s)
  AND (w.created_at, w.id) < (%s, %s)
ORDER BY w.created_at DESC, w.id DESC LIMIT %s"""
# Every watcher of some rooms. Parameters: tenants and rooms, two lists of one length.
OF_ROOMS = f"""
SELECT tenant, id, room_id, agent_id, event_types, filter, created_at FROM {WATCHERS.table}
WHERE (tenant, room_id) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND removed_at IS NULL
ORDER BY tenant, id
"""

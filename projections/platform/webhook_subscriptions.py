"""`webhook_subscriptions`: one row for each, closed ones too; where it goes has its endpoint."""

from collections.abc import Sequence
from typing import Any

from projections.platform.webhook_endpoints import WEBHOOK_ENDPOINTS
from projections.statements import Put, Set, Statement, View, json_text
from schemas.envelope import Envelope
from schemas.platform.webhook_subscription import (
    WebhookDescribed,
    WebhookSubscribed,
    WebhookSubscriptionEvent,
    WebhookTriggered,
    WebhookTypesChosen,
    WebhookUnsubscribed,
)
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case WebhookSubscribed():
            values = {
                "event_types": json_text(event.event_types),
                "description": event.description,
                "created_at": event.subscribed_at,
                "created_by": envelope.actor.id,
                "closed_at": None,
                "triggered_at": None,
            }
            return [Put(key, values)]
        case WebhookTypesChosen():
            return [Set(key, {"event_types": json_text(event.event_types)})]
        case WebhookDescribed():
            return [Set(key, {"description": event.description})]
        case WebhookTriggered():
            return [Set(key, {"triggered_at": event.triggered_at})]
        case WebhookUnsubscribed():
            return [Set(key, {"closed_at": event.unsubscribed_at})]
    return []


WEBHOOK_SUBSCRIPTIONS = View(
    name="webhook_subscriptions",
    version=1,
    events=members(WebhookSubscriptionEvent),
    columns={
        "tenant": "text",
        "id": "text",
        "event_types": "jsonb",
        "description": "text",
        "created_at": "bigint",
        "created_by": "text",
        "closed_at": "bigint",
        "triggered_at": "bigint",
    },
    key=("tenant", "id"),
    indexes=("(tenant, created_at, id) WHERE closed_at IS NULL",),
    reduce=reduce,
)

_SELECT = f"""
SELECT s.id, s.event_types, s.description, s.created_at, s.created_by, s.triggered_at,
       e.url, e.status, e.reason
FROM {WEBHOOK_SUBSCRIPTIONS.table} s
JOIN {WEBHOOK_ENDPOINTS.table} e ON e.tenant = s.tenant AND e.id = s.id
"""
BY_ID = f"{_SELECT} WHERE s.tenant = %s AND s.id = %s AND s.closed_at IS NULL"
# Parameters: tenant, then (created_at, id) of the last row seen, then the limit.
PAGE = f"""{_SELECT}
WHERE s.tenant = %s AND s.closed_at IS NULL AND (s.created_at, s.id) < (%s, %s)
ORDER BY s.created_at DESC, s.id DESC LIMIT %s"""
# Of a tenant's others. Parameters: tenant, the id of the one that does not count.
COUNT = f"""
SELECT count(*) AS n FROM {WEBHOOK_SUBSCRIPTIONS.table}
WHERE tenant = %s AND id <> %s AND closed_at IS NULL
"""
# Every subscription of some tenants. Parameters: tenants (text[]).
OF_TENANTS = f"""
SELECT tenant, id, event_types, created_at FROM {WEBHOOK_SUBSCRIPTIONS.table}
WHERE tenant = ANY(%s) AND closed_at IS NULL ORDER BY tenant, id
"""

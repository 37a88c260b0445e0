"""`webhook_endpoints`: one row for each endpoint, closed ones too."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.envelope import Envelope
from schemas.platform.webhook import (
    WebhookEndpointClosed,
    WebhookEndpointDisabled,
    WebhookEndpointEnabled,
    WebhookEndpointMoved,
    WebhookEndpointOpened,
    WebhookSecretRotated,
)


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case WebhookEndpointOpened():
            values = {
                "url": event.url,
                "key_seed": event.key_seed,
                "retiring": "[]",
                "owner_id": event.owner_id,
                "status": "active",
                "reason": "",
                "opened_at": event.opened_at,
                "updated_at": event.opened_at,
            }
            return [Put(key, values)]
        case WebhookEndpointMoved():
            return [Set(key, {"url": event.url, "updated_at": event.moved_at})]
        case WebhookEndpointDisabled():
            values = {
                "status": "disabled",
                "reason": event.reason,
                "updated_at": event.disabled_at,
            }
            return [Set(key, values)]
        case WebhookEndpointEnabled():
            values = {"status": "active", "reason": "", "updated_at": event.enabled_at}
            return [Set(key, values)]
        case WebhookSecretRotated():
            retiring = json_text(event.retiring)
            return [Set(key, {"key_seed": event.key_seed, "retiring": retiring})]
        case WebhookEndpointClosed():
            return [Set(key, {"status": "closed", "updated_at": event.closed_at})]
    return []


WEBHOOK_ENDPOINTS = View(
    name="webhook_endpoints",
    version=2,
    events=(
        WebhookEndpointOpened,
        WebhookEndpointMoved,
        WebhookEndpointDisabled,
        WebhookEndpointEnabled,
        WebhookSecretRotated,
        WebhookEndpointClosed,
    ),
    columns={
        "tenant": "text",
        "id": "text",
        "url": "text",
        "key_seed": "text",
        "retiring": "jsonb",
        "owner_id": "text",
        "status": "text",
        "reason": "text",
        "opened_at": "bigint",
        "updated_at": "bigint",
    },
    key=("tenant", "id"),
    reduce=reduce,
)

"""Events of the platform domain: the audit trail and its exports, webhooks."""

from msgspec import Struct

from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_export import AuditExportEvent
from schemas.platform.outcome import CommandHandled
from schemas.platform.webhook import WebhookAttempted, WebhookEndpointEvent
from schemas.platform.webhook_subscription import WebhookSubscriptionEvent
from schemas.unions import members

EVENTS: list[type[Struct]] = [
    *members(AuditExportEvent),
    AuditRecorded,
    CommandHandled,
    *members(WebhookEndpointEvent),
    WebhookAttempted,
    *members(WebhookSubscriptionEvent),
]

"""Events of the platform domain: the audit trail and its exports, webhooks."""

from msgspec import Struct

from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_export import (
    AuditExportCompleted,
    AuditExportFailed,
    AuditExportRequested,
)
from schemas.platform.outcome import CommandHandled
from schemas.platform.webhook import (
    WebhookAttempted,
    WebhookEndpointClosed,
    WebhookEndpointDisabled,
    WebhookEndpointMoved,
    WebhookEndpointOpened,
    WebhookRedriven,
    WebhookRequested,
)
from schemas.platform.webhook_subscription import (
    WebhookDescribed,
    WebhookSubscribed,
    WebhookTriggered,
    WebhookTypesChosen,
    WebhookUnsubscribed,
)

EVENTS: list[type[Struct]] = [
    AuditExportCompleted,
    AuditExportFailed,
    AuditExportRequested,
    AuditRecorded,
    CommandHandled,
    WebhookEndpointOpened,
    WebhookEndpointMoved,
    WebhookEndpointDisabled,
    WebhookEndpointClosed,
    WebhookRequested,
    WebhookRedriven,
    WebhookAttempted,
    WebhookSubscribed,
    WebhookTypesChosen,
    WebhookDescribed,
    WebhookTriggered,
    WebhookUnsubscribed,
]

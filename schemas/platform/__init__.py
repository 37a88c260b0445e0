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
    WebhookEndpointEnabled,
    WebhookEndpointMoved,
    WebhookEndpointOpened,
    WebhookRedriven,
    WebhookRequested,
    WebhookSecretRotated,
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
    WebhookEndpointEnabled,
    WebhookSecretRotated,
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

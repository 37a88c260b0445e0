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
    WebhookEndpointOpened,
    WebhookRedriven,
    WebhookRequested,
)

EVENTS: list[type[Struct]] = [
    AuditExportCompleted,
    AuditExportFailed,
    AuditExportRequested,
    AuditRecorded,
    CommandHandled,
    WebhookEndpointOpened,
    WebhookEndpointDisabled,
    WebhookEndpointClosed,
    WebhookRequested,
    WebhookRedriven,
    WebhookAttempted,
]

"""Events of the platform domain: the audit trail and its exports."""

from msgspec import Struct

from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_export import (
    AuditExportCompleted,
    AuditExportFailed,
    AuditExportRequested,
)
from schemas.platform.outcome import CommandHandled

EVENTS: list[type[Struct]] = [
    AuditExportCompleted,
    AuditExportFailed,
    AuditExportRequested,
    AuditRecorded,
    CommandHandled,
]

"""`audit_exports`: one row for each export of an audit trail, and what became of it."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View
from schemas.envelope import Envelope
from schemas.platform.audit_export import (
    AuditExportCompleted,
    AuditExportEvent,
    AuditExportFailed,
    AuditExportRequested,
)
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "export_id": envelope.stream_id}
    match event:
        case AuditExportRequested():
            values = {
                "status": "processing",
                "format": event.format,
                "start_at": event.start_at,
                "end_at": event.end_at,
                "requested_at": envelope.time,
                "requested_by": envelope.actor.id,
            }
            return [Put(key, values)]
        case AuditExportCompleted():
            result = {
                "status": "completed",
                "finished_at": event.completed_at,
                "object": event.object,
                "size": event.size,
                "sha256": event.sha256,
                "manifest": event.manifest,
                "manifest_size": event.manifest_size,
                "manifest_sha256": event.manifest_sha256,
                "records": event.records,
                "first_seq": event.first_seq,
                "last_seq": event.last_seq,
            }
            return [Set(key, result)]
        case AuditExportFailed():
            failure = {"status": "failed", "finished_at": event.failed_at, "reason": event.reason}
            return [Set(key, failure)]
    return []


AUDIT_EXPORTS = View(
    name="audit_exports",
    version=1,
    events=members(AuditExportEvent),
    columns={
        "tenant": "text",
        "export_id": "text",
        "status": "text",
        "format": "text",
        "start_at": "bigint",
        "end_at": "bigint",
        "requested_at": "bigint",
        "requested_by": "text",
        "finished_at": "bigint",
        "object": "text",
        "size": "bigint",
        "sha256": "text",
        "manifest": "text",
        "manifest_size": "bigint",
        "manifest_sha256": "text",
        "records": "bigint",
        "first_seq": "bigint",
        "last_seq": "bigint",
        "reason": "text",
    },
    key=("tenant", "export_id"),
    reduce=reduce,
)

# Parameters: tenant, export id.
BY_ID = f"SELECT * FROM {AUDIT_EXPORTS.table} WHERE tenant = %s AND export_id = %s"

"""Exports of a tenant's audit trail: asked for, and what came of it."""

from typing import Literal

from msgspec import Struct

from schemas.types import Count, Micros, Sha256, Text

AuditFormat = Literal["json", "jsonl", "csv", "parquet"]


class AuditExportRequested(Struct, frozen=True, tag="platform.audit_export_requested.v1"):
    """Somebody wants the trail as a file: what happened in [start_at, end_at), microseconds.

    Without `end_at` it ends at the request. Nothing later than the request is in it, so that a
    repeated export is the same file.
    """

    format: AuditFormat
    start_at: Micros | None = None
    end_at: Micros | None = None


class AuditExportCompleted(
    Struct, frozen=True, kw_only=True, tag="platform.audit_export_completed.v1"
):
    """The file is in the object store under `object`, its manifest under `manifest`.

    size in bytes; first_seq and last_seq: the numbers of the records in it, 0 when there is none.
    """

    object: str
    manifest: str
    manifest_size: Count
    manifest_sha256: Sha256
    size: Count
    sha256: Sha256
    records: Count
    first_seq: Count = 0
    last_seq: Count = 0
    completed_at: Micros


class AuditExportFailed(Struct, frozen=True, tag="platform.audit_export_failed.v1"):
    """No file could be made, and none will be."""

    reason: Text
    failed_at: Micros


AuditExportEvent = AuditExportRequested | AuditExportCompleted | AuditExportFailed

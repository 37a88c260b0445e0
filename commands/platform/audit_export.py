"""Exports of the audit trail: requested by a tenant, ended once by the exporter."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

import msgspec
from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand, NotFound
from schemas.platform.audit_export import (
    AuditExportCompleted,
    AuditExportEvent,
    AuditExportFailed,
    AuditExportRequested,
    AuditFormat,
)
from schemas.types import Count, Micros, Sha256, Text
from schemas.unions import members

STREAM = "platform.audit_export"


class RequestAuditExport(Struct, frozen=True, tag="platform.request_audit_export.v1"):
    """Make a file of the trail in [start_at, end_at)."""

    format: AuditFormat
    start_at: Micros | None = None
    end_at: Micros | None = None


class CompleteAuditExport(
    Struct, frozen=True, kw_only=True, tag="platform.complete_audit_export.v1"
):
    """The file is made; fields as in AuditExportCompleted."""

    object: str
    manifest: str
    manifest_size: Count
    manifest_sha256: Sha256
    size: Count
    sha256: Sha256
    records: Count
    first_seq: Count = 0
    last_seq: Count = 0


class FailAuditExport(Struct, frozen=True, tag="platform.fail_audit_export.v1"):
    """No file can be made."""

    reason: Text


AuditExportCommand = RequestAuditExport | CompleteAuditExport | FailAuditExport


class AuditExport(Struct, frozen=True):
    """`request` is None until it was asked for."""

    request: AuditExportRequested | None = None
    status: Literal["processing", "completed", "failed"] = "processing"


def decide(
    command: AuditExportCommand, state: AuditExport, context: Context
) -> Sequence[AuditExportEvent]:
    """Raises InvalidCommand, AlreadyDone, NotFound, ActorForbidden."""
    match command:
        case RequestAuditExport():
            return _request(command, state)
        case CompleteAuditExport():
            if not _ends(state, "completed", context):
                return []
            fields = msgspec.structs.asdict(command)
            return [AuditExportCompleted(**fields, completed_at=context.now)]
        case FailAuditExport():
            if not _ends(state, "failed", context):
                return []
            return [AuditExportFailed(command.reason, context.now)]
    assert_never(command)


def _request(command: RequestAuditExport, state: AuditExport) -> Sequence[AuditExportEvent]:
    start, end = command.start_at, command.end_at
    if start is not None and end is not None and start >= end:
        raise InvalidCommand("the export's end is not after its start", field="end_date")
    event = AuditExportRequested(command.format, command.start_at, command.end_at)
    if state.request is None:
        return [event]
    if state.request != event:
        raise AlreadyDone("this export was requested with other bounds")
    return []


def _ends(state: AuditExport, status: str, context: Context) -> bool:
    """Whether this end is the first; a repeat stays quiet, another end is refused."""
    if context.actor.kind != "system":
        raise ActorForbidden("exports are ended by the exporter only")
    if state.request is None:
        raise NotFound("there is no such export")
    if state.status == "processing":
        return True
    if state.status != status:
        raise AlreadyDone(f"the export has {state.status} already")
    return False


def evolve(state: AuditExport, event: AuditExportEvent) -> AuditExport:
    match event:
        case AuditExportRequested():
            return AuditExport(event)
        case AuditExportCompleted():
            return AuditExport(state.request, "completed")
        case AuditExportFailed():
            return AuditExport(state.request, "failed")
    assert_never(event)


def _describe(command: AuditExportCommand) -> Mapping[str, Any]:
    return msgspec.structs.asdict(command)


DECIDER: Decider[AuditExportCommand, AuditExport, AuditExportEvent] = Decider(
    stream=STREAM,
    commands=members(AuditExportCommand),
    events=members(AuditExportEvent),
    initial=AuditExport(),
    decide=decide,
    evolve=evolve,
    describe=_describe,
)

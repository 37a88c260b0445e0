"""Exports of the audit log: asked for here, made by the exporter, downloaded here.

A repeat of the request with its Idempotency-Key names the same export. Another tenant's export is
not there. The file is a replay of the log with a manifest; `weir audit verify --file` proves it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from msgspec import Meta, Struct
from starlette.responses import StreamingResponse

from api.observability.pages import instant
from api.problems import ENTERPRISE, Problem, not_found
from api.routing import Call, Route, Who
from commands.platform.audit_export import RequestAuditExport
from infra.objects import ObjectMissing
from projections.platform.audit_exports import BY_ID
from schemas.instants import iso, iso_or_none
from schemas.platform.audit_export import AuditFormat
from schemas.types import Text
from streams.platform.trail_files import MEDIA_TYPES, SUFFIXES

EXPORTERS = ("admin",)
PATH = "/waxell/v1/audit/export/"


class ExportBody(Struct):
    """What to export. `end_date` includes the instant given, or the whole day of a date."""

    start_date: Annotated[Text, Meta(max_length=64)] | None = None
    end_date: Annotated[Text, Meta(max_length=64)] | None = None
    format: AuditFormat = "json"


class AuditExportAnswer(Struct, frozen=True, kw_only=True):
    """status: processing, completed or failed. The URLs are there when it is completed.

    first_seq, last_seq: the numbers of the records in the file. sha256: of the file, in hex.
    """

    export_id: str
    status: str
    format: str
    start_date: str | None
    end_date: str | None
    requested_at: str
    completed_at: str | None = None
    download_url: str | None = None
    manifest_url: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    records: int | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    error: str | None = None


async def request_export(call: Call[ExportBody, None]) -> AuditExportAnswer:
    body = call.body
    export_id = f"exp_{call.command_id.partition('_')[2]}"
    command = RequestAuditExport(
        body.format,
        instant(body.start_date or "", "start_date"),
        instant(body.end_date or "", "end_date", end=True),
    )
    await call.send(export_id, command)
    return _answer(call, await _row(call, export_id))


async def get_export(call: Call[None, None]) -> AuditExportAnswer:
    return _answer(call, await _row(call, call.path["export_id"]))


async def download(call: Call[None, None]) -> StreamingResponse:
    """The file, as it lies in the store."""
    row = await _completed(call)
    return await _file(
        call,
        row["object"],
        shown=f"audit-{row['export_id']}{SUFFIXES[row['format']]}",
        media_type=MEDIA_TYPES[row["format"]],
        size=row["size"],
        digest=row["sha256"],
    )


async def manifest(call: Call[None, None]) -> StreamingResponse:
    """What the file holds, and how far its chain does."""
    row = await _completed(call)
    return await _file(
        call,
        row["manifest"],
        shown=f"audit-{row['export_id']}.manifest.json",
        media_type="application/json",
        size=row["manifest_size"],
        digest=row["manifest_sha256"],
    )


async def _row(call: Call[Any, None], export_id: str) -> Mapping[str, Any]:
    row = await call.services.reads.one(BY_ID, call.tenant, export_id)
    if row is None:
        not_found("No such export")
    return row


async def _completed(call: Call[None, None]) -> Mapping[str, Any]:
    row = await _row(call, call.path["export_id"])
    if row["status"] != "completed":
        raise Problem(
            409, f"export_{row['status']}", "There is no file: the export is not completed"
        )
    return row


async def _file(
    call: Call[None, None], name: str, *, shown: str, media_type: str, size: int, digest: str
) -> StreamingResponse:
    """Stream an object. What goes wrong before its first part is still an answer of ours."""
    parts = call.services.objects.stream(name)
    try:
        first = await anext(parts, b"")
    except ObjectMissing:
        not_found("The file of this export is no longer kept")

    async def body() -> AsyncIterator[bytes]:
        async with aclosing(parts):
            yield first
            async for part in parts:
                yield part

    headers = {
        "content-length": str(size),
        "content-disposition": f'attachment; filename="{quote(shown)}"',
        "etag": f'"{digest}"',
        "cache-control": "private, no-store",
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(body(), media_type=media_type, headers=headers)


def _answer(call: Call[Any, None], row: Mapping[str, Any]) -> AuditExportAnswer:
    own = f"{call.services.settings.public_url.rstrip('/')}{PATH}{row['export_id']}/"
    completed = row["status"] == "completed"
    # The end that was asked for is included; the one that is kept is the first that is not.
    end = None if row["end_at"] is None else row["end_at"] - 1
    return AuditExportAnswer(
        export_id=row["export_id"],
        status=row["status"],
        format=row["format"],
        start_date=iso_or_none(row["start_at"]),
        end_date=iso_or_none(end),
        requested_at=iso(row["requested_at"]),
        completed_at=iso_or_none(row["finished_at"]) if completed else None,
        download_url=f"{own}download/" if completed else None,
        manifest_url=f"{own}manifest/" if completed else None,
        size_bytes=row["size"],
        sha256=row["sha256"],
        records=row["records"],
        first_seq=row["first_seq"],
        last_seq=row["last_seq"],
        error=row["reason"],
    )


_route = partial(
    Route, dialect=ENTERPRISE, who=Who.SESSION_OR_KEY, roles=EXPORTERS, tags=("audit",)
)

ROUTES: list[Route] = [
    _route(
        "POST",
        PATH,
        request_export,
        summary="Export audit logs",
        body=ExportBody,
        response=AuditExportAnswer,
        status=202,
    ),
    _route(
        "GET",
        f"{PATH}{{export_id}}/",
        get_export,
        summary="Get export status",
        response=AuditExportAnswer,
        refusals=(404,),
    ),
    _route(
        "GET",
        f"{PATH}{{export_id}}/download/",
        download,
        summary="Download an export",
        media_type="application/octet-stream",
        refusals=(404, 409),
    ),
    _route(
        "GET",
        f"{PATH}{{export_id}}/manifest/",
        manifest,
        summary="What an export holds",
        response=dict[str, Any],
        refusals=(404, 409),
    ),
]

"""The Enterprise surface's audit log: listed from ClickHouse, newest first."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from api.observability.pages import instant
from api.problems import ENTERPRISE, Problem
from api.routing import Call, Route, Who
from infra.clock import iso
from projections.platform.audit_records import AuditFilter, count_audit, list_audit
from schemas.platform.audit import AuditRecorded
from schemas.types import Text

READERS = ("admin", "developer", "viewer")
MAX_LIMIT = 1_000
MAX_OFFSET = 10_000
_CURSOR = "before:"

ActorType = Literal["user", "agent", "system", "api_key", "anonymous"]


class AuditLogQuery(Struct):
    """Filters and page. `end_date` includes the instant given, or the whole day of a date."""

    start_date: Annotated[Text, Meta(max_length=64)] = ""
    end_date: Annotated[Text, Meta(max_length=64)] = ""
    actor_type: ActorType | None = None
    action: Annotated[Text, Meta(max_length=200)] = ""
    outcome: Literal["accepted", "refused", "failed"] | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = 100
    offset: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    cursor: Annotated[Text, Meta(max_length=64)] = ""


class AuditLog(Struct, frozen=True):
    """One decision. seq counts the tenant's records without a gap; hash covers the record and
    prev_hash, the hash of the one before."""

    id: str
    seq: int
    timestamp: str
    actor_type: str
    actor_id: str
    actor_name: str
    action: str
    resource_type: str
    resource_id: str
    outcome: str
    code: str
    message: str
    details: Raw
    events: list[str]
    related: list[str]
    request_id: str
    prev_hash: str
    hash: str


class AuditLogs(Struct, frozen=True):
    """A page. count: all that the filters let through. next_cursor: for the page after this one,
    at any depth; `offset` reaches 10,000 records deep."""

    audit_logs: list[AuditLog]
    count: int
    limit: int
    offset: int
    next_cursor: str | None


async def list_audit_logs(call: Call[None, AuditLogQuery]) -> AuditLogs:
    query = call.query
    if query.offset > MAX_OFFSET:
        raise Problem(
            400,
            "validation_error",
            f"An offset reaches {MAX_OFFSET} records deep; go on with next_cursor",
            field="offset",
            where="query",
            details={"max_offset": MAX_OFFSET},
        )
    wanted = AuditFilter(
        since=instant(query.start_date, "start_date"),
        until=instant(query.end_date, "end_date", end=True),
        actor_kinds=(query.actor_type,) if query.actor_type else (),
        action=query.action,
        outcome=query.outcome or "",
    )
    analytics = call.services.analytics
    found = await list_audit(
        analytics,
        call.tenant,
        wanted,
        limit=query.limit + 1,
        offset=query.offset,
        before=_before(query.cursor),
    )
    shown = found[: query.limit]
    return AuditLogs(
        audit_logs=[_item(record) for record in shown],
        count=await count_audit(analytics, call.tenant, wanted),
        limit=query.limit,
        offset=query.offset,
        next_cursor=f"{_CURSOR}{shown[-1].seq}" if len(found) > query.limit else None,
    )


def _before(cursor: str) -> int | None:
    if not cursor:
        return None
    number = cursor.removeprefix(_CURSOR)
    if not cursor.startswith(_CURSOR) or not (number.isascii() and number.isdigit()):
        raise Problem(
            400, "validation_error", "Not a cursor of this list", field="cursor", where="query"
        )
    return min(int(number), 2**62)


def _item(record: AuditRecorded) -> AuditLog:
    return AuditLog(
        id=record.command_id,
        seq=record.seq,
        timestamp=iso(record.at),
        actor_type=record.actor_kind,
        actor_id=record.actor_id,
        actor_name=record.actor_name,
        action=record.action,
        resource_type=record.resource_type,
        resource_id=record.resource_id,
        outcome=record.outcome,
        code=record.code,
        message=record.message,
        details=Raw(record.details.encode()),
        events=record.events,
        related=record.related,
        request_id=record.correlation_id,
        prev_hash=record.prev_hash,
        hash=record.hash,
    )


ROUTES: list[Route] = [
    Route(
        "GET",
        "/waxell/v1/audit/",
        list_audit_logs,
        dialect=ENTERPRISE,
        who=Who.SESSION_OR_KEY,
        roles=READERS,
        query=AuditLogQuery,
        response=AuditLogs,
        tags=("audit",),
        summary="List audit logs",
        analytics=True,
    ),
]

"""The audit trail of a room, of an agent, and of the tenant, newest first."""

import re
from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Cursor, Limit, Page, after, cursor_of, page
from api.approvals.visible import is_task, room_row
from api.cursors import NEWEST
from api.problems import not_found
from api.routing import Call, Who
from commands.approvals.payload import modified, payload_hash
from infra.clock import iso
from projections.approvals import agents, check_ins, tasks
from projections.platform.audit_records import AuditFilter, list_audit
from schemas.approvals.check_in import CheckInModified
from schemas.approvals.task import TaskDecided
from schemas.avro_derivation import tag_of
from schemas.platform.audit import AuditRecorded
from schemas.types import Text

_MODIFYING = frozenset({tag_of(CheckInModified), tag_of(TaskDecided)})
# The type of an event (`approvals.check_in_approved.v1`); anything else names an action.
_EVENT_TYPE = re.compile(r"\.v\d+$")


class AgentAuditQuery(Struct, frozen=True):
    """Which page of an agent's trail."""

    limit: Limit = 20
    cursor: Cursor = ""


class AuditQuery(Struct, frozen=True):
    """Which records. event_type: an action (`approve_check_in`) or the type of an event."""

    limit: Limit = 50
    cursor: Cursor = ""
    event_type: Annotated[Text, Meta(max_length=200)] = ""


class ModifiedPayload(Struct, frozen=True):
    """What was asked and what may be run, each with its hash, and what changes one to the other."""

    action: str
    context: Raw
    payload_hash: str
    modifications: Raw
    approved_context: Raw
    approved_hash: str


class AuditItem(Struct, frozen=True):
    """One decision, taken or refused.

    event_type: what was asked for; events: what was recorded because of it. seq counts the tenant's
    records without a gap; hash covers the record and prev_hash, the hash of the one before.
    payload: of a decision that modified, both payloads; from the check-in, not from the record.
    """

    id: str
    seq: int
    event_type: str
    actor_type: str
    actor_id: str
    actor_name: str
    resource_type: str
    resource_id: str
    outcome: str
    code: str
    message: str
    details: Raw
    events: list[str]
    related: list[str]
    request_id: str
    created_at: str
    prev_hash: str
    hash: str
    payload: ModifiedPayload | None = None


async def room_audit(call: Call[None, AuditQuery]) -> Any:
    """What was decided in a room and about it, refusals too."""
    room = await room_row(call, call.path["room"])
    return await _page(call, AuditFilter(about=(f"approvals.room/{room['id']}",)))


async def agent_audit(call: Call[None, AgentAuditQuery]) -> Any:
    """What an agent did and what was decided about it."""
    agent = await call.services.reads.one(agents.BY_ID, call.tenant, call.path["agent"])
    if agent is None:
        not_found("No such agent")
    return await _page(call, AuditFilter(about_or_by=f"approvals.agent/{agent['id']}"))


async def tenant_audit(call: Call[None, AuditQuery]) -> Any:
    """Every decision in the tenant."""
    return await _page(call, AuditFilter())


async def _page(call: Call[None, Any], wanted: AuditFilter) -> Any:
    query = call.query
    event_type = getattr(query, "event_type", "")
    if event_type:
        name = "event" if _EVENT_TYPE.search(event_type) else "action"
        fields = {field: getattr(wanted, field) for field in wanted.__struct_fields__}
        wanted = AuditFilter(**{**fields, name: event_type})
    behind = after(query.cursor)
    found = await list_audit(
        call.services.analytics,
        call.tenant,
        wanted,
        limit=query.limit + 1,
        before=None if behind == NEWEST else behind[0],
    )
    more = len(found) > query.limit
    found = found[: query.limit]
    payloads = await _payloads(call, found)
    items = [_item(record, payloads.get(_modified(record))) for record in found]
    return page(items, _cursor(found) if more else None, more)


def _modified(record: AuditRecorded) -> str:
    """The id of the check-in or task that a record's decision may have modified, or nothing."""
    return "" if _MODIFYING.isdisjoint(record.events) else record.resource_id


async def _payloads(
    call: Call[None, Any], records: list[AuditRecorded]
) -> dict[str, ModifiedPayload]:
    """Both payloads of what was modified, by the id of the check-in or task."""
    ids = sorted({_modified(record) for record in records} - {""})
    found = {}
    for sql, wanted in (
        (check_ins.MODIFIED, [id for id in ids if not is_task(id)]),
        (tasks.MODIFIED, [id for id in ids if is_task(id)]),
    ):
        for row in await call.services.reads.all(sql, call.tenant, wanted) if wanted else ():
            approved = modified(row["context"], row["modifications"])
            found[row["id"]] = ModifiedPayload(
                action=row["action"],
                context=Raw(row["context"]),
                payload_hash=row["payload_hash"],
                modifications=Raw(row["modifications"]),
                approved_context=Raw(approved),
                approved_hash=payload_hash(row["action"], approved),
            )
    return found


def _cursor(found: list[AuditRecorded]) -> str:
    return cursor_of(found[-1].seq, "")


def _item(record: AuditRecorded, payload: ModifiedPayload | None) -> AuditItem:
    return AuditItem(
        id=record.command_id,
        seq=record.seq,
        event_type=record.action,
        actor_type=record.actor_kind,
        actor_id=record.actor_id,
        actor_name=record.actor_name,
        resource_type=record.resource_type,
        resource_id=record.resource_id,
        outcome=record.outcome,
        code=record.code,
        message=record.message,
        details=Raw(record.details),
        events=record.events,
        related=record.related,
        request_id=record.correlation_id,
        created_at=iso(record.at),
        prev_hash=record.prev_hash,
        hash=record.hash,
        payload=payload,
    )


ROUTES = [
    route(
        "GET",
        "/v1/rooms/{room}/audit",
        room_audit,
        Who.HUMAN,
        "Get a room's audit trail",
        query=AuditQuery,
        response=Page[AuditItem],
        refusals=(404,),
        analytics=True,
    ),
    route(
        "GET",
        "/v1/agents/{agent}/audit",
        agent_audit,
        Who.HUMAN,
        "Get an agent's audit trail",
        query=AgentAuditQuery,
        response=Page[AuditItem],
        refusals=(404,),
        analytics=True,
    ),
    route(
        "GET",
        "/v1/audit",
        tenant_audit,
        Who.HUMAN,
        "Get the tenant's audit trail",
        query=AuditQuery,
        response=Page[AuditItem],
        analytics=True,
    ),
]

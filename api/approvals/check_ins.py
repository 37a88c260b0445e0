"""Check-ins: agents ask, people answer, everybody looks."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.approvals.check_in_items import CheckInItem, StatusItem, item_of, status_of
from api.approvals.declaring import route
from api.approvals.envelopes import Cursor, Data, Limit, Page, after, data, page_of
from api.approvals.policies import TimeoutMinutes
from api.approvals.sending import canonical, send
from api.approvals.task_items import AnyCheckIn
from api.approvals.tasks import show_alive
from api.approvals.visible import (
    Owners,
    check_in_row,
    is_task,
    owners_of,
    room_id_of,
    room_row,
)
from api.approvals.waiting import settled_within
from api.problems import Problem
from api.routing import Call, Who
from commands.approvals.check_in_state import (
    ApproveCheckIn,
    CreateCheckIn,
    ModifyCheckIn,
    RejectCheckIn,
    ReportOutcome,
    WithdrawCheckIn,
)
from commands.approvals.task_state import DecideTask
from projections.approvals import check_ins
from schemas.approvals.vocabulary import (
    CheckInStatus,
    OutcomeStatus,
    RiskLevel,
    TimeoutAction,
    Urgency,
)
from schemas.types import Sha256, Text

Reason = Annotated[Text, Meta(min_length=1, max_length=2000)]


class CheckInBody(Struct, frozen=True):
    """What the agent wants to do. The timeout fields override the room's, if the room lets them."""

    action: Annotated[Text, Meta(min_length=1, max_length=500)]
    description: Annotated[Text, Meta(max_length=5000)] | None = None
    risk_level: RiskLevel = "medium"
    urgency: Urgency = "normal"
    context: Annotated[dict[str, Any], Meta(description="10 KB of JSON at most")] = {}
    timeout_minutes: TimeoutMinutes | None = None
    timeout_action: TimeoutAction | None = None


class ApproveBody(Struct, frozen=True):
    """An approval. `payload_hash`: of what was shown; then it holds for that and nothing else.

    It is needed where several must approve and one of them has proposed a change.
    """

    reason: Annotated[Text, Meta(max_length=2000)] | None = None
    payload_hash: Sha256 | None = None


class RejectBody(Struct, frozen=True):
    """A rejection; the reason is told to the agent."""

    reason: Reason
    payload_hash: Sha256 | None = None


class ModifyBody(Struct, frozen=True):
    """An approval with changes that the agent can parse and act on."""

    reason: Reason
    modifications: Annotated[dict[str, Any], Meta(description="10 KB of JSON at most")]
    payload_hash: Sha256 | None = None


class OutcomeBody(Struct, frozen=True):
    """What came of what was allowed."""

    status: OutcomeStatus
    message: Annotated[Text, Meta(max_length=5000)] | None = None
    details: Annotated[dict[str, Any], Meta(description="10 KB of JSON at most")] = {}


class StatusQuery(Struct, frozen=True):
    """`wait`: hold the answer for so many seconds while the check-in is pending."""

    wait: Annotated[int, Meta(ge=0, le=60)] = 0


class PendingQuery(Struct, frozen=True):
    """Which check-ins of the room. escalated: only those that were escalated, or that were not."""

    status: CheckInStatus = "pending"
    risk_level: RiskLevel | None = None
    urgency: Urgency | None = None
    agent_id: Annotated[Text, Meta(max_length=200)] | None = None
    escalated: bool | None = None
    limit: Limit = 50
    cursor: Cursor = ""


async def create_check_in(call: Call[CheckInBody, None]) -> Any:
    """Ask. The answer says at once what the room's policies made of it, and why."""
    body = call.body
    command = CreateCheckIn(
        room_id=await room_id_of(call, call.path["room"]),
        agent_id=call.actor.id,
        action=body.action,
        description=body.description or "",
        risk_level=body.risk_level,
        urgency=body.urgency,
        context=canonical(body.context, "context"),
        timeout_minutes=body.timeout_minutes,
        timeout_action=body.timeout_action,
    )
    check_in_id = "ci_" + call.command_id.removeprefix("cmd_")
    return data(await send(call, check_in_id, command))


async def get_status(call: Call[None, StatusQuery]) -> Any:
    """What became of a check-in; with `wait`, as soon as something did.

    Of a task the agent at work shows by this that it is alive.
    """
    id = call.path["id"]
    if call.query.wait:
        row = await settled_within(call, id, call.query.wait)
    else:
        row = await check_in_row(call, id)
    if is_task(id):
        await show_alive(call, row)
    return data(status_of(row))


async def approve(call: Call[ApproveBody, None]) -> Any:
    """Let the agent go ahead; of a task, accept the work."""
    body = call.body
    reason, shown = body.reason or "", body.payload_hash or ""
    id, owners = await _named(call)
    if is_task(id):
        return data(await send(call, id, DecideTask(*owners, "approved", reason, shown)))
    return data(await send(call, id, ApproveCheckIn(*owners, reason, shown)))


async def reject(call: Call[RejectBody, None]) -> Any:
    """Tell the agent no; of a task, drop it."""
    reason, shown = call.body.reason, call.body.payload_hash or ""
    id, owners = await _named(call)
    if is_task(id):
        return data(await send(call, id, DecideTask(*owners, "rejected", reason, shown)))
    return data(await send(call, id, RejectCheckIn(*owners, reason, shown)))


async def modify(call: Call[ModifyBody, None]) -> Any:
    """Let the agent go ahead with changes; of a task, accept the work with changes."""
    reason, shown = call.body.reason, call.body.payload_hash or ""
    id, owners = await _named(call)
    changes = canonical(call.body.modifications, "modifications")
    if is_task(id):
        command = DecideTask(*owners, "modified", reason, shown, changes)
        return data(await send(call, id, command))
    return data(await send(call, id, ModifyCheckIn(*owners, reason, changes, shown)))


async def withdraw(call: Call[None, None]) -> Any:
    """Take a question back; only who asked can."""
    id, owners = await _named(call)
    if is_task(id):
        raise Problem(403, "forbidden", "A task is a person's; an agent releases it")
    return data(await send(call, id, WithdrawCheckIn(*owners)))


async def report_outcome(call: Call[OutcomeBody, None]) -> Any:
    """Say what came of it, once: into the check-in, its thread and the audit trail."""
    id, owners = await _named(call)
    if is_task(id):
        raise Problem(403, "forbidden", "A task's result is a message; a person decides it")
    body = call.body
    details = canonical(body.details, "details")
    command = ReportOutcome(*owners, body.status, body.message or "", details)
    return data(await send(call, id, command))


async def _named(call: Call[Any, Any]) -> tuple[str, Owners]:
    """The id in the path, and whose that check-in is. Raises Problem (404)."""
    id = call.path["id"]
    return id, await owners_of(call, id)


async def list_pending(call: Call[None, PendingQuery]) -> Any:
    """A room's check-ins, newest first; those that wait for a person unless told otherwise."""
    query = call.query
    room = await room_row(call, call.path["room"])
    names = ("status", "risk_level", "urgency", "agent_id", "escalated")
    filters = {name: value for name in names if (value := getattr(query, name)) is not None}
    sql, parameters = check_ins.page(
        call.tenant, room["id"], filters, after(query.cursor), query.limit + 1
    )
    found = await call.services.reads.all(sql, *parameters)
    return page_of(found, query.limit, lambda row: item_of(row, call.actor.kind))


ROUTES = [
    route(
        "GET",
        "/v1/rooms/{room}/pending",
        list_pending,
        Who.HUMAN,
        "List a room's check-ins, the pending ones by default",
        query=PendingQuery,
        response=Page[CheckInItem],
        refusals=(404,),
    ),
    route(
        "POST",
        "/v1/rooms/{room}/check-in",
        create_check_in,
        Who.AGENT,
        "Create a check-in",
        body=CheckInBody,
        response=Data[CheckInItem],
        status=201,
        refusals=(403, 404, 409),
    ),
    route(
        "GET",
        "/v1/check-ins/{id}/status",
        get_status,
        Who.ANY,
        "Get a check-in's status, waiting for it if asked to",
        query=StatusQuery,
        response=Data[StatusItem],
        refusals=(404,),
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/approve",
        approve,
        Who.HUMAN,
        "Approve a check-in",
        body=ApproveBody,
        response=AnyCheckIn,
        refusals=(404, 409),
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/reject",
        reject,
        Who.HUMAN,
        "Reject a check-in",
        body=RejectBody,
        response=AnyCheckIn,
        refusals=(404, 409),
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/modify",
        modify,
        Who.HUMAN,
        "Approve a check-in with modifications",
        body=ModifyBody,
        response=AnyCheckIn,
        refusals=(404, 409),
    ),
    route(
        "DELETE",
        "/v1/check-ins/{id}",
        withdraw,
        Who.AGENT,
        "Withdraw a check-in",
        response=Data[CheckInItem],
        refusals=(403, 404, 409),
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/outcome",
        report_outcome,
        Who.AGENT,
        "Report what came of a check-in that was allowed",
        body=OutcomeBody,
        response=Data[CheckInItem],
        refusals=(403, 404, 409),
    ),
]

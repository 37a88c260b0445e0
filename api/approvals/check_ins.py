"""Check-ins: agents ask, people answer, everybody looks."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.approvals.check_in_items import CheckInItem, item_of, status_of
from api.approvals.envelopes import Cursor, Limit, after, cursor_of
from api.approvals.policies import TimeoutMinutes
from api.approvals.sending import canonical
from api.approvals.visible import (
    Owners,
    check_in_row,
    owners_of,
    remember_owners,
    room_id_of,
    room_row,
)
from api.approvals.waiting import settled_within
from api.problems import Problem
from api.routing import Call, answer_of, data, page
from commands.approvals.check_in_state import (
    ApproveCheckIn,
    CheckInAnswered,
    CreateCheckIn,
    ModifyCheckIn,
    RejectCheckIn,
    WithdrawCheckIn,
)
from infra.clock import iso
from projections.approvals import check_ins
from schemas.approvals.vocabulary import CheckInStatus, RiskLevel, TimeoutAction, Urgency
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
    """An approval. `payload_hash`: of what was shown; then it holds for that and nothing else."""

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


class StatusQuery(Struct, frozen=True):
    """`wait`: hold the answer for so many seconds while the check-in is pending."""

    wait: Annotated[int, Meta(ge=0, le=60)] = 0


class PendingQuery(Struct, frozen=True):
    """Which check-ins of the room."""

    status: CheckInStatus = "pending"
    risk_level: RiskLevel | None = None
    urgency: Urgency | None = None
    agent_id: Annotated[Text, Meta(max_length=200)] | None = None
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
    return data(_told(call, await call.send(check_in_id, command)))


async def get_check_in(call: Call[None, None]) -> Any:
    """One check-in."""
    return data(item_of(await check_in_row(call, call.path["id"])))


async def get_status(call: Call[None, StatusQuery]) -> Any:
    """What became of a check-in; with `wait`, as soon as something did."""
    if call.query.wait:
        return data(status_of(await settled_within(call, call.path["id"], call.query.wait)))
    return data(status_of(await check_in_row(call, call.path["id"])))


async def approve(call: Call[ApproveBody, None]) -> Any:
    """Let the agent go ahead."""
    body = call.body
    owners = await owners_of(call, call.path["id"])
    return await _decide(
        call,
        ApproveCheckIn(*owners, reason=body.reason or "", payload_hash=body.payload_hash or ""),
    )


async def reject(call: Call[RejectBody, None]) -> Any:
    """Tell the agent no."""
    body = call.body
    owners = await owners_of(call, call.path["id"])
    return await _decide(call, RejectCheckIn(*owners, body.reason, body.payload_hash or ""))


async def modify(call: Call[ModifyBody, None]) -> Any:
    """Let the agent go ahead with changes."""
    body = call.body
    owners = await owners_of(call, call.path["id"])
    changes = canonical(body.modifications, "modifications")
    return await _decide(
        call, ModifyCheckIn(*owners, body.reason, changes, body.payload_hash or "")
    )


async def withdraw(call: Call[None, None]) -> Any:
    """Take a question back; only who asked can."""
    return await _decide(call, WithdrawCheckIn(*await owners_of(call, call.path["id"])))


async def list_pending(call: Call[None, PendingQuery]) -> Any:
    """A room's check-ins, newest first; those that wait for a person unless told otherwise."""
    query = call.query
    room = await room_row(call, call.path["room"])
    names = ("status", "risk_level", "urgency", "agent_id")
    filters = {name: value for name in names if (value := getattr(query, name)) is not None}
    sql, parameters = check_ins.page(
        call.tenant, room["id"], filters, after(query.cursor), query.limit + 1
    )
    found = await call.services.reads.all(sql, *parameters)
    more = len(found) > query.limit
    found = found[: query.limit]
    cursor = cursor_of(found[-1]["created_at"], found[-1]["id"]) if more else None
    return page([item_of(row) for row in found], cursor, more)


async def _decide(call: Call[Any, Any], command: Struct) -> Any:
    try:
        reply = await call.send(call.path["id"], command)
    except Problem as problem:
        decided_at = problem.details.get("decided_at")
        if isinstance(decided_at, int):
            problem.details["decided_at"] = iso(decided_at)
        raise
    return data(_told(call, reply))


def _told(call: Call[Any, Any], reply: Any) -> CheckInItem:
    answer = answer_of(reply, CheckInAnswered)
    check_in = answer.check_in
    remember_owners(call, answer.id, Owners(check_in.room_id, check_in.agent_id))
    return item_of({"id": answer.id, **msgspec.to_builtins(check_in)})

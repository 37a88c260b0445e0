"""Tasks: people post them to a room, one agent at a time claims each, others help."""

import logging
from typing import Annotated, Any

from msgspec import Meta, Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Cursor, Data, Limit, Page, after, data, page_of
from api.approvals.sending import canonical, send
from api.approvals.task_items import TaskItem, task_item_of
from api.approvals.visible import is_task, owners_of, room_id_of, room_row
from api.problems import Problem
from api.routing import Call, Who
from commands.approvals.task_state import (
    ClaimTask,
    JoinTask,
    PostTask,
    ReleaseTask,
    RenewTaskClaim,
    RequestHelp,
)
from infra.ids import new_id
from infra.kafka import LogUnavailable
from projections.approvals import tasks
from schemas.approvals.vocabulary import AnyStatus, RiskLevel, Urgency
from schemas.types import Text
from streams.bus import CommandRequest

logger = logging.getLogger(__name__)

_MINUTE = 60_000_000


class TaskBody(Struct, frozen=True):
    """What is to be done."""

    action: Annotated[Text, Meta(min_length=1, max_length=500)]
    description: Annotated[Text, Meta(max_length=5000)] | None = None
    risk_level: RiskLevel = "medium"
    urgency: Urgency = "normal"
    context: Annotated[dict[str, Any], Meta(description="10 KB of JSON at most")] = {}


class HelpBody(Struct, frozen=True):
    """What help is needed."""

    body: Annotated[Text, Meta(max_length=5000)] | None = None


class TasksQuery(Struct, frozen=True):
    """Which tasks of the room. claimed: by some agent, also when the task has ended since."""

    claimed: bool | None = None
    status: AnyStatus | None = None
    limit: Limit = 50
    cursor: Cursor = ""


class ClaimedQuery(Struct, frozen=True):
    """Which of the agent's own tasks."""

    status: AnyStatus | None = None
    limit: Limit = 50
    cursor: Cursor = ""


async def post_task(call: Call[TaskBody, None]) -> Any:
    """Post a task; any agent that sees the room may claim it."""
    body = call.body
    command = PostTask(
        room_id=await room_id_of(call, call.path["room"]),
        action=body.action,
        description=body.description or "",
        risk_level=body.risk_level,
        urgency=body.urgency,
        context=canonical(body.context, "context"),
    )
    return data(await send(call, "task_" + call.command_id.removeprefix("cmd_"), command))


async def list_tasks(call: Call[None, TasksQuery]) -> Any:
    """A room's tasks, newest first."""
    query = call.query
    room = await room_row(call, call.path["room"])
    filters = {"room_id": room["id"], "status": query.status, "claimed": query.claimed}
    return await _page(call, filters)


async def list_claimed(call: Call[None, ClaimedQuery]) -> Any:
    """The tasks that the calling agent has claimed, those that ended in its hands too."""
    return await _page(call, {"agent_id": call.actor.id, "status": call.query.status})


async def claim(call: Call[None, None]) -> Any:
    """Take a task that nobody has; one agent wins, the others are told who."""
    id, room_id = await _task(call)
    return data(await send(call, id, ClaimTask(room_id, call.actor.id)))


async def release(call: Call[None, None]) -> Any:
    """Give a task back to the room."""
    id, room_id = await _task(call)
    return data(await send(call, id, ReleaseTask(room_id, call.actor.id)))


async def request_help(call: Call[HelpBody, None]) -> Any:
    """Ask for help with a task that one has claimed."""
    id, room_id = await _task(call)
    return data(await send(call, id, RequestHelp(room_id, call.actor.id, call.body.body or "")))


async def join(call: Call[None, None]) -> Any:
    """Help the agent that asked for it."""
    id, room_id = await _task(call)
    return data(await send(call, id, JoinTask(room_id, call.actor.id)))


async def show_alive(call: Call[Any, Any], task: dict[str, Any]) -> None:
    """Let the look of the agent at work count as its sign of life, once half its lease is over.

    Nothing waits for it, and a log that is away costs the sign of life only.
    """
    if task["status"] != "in_progress" or task["agent_id"] != call.actor.id:
        return
    left = task["claimed_until"] - call.services.clock.now()
    if left > task["claim_minutes"] * _MINUTE // 2:
        return
    request = CommandRequest(
        tenant=call.tenant,
        stream_id=task["id"],
        command=RenewTaskClaim(task["room_id"], call.actor.id),
        actor=call.actor,
        command_id=new_id("cmd"),
        correlation_id=call.request_id,
    )
    try:
        await call.services.bus.post(request)
    except LogUnavailable:
        logger.warning("a claim is not renewed: the log is unavailable")


async def _task(call: Call[Any, Any]) -> tuple[str, str]:
    """The id and the room of the task that the path names. Raises Problem (404, 409)."""
    id = call.path["id"]
    owners = await owners_of(call, id)
    if not is_task(id):
        raise Problem(409, "conflict", "This check-in is an agent's question and no task")
    return id, owners.room_id


async def _page(call: Call[None, Any], filters: dict[str, Any]) -> Any:
    query = call.query
    asked = {name: value for name, value in filters.items() if value is not None}
    sql, parameters = tasks.page(call.tenant, asked, after(query.cursor), query.limit + 1)
    found = await call.services.reads.all(sql, *parameters)
    return page_of(found, query.limit, lambda row: task_item_of(row, call.actor.kind), "posted_at")


ROUTES = [
    route(
        "POST",
        "/v1/rooms/{room}/tasks",
        post_task,
        Who.HUMAN,
        "Post a task to a room",
        body=TaskBody,
        response=Data[TaskItem],
        status=201,
        refusals=(404, 409),
    ),
    route(
        "GET",
        "/v1/rooms/{room}/tasks",
        list_tasks,
        Who.ANY,
        "List a room's tasks",
        query=TasksQuery,
        response=Page[TaskItem],
        refusals=(404,),
    ),
    route(
        "GET",
        "/v1/check-ins/claimed",
        list_claimed,
        Who.AGENT,
        "List the tasks that the calling agent has claimed",
        query=ClaimedQuery,
        response=Page[TaskItem],
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/claim",
        claim,
        Who.AGENT,
        "Claim a task",
        response=Data[TaskItem],
        refusals=(403, 404, 409),
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/release",
        release,
        Who.AGENT,
        "Release a claimed task back to the room",
        response=Data[TaskItem],
        refusals=(403, 404, 409),
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/help",
        request_help,
        Who.AGENT,
        "Request help on a claimed task",
        body=HelpBody,
        response=Data[TaskItem],
        refusals=(403, 404, 409),
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/join",
        join,
        Who.AGENT,
        "Join a task as a helper",
        response=Data[TaskItem],
        refusals=(403, 404, 409),
    ),
]

"""Threads: what people and agents write about a check-in or a task, and who takes part in it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from api.approvals.check_in_items import CheckInItem
from api.approvals.declaring import route
from api.approvals.envelopes import Data, Page, PageQuery, after, cursor_of, data, page
from api.approvals.sending import canonical
from api.approvals.task_items import TaskItem, any_item_of
from api.approvals.visible import check_in_row, is_task, owners_of
from api.routing import Call, Who, answer_of
from commands.approvals.thread import MESSAGES_MAX, MessageAnswered, PostMessage
from infra.clock import iso
from projections.approvals import messages
from schemas.approvals.vocabulary import MessageType
from schemas.types import Text


class MessageBody(Struct, frozen=True):
    """A message. metadata and attachments: 10 KB of JSON each at most."""

    body: Annotated[Text, Meta(min_length=1, max_length=10_000)]
    message_type: MessageType = "comment"
    metadata: Annotated[dict[str, Any], Meta(description="10 KB of JSON at most")] = {}
    attachments: Annotated[
        list[dict[str, Any]], Meta(max_length=20, description="10 KB of JSON at most")
    ] = []


class MessageItem(Struct, frozen=True):
    """A message; number: its place in the thread, from 1."""

    id: str
    check_in_id: str
    number: int
    author_type: Literal["user", "agent"]
    author_id: str
    author_name: str
    body: str
    message_type: MessageType
    metadata: Raw
    attachments: Raw
    created_at: str


class Participant(Struct, frozen=True):
    """Who takes part in a thread, by the first thing that made it so."""

    type: Literal["user", "agent"]
    id: str
    name: str
    role: Literal["requester", "claimer", "helper", "author", "decider"]


class CheckInThread(CheckInItem, frozen=True, kw_only=True):
    """A check-in with all that was written about it, oldest first."""

    messages: list[MessageItem]
    participants: list[Participant]


class TaskThread(TaskItem, frozen=True, kw_only=True):
    """A task with all that was written about it, oldest first."""

    messages: list[MessageItem]
    participants: list[Participant]


class WholeThread(Struct, frozen=True):
    """A check-in or a task with its thread; `kind` tells which."""

    data: CheckInThread | TaskThread


async def post_message(call: Call[MessageBody, None]) -> Any:
    """Write into a thread."""
    id, body, author = call.path["id"], call.body, call.actor
    owners = await owners_of(call, id)
    command = PostMessage(
        room_id=owners.room_id,
        agent_id=author.id if author.kind == "agent" else "",
        body=body.body,
        message_type=body.message_type,
        metadata=canonical(body.metadata, "metadata"),
        attachments=canonical(body.attachments, "attachments"),
    )
    answer = answer_of(await call.send(id, command), MessageAnswered)
    return data(
        _item(
            {
                "message_id": answer.id,
                "check_in_id": id,
                "number": answer.number,
                "author_kind": author.kind,
                "author_id": author.id,
                "author_name": author.name,
                "body": command.body,
                "message_type": command.message_type,
                "metadata": command.metadata,
                "attachments": command.attachments,
                "posted_at": answer.posted_at,
            }
        )
    )


async def list_messages(call: Call[None, PageQuery]) -> Any:
    """A thread, oldest message first."""
    query = call.query
    check_in = await check_in_row(call, call.path["id"])
    seen = after(query.cursor)[0] if query.cursor else 0
    found = await _messages(call, check_in["id"], seen, query.limit + 1)
    more = len(found) > query.limit
    found = found[: query.limit]
    cursor = cursor_of(found[-1]["number"], "") if more else None
    return page([_item(row) for row in found], cursor, more)


async def get_check_in(call: Call[None, None]) -> Any:
    """One check-in or task with its whole thread and who takes part in it."""
    row = await check_in_row(call, call.path["id"])
    written = await _messages(call, row["id"], 0, MESSAGES_MAX)
    item = any_item_of(row, call.actor.kind)
    kind = TaskThread if isinstance(item, TaskItem) else CheckInThread
    fields = {name: getattr(item, name) for name in item.__struct_fields__}
    return data(
        kind(
            **fields,
            messages=[_item(message) for message in written],
            participants=participants_of(row, written),
        )
    )


def participants_of(
    row: Mapping[str, Any], written: Sequence[Mapping[str, Any]]
) -> list[Participant]:
    """Everybody in a row of `tasks` or `check_ins` and its messages, each once, as they came."""
    found: dict[tuple[str, str], Participant] = {}

    def add(type: Any, id: str, name: str, role: Any) -> None:
        if id:
            found.setdefault((type, id), Participant(type, id, name, role))

    if is_task(row["id"]):
        add("user", row["posted_by"], row["posted_by_name"], "requester")
        add("agent", row["agent_id"], row["agent_name"], "claimer")
        for helper in row["helpers"]:
            add("agent", helper["agent_id"], helper["agent_name"], "helper")
    else:
        add("agent", row["agent_id"], row["agent_name"], "requester")
    for message in written:
        add(message["author_kind"], message["author_id"], message["author_name"], "author")
    for vote in row.get("votes") or ():
        add("user", vote["by"], vote["by_name"], "decider")
    decision = row["decision"]
    if decision is not None and decision["source"] == "human":
        add("user", decision["by"], decision["by_name"], "decider")
    return list(found.values())


async def _messages(
    call: Call[Any, Any], check_in_id: str, seen: int, limit: int
) -> list[dict[str, Any]]:
    return await call.services.reads.all(messages.PAGE, call.tenant, check_in_id, seen, limit)


def _item(row: Mapping[str, Any]) -> MessageItem:
    return MessageItem(
        id=row["message_id"],
        check_in_id=row["check_in_id"],
        number=row["number"],
        author_type=row["author_kind"],
        author_id=row["author_id"],
        author_name=row["author_name"],
        body=row["body"],
        message_type=row["message_type"],
        metadata=Raw(row["metadata"]),
        attachments=Raw(row["attachments"]),
        created_at=iso(row["posted_at"]),
    )


ROUTES = [
    route(
        "GET",
        "/v1/check-ins/{id}",
        get_check_in,
        Who.ANY,
        "Get a check-in or a task with its thread",
        response=WholeThread,
        refusals=(404,),
    ),
    route(
        "POST",
        "/v1/check-ins/{id}/messages",
        post_message,
        Who.ANY,
        "Post a message to a check-in's thread",
        body=MessageBody,
        response=Data[MessageItem],
        status=201,
        refusals=(403, 404, 409),
    ),
    route(
        "GET",
        "/v1/check-ins/{id}/messages",
        list_messages,
        Who.ANY,
        "List the messages of a check-in's thread, oldest first",
        query=PageQuery,
        response=Page[MessageItem],
        refusals=(404,),
    ),
]

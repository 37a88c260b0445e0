"""`approvals.thread`: what is written about a check-in or a task, numbered from 1.

People write everywhere; an agent where it takes part: the one that asked, the one that claimed the
task, its helpers, and any agent of the room about a task that nobody has claimed. A message of the
agent at work is a sign of life and renews its lease.
"""

from collections.abc import Sequence

from msgspec import Struct

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.agent import Agent
from commands.approvals.check_in_state import STREAM as CHECK_IN
from commands.approvals.check_in_state import CheckIn, CheckInNotFound
from commands.approvals.room import STREAM as ROOM
from commands.approvals.task import renewals
from commands.approvals.task_state import ID_PREFIX, Task
from commands.approvals.task_state import STREAM as TASK
from commands.decider import Context, Decider, Emit, Ref
from commands.refusals import ActorForbidden, AlreadyDone
from schemas.approvals.thread import MessagePosted, ThreadEvent
from schemas.approvals.vocabulary import MessageType
from schemas.types import Json, Text

STREAM = "approvals.thread"
MESSAGES_MAX = 500
_RECENT = 32  # messages that a repeat of their command is known by


class PostMessage(Struct, frozen=True, tag="approvals.post_message.v1"):
    """Write into a thread; the stream's id is the check-in's or the task's.

    agent_id: the agent that writes, empty when a person does. metadata and attachments: JSON.
    """

    room_id: str
    agent_id: str
    body: Text
    message_type: MessageType = "comment"
    metadata: Json = "{}"
    attachments: Json = "[]"


class ThreadFull(AlreadyDone):
    """No more messages fit into the thread."""


class Posted(Struct, frozen=True):
    """A message as the thread remembers it; `at` is microseconds UTC."""

    id: str
    number: int
    at: int


class Thread(Struct, frozen=True):
    """The state of a thread: how many messages there are, and the last of them."""

    count: int = 0
    recent: list[Posted] = []


class MessageAnswered(Struct, frozen=True):
    """What a caller is told of the message that it posted."""

    id: str
    number: int
    posted_at: int


def message_id(command_id: str) -> str:
    """The id of the message that a command posts."""
    return "msg_" + command_id.removeprefix("cmd_")


def loads(command: PostMessage, id: str) -> Sequence[Ref]:
    about = Ref(TASK if id.startswith(ID_PREFIX) else CHECK_IN, id)
    room = Ref(ROOM, command.room_id)
    return (about, room, Ref(AGENT, command.agent_id)) if command.agent_id else (about, room)


def decide(command: PostMessage, thread: Thread, context: Context) -> Sequence[ThreadEvent | Emit]:
    """Raises CheckInNotFound, ActorForbidden, ThreadFull."""
    about = _about(context)
    if about.status == "absent" or about.room_id != command.room_id:
        raise CheckInNotFound("no such check-in")
    author = context.actor
    if author.kind == "agent":
        _check_takes_part(command, about, context)
    elif author.kind != "user":
        raise ActorForbidden("only people and agents write messages")
    id = message_id(context.command_id)
    if any(one.id == id for one in thread.recent):
        return []
    if thread.count >= MESSAGES_MAX:
        raise ThreadFull(f"a thread has at most {MESSAGES_MAX} messages")
    message = posted(
        thread,
        context,
        room_id=command.room_id,
        body=command.body,
        message_type=command.message_type,
        metadata=command.metadata,
        attachments=command.attachments,
    )
    if isinstance(about, CheckIn) or about.status != "in_progress" or about.agent_id != author.id:
        return [message]
    renewed = renewals(about, context.now)
    return [message, *(Emit(TASK, context.stream_id, event) for event in renewed)]


def posted(
    thread: Thread,
    context: Context,
    *,
    room_id: str,
    body: str,
    message_type: MessageType,
    metadata: Json,
    attachments: Json = "[]",
) -> MessagePosted:
    """The next message of a thread, by whoever gave the command, a person or an agent."""
    author = context.actor
    return MessagePosted(
        room_id=room_id,
        message_id=message_id(context.command_id),
        number=thread.count + 1,
        author_kind="agent" if author.kind == "agent" else "user",
        author_id=author.id,
        author_name=author.name,
        body=body,
        message_type=message_type,
        metadata=metadata,
        attachments=attachments,
        posted_at=context.now,
    )


def _about(context: Context) -> CheckIn | Task:
    stream = TASK if context.stream_id.startswith(ID_PREFIX) else CHECK_IN
    found: CheckIn | Task = context.state(stream, context.stream_id)
    return found


def _check_takes_part(command: PostMessage, about: CheckIn | Task, context: Context) -> None:
    """Raises ActorForbidden, or CheckInNotFound for an agent that does not see the room."""
    author = context.actor.id
    if command.agent_id != author:
        raise ActorForbidden("an agent writes for itself")
    agent: Agent = context.state(AGENT, author)
    if not agent.active:
        raise ActorForbidden("only a registered agent writes messages")
    if not agent.sees(command.room_id):
        raise CheckInNotFound("no such check-in")
    if isinstance(about, CheckIn):
        takes_part = about.agent_id == author
    else:
        takes_part = about.status == "pending" or about.is_worked_on_by(author)
    if not takes_part:
        raise ActorForbidden("only people and the agents that take part write here")


def evolve(thread: Thread, event: ThreadEvent) -> Thread:
    latest = Posted(event.message_id, event.number, event.posted_at)
    return Thread(event.number, [*thread.recent, latest][-_RECENT:])


def answer(command: PostMessage, thread: Thread, context: Context) -> MessageAnswered:
    id = message_id(context.command_id)
    found = next(one for one in thread.recent if one.id == id)
    return MessageAnswered(id, found.number, found.at)


def describe(command: PostMessage) -> dict[str, object]:
    return {"room_id": command.room_id, "message_type": command.message_type}


DECIDER: Decider[PostMessage, Thread, ThreadEvent] = Decider(
    stream=STREAM,
    commands=(PostMessage,),
    events=(MessagePosted,),
    initial=Thread(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    answer=answer,
    describe=describe,
)

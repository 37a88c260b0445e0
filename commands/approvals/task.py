"""`approvals.task`: a person posts work, one agent claims it at a time, a person ends it.

A claim is a lease: it ends by itself unless its agent gives a sign of life, so that no task is lost
with the agent that had it.
"""

from collections.abc import Sequence
from typing import assert_never

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.agent import Agent
from commands.approvals.check_in_state import (
    CheckInNotFound,
    already_decided,
    check_payload,
    decision_of,
)
from commands.approvals.payload import payload_hash
from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room, RoomNotFound
from commands.approvals.task_state import (
    HELPERS_MAX,
    STREAM,
    AgentTaskCommand,
    AlreadyAtWork,
    ClaimChanged,
    ClaimTask,
    DecideTask,
    JoinTask,
    NoHelpRequested,
    PostTask,
    ReleaseTask,
    RenewTaskClaim,
    RequestHelp,
    ReturnTask,
    Task,
    TaskAnswered,
    TaskClaimedAlready,
    TaskCommand,
    TaskExists,
    TaskNotClaimed,
    TooManyHelpers,
    evolve,
)
from commands.approvals.trust import STREAM as TRUST
from commands.approvals.trust import moved, trust_id
from commands.decider import ClearTimer, Context, Decider, Emit, Ref, SetTimer
from commands.refusals import ActorForbidden
from schemas.approvals.task import (
    Helper,
    TaskClaimed,
    TaskClaimRenewed,
    TaskDecided,
    TaskEvent,
    TaskHelperJoined,
    TaskHelpRequested,
    TaskPosted,
    TaskReleased,
)
from schemas.unions import members

LEASE = "lease"
_MINUTE = 60_000_000

Emitted = TaskEvent | Emit


def loads(command: TaskCommand, task_id: str) -> Sequence[Ref]:
    room = Ref(ROOM, command.room_id)
    if isinstance(command, PostTask) or not command.agent_id:
        return (room,)
    agent = Ref(AGENT, command.agent_id)
    if isinstance(command, DecideTask):
        return (room, agent, Ref(TRUST, trust_id(command.agent_id, command.room_id)))
    return (room, agent)


def decide(command: TaskCommand, task: Task, context: Context) -> Sequence[Emitted]:
    """Raises the refusals of this stream, CheckInNotFound, AlreadyDecided, ActorForbidden."""
    match command:
        case PostTask():
            return _post(command, task, context)
        case ReturnTask():
            claim = task.claim
            if task.decision is not None or claim is None or claim.until != command.due_at:
                return []
            return [TaskReleased(task.room_id, claim.agent_id, "lease", context.now)]
        case DecideTask():
            return _end(command, task, context)
        case RenewTaskClaim():
            if task.decision is not None or task.agent_id != context.actor.id:
                return []
            return renewals(task, context.now)
    agent = _acting(command, task, context)
    match command:
        case ClaimTask():
            return _claim(command, task, agent, context)
        case ReleaseTask():
            return _release(command, task, context)
        case RequestHelp():
            return _ask(command, task, context)
        case JoinTask():
            return _join(command, task, agent, context)
    assert_never(command)


def _post(command: PostTask, task: Task, context: Context) -> Sequence[Emitted]:
    if context.actor.kind != "user":
        raise ActorForbidden("only a person posts a task")
    room: Room = context.state(ROOM, command.room_id)
    if not room.slug:
        raise RoomNotFound("no such room")
    if task.status != "absent":
        if all(getattr(task, name) == getattr(command, name) for name in command.__struct_fields__):
            return []
        raise TaskExists("a task with this id exists already")
    return [
        TaskPosted(
            room_id=command.room_id,
            action=command.action,
            description=command.description,
            risk_level=command.risk_level,
            urgency=command.urgency,
            context=command.context,
            payload_hash=payload_hash(command.action, command.context),
            posted_by=context.actor.id,
            posted_by_name=context.actor.name,
            posted_at=context.now,
        )
    ]


def _acting(command: AgentTaskCommand, task: Task, context: Context) -> Agent:
    """The agent that acts, on a task that it sees and that has not ended.

    Raises ActorForbidden, CheckInNotFound, AlreadyDecided.
    """
    agent: Agent = context.state(AGENT, command.agent_id)
    if context.actor.kind != "agent" or context.actor.id != command.agent_id or not agent.active:
        raise ActorForbidden("only a registered agent works on a task, for itself")
    _check_seen(command, task)
    if not agent.sees(task.room_id):
        raise CheckInNotFound("no such check-in")
    if task.decision is not None:
        raise already_decided(task.status, task.decision)
    return agent


def _check_seen(command: AgentTaskCommand | DecideTask, task: Task) -> None:
    if task.status == "absent" or task.room_id != command.room_id:
        raise CheckInNotFound("no such check-in")


def _claim(command: ClaimTask, task: Task, agent: Agent, context: Context) -> Sequence[Emitted]:
    if task.claim is not None:
        if task.claim.agent_id == command.agent_id:
            return renewals(task, context.now)
        raise TaskClaimedAlready(
            "another agent has claimed the task",
            status=task.status,
            claimed_by=task.claim.agent_id,
            claimed_by_name=task.claim.agent_name,
            claimed_at=task.claim.claimed_at,
        )
    room: Room = context.state(ROOM, command.room_id)
    assert room.policies is not None, "a task is in a room"
    minutes = room.policies.claim_minutes
    until = context.now + minutes * _MINUTE
    return [TaskClaimed(task.room_id, command.agent_id, agent.name, minutes, context.now, until)]


def renewals(task: Task, now: int) -> list[TaskEvent]:
    """What a sign of life of the agent at work records: the lease anew, once half of it is over."""
    claim = task.claim
    assert claim is not None
    until = now + claim.minutes * _MINUTE
    if until - claim.until < claim.minutes * _MINUTE // 2:
        return []
    return [TaskClaimRenewed(task.room_id, claim.agent_id, until)]


def _release(command: ReleaseTask, task: Task, context: Context) -> Sequence[Emitted]:
    if task.claim is None and task.released_by == command.agent_id:
        return []
    _check_at_work(command, task)
    return [TaskReleased(task.room_id, command.agent_id, "agent", context.now)]


def _check_at_work(command: ReleaseTask | RequestHelp, task: Task) -> None:
    if task.claim is None:
        raise TaskNotClaimed("nobody has claimed the task")
    if task.claim.agent_id != command.agent_id:
        raise ActorForbidden("only the agent that claimed the task can do that")


def _ask(command: RequestHelp, task: Task, context: Context) -> Sequence[Emitted]:
    _check_at_work(command, task)
    renewed = renewals(task, context.now)
    if task.help is not None and task.help.body == command.body:
        return renewed
    asked = TaskHelpRequested(task.room_id, command.agent_id, command.body, context.now)
    return [asked, *renewed]


def _join(command: JoinTask, task: Task, agent: Agent, context: Context) -> Sequence[Emitted]:
    if task.agent_id == command.agent_id:
        raise AlreadyAtWork("this agent has claimed the task itself")
    if task.is_worked_on_by(command.agent_id):
        return []
    if task.help is None:
        raise NoHelpRequested("nobody has asked for help with the task")
    if len(task.helpers) >= HELPERS_MAX:
        raise TooManyHelpers(f"a task has at most {HELPERS_MAX} helpers")
    helpers = [*task.helpers, Helper(command.agent_id, agent.name, context.now)]
    return [
        TaskHelperJoined(task.room_id, task.agent_id, command.agent_id, helpers, context.now),
    ]


def _end(command: DecideTask, task: Task, context: Context) -> Sequence[Emitted]:
    if context.actor.kind != "user":
        raise ActorForbidden("only a person decides a task")
    _check_seen(command, task)
    if task.decision is not None:
        if task.decision.id == context.command_id:
            return []
        raise already_decided(task.status, task.decision)
    check_payload(command.payload_hash, task.payload_hash)
    if command.agent_id != task.agent_id:
        raise ClaimChanged(
            "another agent works on the task than when you looked",
            status=task.status,
            claimed_by=task.agent_id or None,
        )
    decision = decision_of(context, task.payload_hash, "human", command.reason)
    ended = TaskDecided(
        task.room_id, task.agent_id, command.status, decision, command.modifications
    )
    if not task.agent_id:
        return [ended]
    trusted = trust_id(task.agent_id, task.room_id)
    trust = moved(
        context.state(TRUST, trusted),
        agent_id=task.agent_id,
        room_id=task.room_id,
        check_in_id=context.stream_id,
        outcome=command.status,
        now=context.now,
    )
    return [ended, Emit(TRUST, trusted, trust)]


def timers(event: TaskEvent, task_id: str) -> Sequence[SetTimer | ClearTimer]:
    match event:
        case TaskClaimed() | TaskClaimRenewed():
            back = ReturnTask(event.room_id, event.agent_id, event.claimed_until)
            return (SetTimer(LEASE, event.claimed_until, back),)
        case TaskReleased() | TaskDecided():
            return (ClearTimer(LEASE),)
        case TaskPosted() | TaskHelpRequested() | TaskHelperJoined():
            return ()
    assert_never(event)


def answer(command: TaskCommand, task: Task, context: Context) -> TaskAnswered:
    return TaskAnswered(context.stream_id, task)


def describe(command: TaskCommand) -> dict[str, object]:
    said: dict[str, object] = {"room_id": command.room_id}
    match command:
        case PostTask():
            return said | {"action": command.action, "risk_level": command.risk_level}
        case DecideTask():
            said |= {"status": command.status, "reason": command.reason}
    return said | {"agent_id": command.agent_id}


DECIDER: Decider[TaskCommand, Task, TaskEvent] = Decider(
    stream=STREAM,
    commands=members(TaskCommand),
    events=members(TaskEvent),
    initial=Task(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    timers=timers,
    answer=answer,
    describe=describe,
)

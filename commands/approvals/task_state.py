"""Commands, refusals and state of `approvals.task`, and how its events fold."""

from typing import Literal, assert_never

from msgspec import Struct
from msgspec.structs import replace

from commands.refusals import AlreadyDone
from schemas.approvals.check_in import Decision
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
from schemas.approvals.vocabulary import RiskLevel, TaskStatus, TaskVerdict, Urgency
from schemas.types import Json, Micros, Text

STREAM = "approvals.task"
ID_PREFIX = "task_"  # no check-in that an agent made begins like that
HELPERS_MAX = 20


class PostTask(Struct, frozen=True, tag="approvals.post_task.v1"):
    """Ask for work to be done. `context` is canonical JSON."""

    room_id: str
    action: Text
    description: Text = ""
    risk_level: RiskLevel = "medium"
    urgency: Urgency = "normal"
    context: Json = "{}"


class ClaimTask(Struct, frozen=True, tag="approvals.claim_task.v1"):
    """Take a task that nobody has; whoever has it already shows that it is alive."""

    room_id: str
    agent_id: str


class RenewTaskClaim(Struct, frozen=True, tag="approvals.renew_task_claim.v1"):
    """A sign of life of the agent at work. Quiet for any other."""

    room_id: str
    agent_id: str


class ReleaseTask(Struct, frozen=True, tag="approvals.release_task.v1"):
    """Give a task back to the room."""

    room_id: str
    agent_id: str


class ReturnTask(Struct, frozen=True, tag="approvals.return_task.v1"):
    """The timer of a claim has run out. One that carries another due_at came too late."""

    room_id: str
    agent_id: str
    due_at: Micros


class RequestHelp(Struct, frozen=True, tag="approvals.request_help.v1"):
    """Ask the room for help with a task that one has."""

    room_id: str
    agent_id: str
    body: Text = ""


class JoinTask(Struct, frozen=True, tag="approvals.join_task.v1"):
    """Help the agent that asked for it."""

    room_id: str
    agent_id: str


class DecideTask(Struct, frozen=True, tag="approvals.decide_task.v1"):
    """End a task: accept it, accept it with changes (canonical JSON), or drop it.

    agent_id: who the person saw at work, empty for nobody. payload_hash: as for a check-in.
    """

    room_id: str
    agent_id: str
    status: TaskVerdict
    reason: Text = ""
    payload_hash: str = ""
    modifications: Json | None = None


AgentTaskCommand = ClaimTask | RenewTaskClaim | ReleaseTask | RequestHelp | JoinTask
TaskCommand = PostTask | AgentTaskCommand | ReturnTask | DecideTask


class TaskExists(AlreadyDone):
    """A task with this id exists and is not what was asked for."""


class TaskClaimedAlready(AlreadyDone):
    """Another agent has the task; the details name it."""


class TaskNotClaimed(AlreadyDone):
    """Nobody works on the task."""


class ClaimChanged(AlreadyDone):
    """Another agent works on the task than the person saw when they decided."""


class NoHelpRequested(AlreadyDone):
    """Nobody asked for help with the task."""


class AlreadyAtWork(AlreadyDone):
    """The agent that has the task cannot be its own helper."""


class TooManyHelpers(AlreadyDone):
    """No more helpers fit into the task."""


class TaskClaim(Struct, frozen=True):
    """Who works on a task. minutes: the lease; until: when it ends as it stands (microseconds)."""

    agent_id: str
    agent_name: str
    minutes: int
    claimed_at: int
    until: int


class HelpRequest(Struct, frozen=True):
    """What the agent at work asked for, and when (microseconds)."""

    body: str
    requested_at: int


class Task(Struct, frozen=True):
    """The state of a task. released_by: who gave it back last, or lost it."""

    room_id: str = ""
    action: str = ""
    description: str = ""
    risk_level: RiskLevel = "medium"
    urgency: Urgency = "normal"
    context: Json = "{}"
    payload_hash: str = ""
    posted_by: str = ""
    posted_by_name: str = ""
    posted_at: int = 0
    status: TaskStatus | Literal["absent"] = "absent"
    claim: TaskClaim | None = None
    released_by: str = ""
    help: HelpRequest | None = None
    helpers: list[Helper] = []
    decision: Decision | None = None
    modifications: Json | None = None

    @property
    def agent_id(self) -> str:
        """Who works on it, or did when it ended; empty for nobody."""
        return self.claim.agent_id if self.claim else ""

    def is_worked_on_by(self, agent_id: str) -> bool:
        """Whether the agent has the task or helps with it."""
        return agent_id in (self.agent_id, *(helper.agent_id for helper in self.helpers))


class TaskAnswered(Struct, frozen=True):
    """What a caller is told of a task."""

    id: str
    task: Task


def evolve(task: Task, event: TaskEvent) -> Task:
    match event:
        case TaskPosted():
            fields = {name: getattr(event, name) for name in event.__struct_fields__}
            return Task(**fields, status="pending")
        case TaskClaimed():
            taken = TaskClaim(
                event.agent_id,
                event.agent_name,
                event.claim_minutes,
                event.claimed_at,
                event.claimed_until,
            )
            return replace(task, status="in_progress", claim=taken)
        case TaskClaimRenewed():
            claim = task.claim and replace(task.claim, until=event.claimed_until)
            return replace(task, claim=claim)
        case TaskReleased():
            freed = replace(task, claim=None, help=None, helpers=[])
            return replace(freed, status="pending", released_by=event.agent_id)
        case TaskHelpRequested():
            return replace(task, help=HelpRequest(event.body, event.requested_at))
        case TaskHelperJoined():
            return replace(task, helpers=event.helpers)
        case TaskDecided():
            ended = replace(task, status=event.status, decision=event.decision)
            return replace(ended, modifications=event.modifications)
    assert_never(event)

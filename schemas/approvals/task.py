"""Events of `approvals.task`: a person posts work, one agent claims it, a person accepts it."""

from typing import Literal

from msgspec import Struct

from schemas.approvals.check_in import Decision
from schemas.approvals.vocabulary import RiskLevel, TaskVerdict, Urgency
from schemas.types import Json, Micros, Sha256, Text


class Helper(Struct, frozen=True):
    """An agent that joined a task to help the one that claimed it."""

    agent_id: str
    agent_name: Text
    joined_at: Micros


class TaskPosted(Struct, frozen=True, tag="approvals.task_posted.v1"):
    """A person asked for work to be done, by any agent of the room."""

    room_id: str
    action: Text
    description: Text
    risk_level: RiskLevel
    urgency: Urgency
    context: Json
    payload_hash: Sha256
    posted_by: str
    posted_by_name: Text
    posted_at: Micros


class TaskClaimed(Struct, frozen=True, tag="approvals.task_claimed.v1"):
    """An agent took the task. claim_minutes: the lease; claimed_until: its end as it stands."""

    room_id: str
    agent_id: str
    agent_name: Text
    claim_minutes: int
    claimed_at: Micros
    claimed_until: Micros


class TaskClaimRenewed(Struct, frozen=True, tag="approvals.task_claim_renewed.v1"):
    """The agent gave a sign of life: it keeps the task until then."""

    room_id: str
    agent_id: str
    claimed_until: Micros


class TaskReleased(Struct, frozen=True, tag="approvals.task_released.v1"):
    """The task is free again: its agent gave it back, or gave no sign of life for its lease."""

    room_id: str
    agent_id: str
    cause: Literal["agent", "lease"]
    released_at: Micros


class TaskHelpRequested(Struct, frozen=True, tag="approvals.task_help_requested.v1"):
    """The agent at work asked for help; others may join until it is over with the task."""

    room_id: str
    agent_id: str
    body: Text
    requested_at: Micros


class TaskHelperJoined(Struct, frozen=True, tag="approvals.task_helper_joined.v1"):
    """Another agent joined. helpers: all there are now, in the order in which they came."""

    room_id: str
    agent_id: str
    helper_id: str
    helpers: list[Helper]
    joined_at: Micros


class TaskDecided(Struct, frozen=True, tag="approvals.task_decided.v1"):
    """A person ended the task. agent_id: who was at work, empty when nobody was.

    modifications: the changes that come with the status `modified`.
    """

    room_id: str
    agent_id: str
    status: TaskVerdict
    decision: Decision
    modifications: Json | None = None


TaskEvent = (
    TaskPosted
    | TaskClaimed
    | TaskClaimRenewed
    | TaskReleased
    | TaskHelpRequested
    | TaskHelperJoined
    | TaskDecided
)

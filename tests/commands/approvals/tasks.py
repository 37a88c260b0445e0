"""Events and states of tasks that several tests share, all literal."""

from typing import Any

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.policy import DEFAULT_POLICIES
from commands.approvals.task_state import PostTask
from commands.decider import Ref
from schemas.approvals.policies import Policies
from schemas.approvals.task import Helper, TaskClaimed, TaskPosted
from schemas.envelope import Actor
from tests.commands.approvals.histories import AGENT_ID, CONTEXT, HASH, ROOM_ID, agent, states
from tests.given import NOW

TASK_ID = "task_1"
OTHER_ID = "agt_2"
OTHER = Actor("agent", OTHER_ID, "Marvin")
MINUTE = 60_000_000
UNTIL = NOW + 60 * MINUTE
HALF = NOW + 30 * MINUTE
POST = PostTask(ROOM_ID, "refund an order", context=CONTEXT)
HELPER = Helper(OTHER_ID, "Marvin", NOW)


def all_states(policies: Policies = DEFAULT_POLICIES, **fields: Any) -> dict[Ref, Any]:
    """What commands about a task load: the room, and two agents with these fields."""
    other = agent(name="Marvin", **fields)
    return states(policies, **fields) | {Ref(AGENT, OTHER_ID): other}


def posted() -> TaskPosted:
    """The task of these tests, free."""
    return TaskPosted(
        room_id=ROOM_ID,
        action="refund an order",
        description="",
        risk_level="medium",
        urgency="normal",
        context=CONTEXT,
        payload_hash=HASH,
        posted_by="usr_1",
        posted_by_name="Ada",
        posted_at=NOW,
    )


def claimed(agent_id: str = AGENT_ID, name: str = "Robby") -> TaskClaimed:
    """An agent takes it, for an hour."""
    return TaskClaimed(ROOM_ID, agent_id, name, 60, NOW, UNTIL)

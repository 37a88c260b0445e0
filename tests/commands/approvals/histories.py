"""Events, commands and states that the approvals tests share, all literal."""

from typing import Any

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.agent import Agent
from commands.approvals.check_in_state import CreateCheckIn
from commands.approvals.payload import payload_hash
from commands.approvals.policy import DEFAULT_POLICIES
from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room
from commands.approvals.trust import STREAM as TRUST
from commands.approvals.trust import Trust
from commands.decider import Ref
from schemas.approvals.check_in import CheckInCreated, Decision
from schemas.approvals.policies import Policies, Verdict
from tests.given import NOW

ROOM_ID, AGENT_ID, CHECK_IN_ID = "room_1", "agt_1", "ci_1"
TRUST_ID = "agt_1:room_1"
CONTEXT = '{"amount":120}'
HASH = payload_hash("refund an order", CONTEXT)
DUE = NOW + 60 * 60_000_000
KEY_HASH = "ab" * 32

WAITS = Verdict(
    "require_approval", "default", "no rule matched; default_action is require_approval"
)
CREATE = CreateCheckIn(ROOM_ID, AGENT_ID, "refund an order", context=CONTEXT)


def room(policies: Policies = DEFAULT_POLICIES) -> Room:
    """The room of these tests."""
    return Room("payments", "Payments", "", policies, "usr_1", NOW, NOW)


def agent(**fields: Any) -> Agent:
    """The agent of these tests, active and seeing every room unless told otherwise."""
    return Agent(
        **{"name": "Robby", "platform": "langchain", "key_hash": KEY_HASH, "active": True} | fields
    )


def states(
    policies: Policies = DEFAULT_POLICIES, trust: Trust | None = None, **agent_fields: Any
) -> dict[Ref, Any]:
    """What a check-in's commands load."""
    return {
        Ref(ROOM, ROOM_ID): room(policies),
        Ref(AGENT, AGENT_ID): agent(**agent_fields),
        Ref(TRUST, TRUST_ID): trust or Trust(),
    }


def created(**fields: Any) -> CheckInCreated:
    """The check-in of these tests, pending for an hour unless told otherwise."""
    defaults: dict[str, Any] = {
        "room_id": ROOM_ID,
        "agent_id": AGENT_ID,
        "agent_name": "Robby",
        "action": "refund an order",
        "description": "",
        "risk_level": "medium",
        "urgency": "normal",
        "context": CONTEXT,
        "payload_hash": HASH,
        "verdict": WAITS,
        "trust_score": 15.0,
        "timeout_minutes": 60,
        "timeout_action": "cancel",
        "created_at": NOW,
        "due_at": DUE,
    }
    return CheckInCreated(**defaults | fields)


def decision(**fields: Any) -> Decision:
    """A person's decision by the command that `Given` sends."""
    defaults: dict[str, Any] = {
        "id": "cmd_1",
        "source": "human",
        "by": "usr_1",
        "by_name": "Ada",
        "reason": "",
        "payload_hash": HASH,
        "decided_at": NOW,
    }
    return Decision(**defaults | fields)

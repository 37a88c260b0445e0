"""Events of `approvals.check_in`: an agent asks before it acts, and somebody decides."""

from typing import Literal

from msgspec import Struct

from schemas.approvals.policies import Verdict
from schemas.approvals.vocabulary import OutcomeStatus, RiskLevel, TimeoutAction, Urgency
from schemas.types import Json, Micros, Sha256, Text


class Decision(Struct, frozen=True):
    """Who decided, when, why, and over exactly what.

    id: the deciding command's id; an agent that resumes twice on the same one acts once.
    payload_hash: SHA-256 of the canonical JSON of action and context that was decided on.
    """

    id: str
    source: Literal["human", "policy", "timeout", "agent"]
    by: str
    by_name: str
    reason: Text
    payload_hash: Sha256
    decided_at: Micros


class Vote(Struct, frozen=True):
    """A person's yes to a check-in that needs several. id: of the command that gave it.

    payload_hash: SHA-256 of the canonical JSON of action and context, and of the modifications when
    it is a yes to those.
    """

    id: str
    by: str
    by_name: str
    reason: Text
    payload_hash: Sha256
    voted_at: Micros


class Outcome(Struct, frozen=True):
    """What came of what an agent was allowed to run, in its own words. details: canonical JSON."""

    status: OutcomeStatus
    message: Text
    details: Json
    reported_at: Micros


class CheckInCreated(Struct, frozen=True, tag="approvals.check_in_created.v1"):
    """An agent asked for leave. due_at: when it times out; none if the policies approved it.

    approvals_required: how many people must say yes. escalate_at: when the users in `escalate_to`
    are told that nobody has answered; None: never.
    """

    room_id: str
    agent_id: str
    agent_name: Text
    action: Text
    description: Text
    risk_level: RiskLevel
    urgency: Urgency
    context: Json
    payload_hash: Sha256
    verdict: Verdict
    trust_score: float
    timeout_minutes: int
    timeout_action: TimeoutAction
    created_at: Micros
    due_at: Micros | None = None
    approvals_required: int = 1
    escalate_at: Micros | None = None
    escalate_to: list[str] = []


class CheckInVoted(Struct, frozen=True, tag="approvals.check_in_voted.v1"):
    """One of the people that it takes said yes; the decision follows with the last of them.

    votes: all that count so far, the newest last: they are for the same payload. modifications:
    what they would have the agent change, as canonical JSON; None when it may run what it asked.
    """

    room_id: str
    agent_id: str
    votes: list[Vote]
    approvals_required: int
    modifications: Json | None = None


class CheckInApproved(Struct, frozen=True, tag="approvals.check_in_approved.v1"):
    """The agent may go ahead as it asked."""

    room_id: str
    agent_id: str
    decision: Decision


class CheckInRejected(Struct, frozen=True, tag="approvals.check_in_rejected.v1"):
    """The agent may not."""

    room_id: str
    agent_id: str
    decision: Decision


class CheckInModified(Struct, frozen=True, tag="approvals.check_in_modified.v1"):
    """The agent may go ahead with these changes."""

    room_id: str
    agent_id: str
    decision: Decision
    modifications: Json


class CheckInWithdrawn(Struct, frozen=True, tag="approvals.check_in_withdrawn.v1"):
    """The agent took its question back."""

    room_id: str
    agent_id: str
    decision: Decision


class CheckInExpired(Struct, frozen=True, tag="approvals.check_in_expired.v1"):
    """Nobody decided in time and the timeout cancels."""

    room_id: str
    agent_id: str
    decision: Decision


class CheckInHeld(Struct, frozen=True, tag="approvals.check_in_held.v1"):
    """Nobody decided in time and the timeout holds: it stays pending, overdue since then."""

    room_id: str
    agent_id: str
    held_at: Micros


class CheckInEscalated(Struct, frozen=True, tag="approvals.check_in_escalated.v1"):
    """Nobody has decided for so long that others should. It stays pending.

    reviewers: those whom the room's policies named and who may decide now; nobody in particular
    when none of them may.
    """

    room_id: str
    agent_id: str
    reviewers: list[str]
    escalated_at: Micros


class CheckInOutcomeReported(Struct, frozen=True, tag="approvals.check_in_outcome_reported.v1"):
    """The agent said what came of what it was allowed to run. Once."""

    room_id: str
    agent_id: str
    outcome: Outcome


CheckInEvent = (
    CheckInCreated
    | CheckInApproved
    | CheckInRejected
    | CheckInModified
    | CheckInWithdrawn
    | CheckInExpired
    | CheckInHeld
    | CheckInVoted
    | CheckInEscalated
    | CheckInOutcomeReported
)

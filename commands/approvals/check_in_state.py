"""Commands, refusals and state of `approvals.check_in`, and how its events fold."""

from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from commands.decider import Context, Emit
from commands.refusals import AlreadyDone, NotFound, Refusal
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInEscalated,
    CheckInEvent,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInOutcomeReported,
    CheckInRejected,
    CheckInVoted,
    CheckInWithdrawn,
    Decision,
    Outcome,
    Vote,
)
from schemas.approvals.policies import Verdict
from schemas.approvals.vocabulary import (
    CheckInStatus,
    OutcomeStatus,
    RiskLevel,
    TimeoutAction,
    Urgency,
)
from schemas.types import Json, Micros, Text

STREAM = "approvals.check_in"


class CreateCheckIn(Struct, frozen=True, tag="approvals.create_check_in.v1"):
    """Ask for leave. `context` is canonical JSON; the timeout fields override the room's."""

    room_id: str
    agent_id: str
    action: Text
    description: Text = ""
    risk_level: RiskLevel = "medium"
    urgency: Urgency = "normal"
    context: Json = "{}"
    timeout_minutes: int | None = None
    timeout_action: TimeoutAction | None = None


class ApproveCheckIn(Struct, frozen=True, tag="approvals.approve_check_in.v1"):
    """Let the agent go ahead. payload_hash: what the person was shown, if their client tells."""

    room_id: str
    agent_id: str
    reason: Text = ""
    payload_hash: str = ""


class RejectCheckIn(Struct, frozen=True, tag="approvals.reject_check_in.v1"):
    """Tell the agent no, and why."""

    room_id: str
    agent_id: str
    reason: Text
    payload_hash: str = ""


class ModifyCheckIn(Struct, frozen=True, tag="approvals.modify_check_in.v1"):
    """Let the agent go ahead with changes. `modifications` is canonical JSON."""

    room_id: str
    agent_id: str
    reason: Text
    modifications: Json
    payload_hash: str = ""


class WithdrawCheckIn(Struct, frozen=True, tag="approvals.withdraw_check_in.v1"):
    """The agent that asked takes its question back."""

    room_id: str
    agent_id: str


class ExpireCheckIn(Struct, frozen=True, tag="approvals.expire_check_in.v1"):
    """The timer of a check-in has run out. One that carries another due_at came too late."""

    room_id: str
    agent_id: str
    due_at: Micros


class EscalateCheckIn(Struct, frozen=True, tag="approvals.escalate_check_in.v1"):
    """The timer of an escalation has run out. reviewers: whom the room's policies named."""

    room_id: str
    agent_id: str
    due_at: Micros
    reviewers: list[str]


class ReportOutcome(Struct, frozen=True, tag="approvals.report_outcome.v1"):
    """Say what came of what the agent was allowed to run. `details` is canonical JSON."""

    room_id: str
    agent_id: str
    status: OutcomeStatus
    message: Text = ""
    details: Json = "{}"


Verdicts = ApproveCheckIn | RejectCheckIn | ModifyCheckIn
CheckInCommand = (
    CreateCheckIn | Verdicts | WithdrawCheckIn | ExpireCheckIn | EscalateCheckIn | ReportOutcome
)
Emitted = CheckInEvent | Emit


class CheckInNotFound(NotFound):
    """The tenant has no such check-in, or the caller may not see it."""


class CheckInExists(AlreadyDone):
    """A check-in with this id exists already."""


class AlreadyDecided(AlreadyDone):
    """Another decision won; the details name it."""


class PayloadMismatch(AlreadyDone):
    """The decision is about something else than what the agent asked."""


class VotedAlready(AlreadyDone):
    """The person has said yes to this already; it takes others, too."""


class NothingWasAllowed(AlreadyDone):
    """There is no outcome to report of what nobody has allowed to run."""


class OutcomeReported(AlreadyDone):
    """Another outcome was reported; the details name it."""


class PolicyForbids(Refusal):
    """The room's policies forbid the action."""

    code = "policy_forbids"
    kind = "forbidden"


class CheckIn(Struct, frozen=True):
    """The state of a check-in. Instants are microseconds UTC; held_at: when it became overdue.

    votes: who has said yes to what stands, which is what was asked, or with `proposed` changes.
    """

    room_id: str = ""
    agent_id: str = ""
    agent_name: str = ""
    action: str = ""
    description: str = ""
    risk_level: RiskLevel = "medium"
    urgency: Urgency = "normal"
    context: Json = "{}"
    payload_hash: str = ""
    verdict: Verdict | None = None
    trust_score: float = 0.0
    timeout_minutes: int = 0
    timeout_action: TimeoutAction = "cancel"
    created_at: int = 0
    due_at: int | None = None
    held_at: int | None = None
    status: CheckInStatus | Literal["absent"] = "absent"
    decision: Decision | None = None
    modifications: Json | None = None
    approvals_required: int = 1
    votes: list[Vote] = []
    proposed: Json | None = None
    escalate_at: int | None = None
    escalate_to: list[str] = []
    escalated_at: int | None = None
    escalated_to: list[str] = []
    outcome: Outcome | None = None


def already_decided(status: str, decision: Decision) -> AlreadyDecided:
    """The refusal of whoever comes second, with the decision that won."""
    return AlreadyDecided(
        f"the check-in is {status} already",
        status=status,
        decision_id=decision.id,
        source=decision.source,
        decided_by=decision.by,
        decided_at=decision.decided_at,
        reason=decision.reason,
    )


def check_payload(shown: str, asked: str) -> None:
    """Refuse a decision over something else than was asked. Raises PayloadMismatch.

    shown: the payload hash that the person's client tells, if it does; asked: the one that counts.
    """
    if shown and shown != asked:
        raise PayloadMismatch(
            "the decision is about something else than what was asked", payload_hash=asked
        )


def decision_of(
    context: Context,
    payload_hash: str,
    source: Literal["human", "policy", "timeout", "agent"],
    reason: str,
) -> Decision:
    """The decision that the command at hand takes."""
    return Decision(
        id=context.command_id,
        source=source,
        by=context.actor.id,
        by_name=context.actor.name,
        reason=reason,
        payload_hash=payload_hash,
        decided_at=context.now,
    )


class CheckInAnswered(Struct, frozen=True):
    """What a caller is told of a check-in."""

    id: str
    check_in: CheckIn


def evolve(check_in: CheckIn, event: CheckInEvent) -> CheckIn:
    match event:
        case CheckInCreated():
            fields = {name: getattr(event, name) for name in event.__struct_fields__}
            return CheckIn(**fields, status="pending")
        case CheckInApproved():
            return _settle(check_in, "approved", event.decision)
        case CheckInRejected():
            return _settle(check_in, "rejected", event.decision)
        case CheckInModified():
            settled = _settle(check_in, "modified", event.decision)
            return msgspec.structs.replace(settled, modifications=event.modifications)
        case CheckInWithdrawn():
            return _settle(check_in, "withdrawn", event.decision)
        case CheckInExpired():
            return _settle(check_in, "expired", event.decision)
        case CheckInHeld():
            return msgspec.structs.replace(check_in, held_at=event.held_at)
        case CheckInVoted():
            return msgspec.structs.replace(
                check_in, votes=event.votes, proposed=event.modifications
            )
        case CheckInEscalated():
            return msgspec.structs.replace(
                check_in, escalated_at=event.escalated_at, escalated_to=event.reviewers
            )
        case CheckInOutcomeReported():
            return msgspec.structs.replace(check_in, outcome=event.outcome)
    assert_never(event)


def _settle(check_in: CheckIn, status: CheckInStatus, decision: Decision) -> CheckIn:
    return msgspec.structs.replace(check_in, status=status, decision=decision)

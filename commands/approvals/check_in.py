"""`approvals.check_in`: an agent asks before it acts; one decision wins, and the rest are told."""

from collections.abc import Sequence
from typing import assert_never

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.check_in_creation import create
from commands.approvals.check_in_outcome import report
from commands.approvals.check_in_state import (
    STREAM,
    ApproveCheckIn,
    CheckIn,
    CheckInAnswered,
    CheckInCommand,
    CheckInNotFound,
    CreateCheckIn,
    Emitted,
    EscalateCheckIn,
    ExpireCheckIn,
    ModifyCheckIn,
    RejectCheckIn,
    ReportOutcome,
    Verdicts,
    WithdrawCheckIn,
    already_decided,
    check_payload,
    decision_of,
    evolve,
)
from commands.approvals.quorum import standing_hash, voted
from commands.approvals.room import STREAM as ROOM
from commands.approvals.thread import STREAM as THREAD
from commands.approvals.trust import STREAM as TRUST
from commands.approvals.trust import moved, trust_id
from commands.decider import ClearTimer, Context, Decider, Emit, Ref, SetTimer
from commands.identity.user import STREAM as USER
from commands.refusals import ActorForbidden
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
)
from schemas.approvals.vocabulary import TrustOutcome
from schemas.types import Json
from schemas.unions import members

TIMEOUT = "timeout"
ESCALATION = "escalation"


def loads(command: CheckInCommand, check_in_id: str) -> Sequence[Ref]:
    # Room and agent are named for decisions too: then the audit trail of either finds them.
    trust = trust_id(command.agent_id, command.room_id)
    needed = (Ref(ROOM, command.room_id), Ref(AGENT, command.agent_id), Ref(TRUST, trust))
    match command:
        case EscalateCheckIn():
            return (*needed, *(Ref(USER, reviewer) for reviewer in command.reviewers))
        case ReportOutcome():
            return (*needed, Ref(THREAD, check_in_id))
    return needed


def decide(command: CheckInCommand, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    match command:
        case CreateCheckIn():
            return create(command, check_in, context)
        case ApproveCheckIn() | RejectCheckIn() | ModifyCheckIn():
            return _decide(command, check_in, context)
        case WithdrawCheckIn():
            return _withdraw(command, check_in, context)
        case ExpireCheckIn():
            return _expire(command, check_in, context)
        case EscalateCheckIn():
            return _escalate(command, check_in, context)
        case ReportOutcome():
            return report(command, check_in, context)
    assert_never(command)


def _decide(command: Verdicts, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    if context.actor.kind != "user":
        raise ActorForbidden("only a person decides a check-in")
    if _is_settled(command, check_in, context):
        return []
    if isinstance(command, RejectCheckIn):
        return _reject(command, check_in, context)
    if check_in.approvals_required > 1:
        return _vote(command, check_in, context)
    check_payload(command.payload_hash, check_in.payload_hash)
    changes = command.modifications if isinstance(command, ModifyCheckIn) else None
    return _allow(command.reason, changes, check_in, context)


def _reject(command: RejectCheckIn, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    """One no is enough, to what was asked or to what was made of it."""
    if command.payload_hash != check_in.payload_hash:
        check_payload(command.payload_hash, standing_hash(check_in))
    decision = decision_of(context, check_in.payload_hash, "human", command.reason)
    rejected = CheckInRejected(check_in.room_id, check_in.agent_id, decision)
    return [rejected, _moved(check_in, context, "rejected")]


def _vote(
    command: ApproveCheckIn | ModifyCheckIn, check_in: CheckIn, context: Context
) -> Sequence[Emitted]:
    """A yes of several; the decision is the last one's, in the same transaction."""
    vote = voted(command, check_in, context)
    if vote is None:
        return []
    if len(vote.votes) < check_in.approvals_required:
        return [vote]
    return [vote, *_allow(command.reason, vote.modifications, check_in, context)]


def _allow(
    reason: str, changes: Json | None, check_in: CheckIn, context: Context
) -> Sequence[Emitted]:
    decision = decision_of(context, check_in.payload_hash, "human", reason)
    ids = (check_in.room_id, check_in.agent_id)
    if changes is None:
        return [CheckInApproved(*ids, decision), _moved(check_in, context, "approved")]
    return [CheckInModified(*ids, decision, changes), _moved(check_in, context, "modified")]


def _is_settled(command: Verdicts | WithdrawCheckIn, check_in: CheckIn, context: Context) -> bool:
    """Whether this very command decided already. Raises CheckInNotFound or AlreadyDecided."""
    named = (command.room_id, command.agent_id)
    if check_in.status == "absent" or named != (check_in.room_id, check_in.agent_id):
        raise CheckInNotFound("no such check-in")
    decision = check_in.decision
    if decision is None:
        return False
    if decision.id == context.command_id:
        return True
    raise already_decided(check_in.status, decision)


def _withdraw(command: WithdrawCheckIn, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    if context.actor.kind != "agent" or context.actor.id != check_in.agent_id:
        if check_in.status == "absent":
            raise CheckInNotFound("no such check-in")
        raise ActorForbidden("only the agent that asked can withdraw")
    if _is_settled(command, check_in, context):
        return []
    decision = decision_of(context, check_in.payload_hash, "agent", "withdrawn by the agent")
    return [CheckInWithdrawn(check_in.room_id, check_in.agent_id, decision)]


def _expire(command: ExpireCheckIn, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    late = check_in.status != "pending" or check_in.held_at is not None
    if late or command.due_at != check_in.due_at:
        return []
    ids = (check_in.room_id, check_in.agent_id)
    reason = f"nobody decided within {check_in.timeout_minutes} minutes"
    decision = decision_of(context, check_in.payload_hash, "timeout", reason)
    match check_in.timeout_action:
        case "auto_approve":
            return [CheckInApproved(*ids, decision)]
        case "cancel":
            return [CheckInExpired(*ids, decision), _moved(check_in, context, "expired")]
        case "hold":
            return [CheckInHeld(*ids, context.now)]


def _escalate(command: EscalateCheckIn, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    late = check_in.status != "pending" or check_in.escalated_at is not None
    if late or command.due_at != check_in.escalate_at:
        return []
    reviewers = [id for id in command.reviewers if context.state(USER, id).decides]
    ids = (check_in.room_id, check_in.agent_id)
    return [CheckInEscalated(*ids, reviewers, context.now)]


def _moved(check_in: CheckIn, context: Context, outcome: TrustOutcome) -> Emit:
    id = trust_id(check_in.agent_id, check_in.room_id)
    event = moved(
        context.state(TRUST, id),
        agent_id=check_in.agent_id,
        room_id=check_in.room_id,
        check_in_id=context.stream_id,
        outcome=outcome,
        now=context.now,
    )
    return Emit(TRUST, id, event)


def timers(event: CheckInEvent, check_in_id: str) -> Sequence[SetTimer | ClearTimer]:
    match event:
        case CheckInCreated():
            return _timers(event)
        case CheckInHeld() | CheckInVoted() | CheckInEscalated() | CheckInOutcomeReported():
            return ()
    return (ClearTimer(TIMEOUT), ClearTimer(ESCALATION))


def _timers(event: CheckInCreated) -> Sequence[SetTimer]:
    found: list[SetTimer] = []
    ids = (event.room_id, event.agent_id)
    if event.due_at is not None:
        found.append(SetTimer(TIMEOUT, event.due_at, ExpireCheckIn(*ids, event.due_at)))
    if event.escalate_at is not None:
        escalate = EscalateCheckIn(*ids, event.escalate_at, event.escalate_to)
        found.append(SetTimer(ESCALATION, event.escalate_at, escalate))
    return tuple(found)


def answer(command: CheckInCommand, check_in: CheckIn, context: Context) -> CheckInAnswered:
    return CheckInAnswered(context.stream_id, check_in)


def describe(command: CheckInCommand) -> dict[str, object]:
    said: dict[str, object] = {"room_id": command.room_id, "agent_id": command.agent_id}
    match command:
        case CreateCheckIn():
            said |= {"action": command.action, "risk_level": command.risk_level}
        case ApproveCheckIn() | RejectCheckIn() | ModifyCheckIn():
            said |= {"reason": command.reason}
        case EscalateCheckIn():
            said |= {"reviewers": command.reviewers}
        case ReportOutcome():
            said |= {"outcome": command.status}
    return said


DECIDER: Decider[CheckInCommand, CheckIn, CheckInEvent] = Decider(
    stream=STREAM,
    commands=members(CheckInCommand),
    events=members(CheckInEvent),
    version=2,
    initial=CheckIn(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    timers=timers,
    answer=answer,
    describe=describe,
)

"""`approvals.check_in`: an agent asks before it acts; one decision wins, and the rest are told."""

from collections.abc import Sequence
from typing import assert_never

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.agent import Agent
from commands.approvals.check_in_state import (
    ApproveCheckIn,
    CheckIn,
    CheckInAnswered,
    CheckInCommand,
    CheckInExists,
    CheckInNotFound,
    CreateCheckIn,
    ExpireCheckIn,
    ModifyCheckIn,
    PolicyForbids,
    RejectCheckIn,
    Verdicts,
    WithdrawCheckIn,
    already_decided,
    check_payload,
    decision_of,
    evolve,
)
from commands.approvals.conditions import Asked
from commands.approvals.payload import payload_hash
from commands.approvals.policy import judge
from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room, RoomNotFound
from commands.approvals.trust import STREAM as TRUST
from commands.approvals.trust import Trust, moved, trust_id
from commands.decider import ClearTimer, Context, Decider, Emit, Ref, SetTimer
from commands.refusals import ActorForbidden
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInEvent,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInRejected,
    CheckInWithdrawn,
    Decision,
)
from schemas.approvals.policies import Policies, Verdict
from schemas.approvals.vocabulary import (
    TrustOutcome,
)

STREAM = "approvals.check_in"
TIMEOUT = "timeout"
_MINUTE = 60_000_000


Emitted = CheckInEvent | Emit


def loads(command: CheckInCommand, check_in_id: str) -> Sequence[Ref]:
    # Room and agent are named for decisions too: then the audit trail of either finds them.
    trust = trust_id(command.agent_id, command.room_id)
    return (Ref(ROOM, command.room_id), Ref(AGENT, command.agent_id), Ref(TRUST, trust))


def decide(command: CheckInCommand, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    match command:
        case CreateCheckIn():
            return _create(command, check_in, context)
        case ApproveCheckIn() | RejectCheckIn() | ModifyCheckIn():
            return _decide(command, check_in, context)
        case WithdrawCheckIn():
            return _withdraw(command, check_in, context)
        case ExpireCheckIn():
            return _expire(command, check_in, context)
    assert_never(command)


def _create(command: CreateCheckIn, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    room: Room = context.state(ROOM, command.room_id)
    agent: Agent = context.state(AGENT, command.agent_id)
    if room.policies is None:
        raise RoomNotFound("no such room")
    if context.actor.kind != "agent" or context.actor.id != command.agent_id or not agent.active:
        raise ActorForbidden("only a registered agent checks in, for itself")
    if not agent.sees(command.room_id):
        raise RoomNotFound("no such room")
    if check_in.status != "absent":
        if _repeats(command, check_in):
            return []
        raise CheckInExists("a check-in with this id exists already")
    trust: Trust = context.state(TRUST, trust_id(command.agent_id, command.room_id))
    verdict = _judge(command, room.policies, agent, trust, context.now)
    created = _created(command, context, verdict)
    if verdict.action == "require_approval":
        return [created]
    decision = Decision(
        id=context.command_id,
        source="policy",
        by="policy",
        by_name=verdict.rule_name,
        reason=verdict.reason,
        payload_hash=created.payload_hash,
        decided_at=context.now,
    )
    return [created, CheckInApproved(command.room_id, command.agent_id, decision)]


def _repeats(command: CreateCheckIn, check_in: CheckIn) -> bool:
    asked = (command.room_id, command.agent_id, command.action, command.context)
    return asked == (check_in.room_id, check_in.agent_id, check_in.action, check_in.context)


def _judge(
    command: CreateCheckIn, policies: Policies, agent: Agent, trust: Trust, now: int
) -> Verdict:
    """The policies' verdict. Raises PolicyForbids."""
    overrides = command.timeout_minutes is not None or command.timeout_action is not None
    if overrides and not policies.timeout_override:
        raise PolicyForbids("the room does not let agents set the timeout", source="timeout")
    asked = Asked(
        action=command.action,
        risk_level=command.risk_level,
        urgency=command.urgency,
        agent_id=command.agent_id,
        platform=agent.platform,
        context=command.context,
        at=now,
        trust_score=trust.score,
    )
    verdict = judge(policies, asked)
    if verdict.action == "forbid":
        raise PolicyForbids(
            verdict.reason,
            source=verdict.source,
            rule_index=verdict.rule_index,
            rule_name=verdict.rule_name,
        )
    return verdict


def _created(command: CreateCheckIn, context: Context, verdict: Verdict) -> CheckInCreated:
    policies: Policies = context.state(ROOM, command.room_id).policies
    agent: Agent = context.state(AGENT, command.agent_id)
    trust: Trust = context.state(TRUST, trust_id(command.agent_id, command.room_id))
    now = context.now
    minutes = command.timeout_minutes or policies.timeout_minutes
    waits = verdict.action == "require_approval"
    return CheckInCreated(
        room_id=command.room_id,
        agent_id=command.agent_id,
        agent_name=agent.name,
        action=command.action,
        description=command.description,
        risk_level=command.risk_level,
        urgency=command.urgency,
        context=command.context,
        payload_hash=payload_hash(command.action, command.context),
        verdict=verdict,
        trust_score=trust.score,
        timeout_minutes=minutes,
        timeout_action=command.timeout_action or policies.timeout_action,
        created_at=now,
        due_at=now + minutes * _MINUTE if waits else None,
    )


def _decide(command: Verdicts, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    if context.actor.kind != "user":
        raise ActorForbidden("only a person decides a check-in")
    if _is_settled(command, check_in, context):
        return []
    check_payload(command.payload_hash, check_in.payload_hash)
    decision = decision_of(context, check_in.payload_hash, "human", command.reason)
    ids = (check_in.room_id, check_in.agent_id)
    match command:
        case ApproveCheckIn():
            return [CheckInApproved(*ids, decision), _moved(check_in, context, "approved")]
        case RejectCheckIn():
            return [CheckInRejected(*ids, decision), _moved(check_in, context, "rejected")]
        case ModifyCheckIn():
            modified = CheckInModified(*ids, decision, command.modifications)
            return [modified, _moved(check_in, context, "modified")]
    assert_never(command)


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
            if event.due_at is None:
                return ()
            expire = ExpireCheckIn(event.room_id, event.agent_id, event.due_at)
            return (SetTimer(TIMEOUT, event.due_at, expire),)
        case CheckInHeld():
            return ()  # its timer has fired
    return (ClearTimer(TIMEOUT),)


def answer(command: CheckInCommand, check_in: CheckIn, context: Context) -> CheckInAnswered:
    return CheckInAnswered(context.stream_id, check_in)


def describe(command: CheckInCommand) -> dict[str, object]:
    said: dict[str, object] = {"room_id": command.room_id, "agent_id": command.agent_id}
    match command:
        case CreateCheckIn():
            said |= {"action": command.action, "risk_level": command.risk_level}
        case ApproveCheckIn() | RejectCheckIn() | ModifyCheckIn():
            said |= {"reason": command.reason}
    return said


DECIDER: Decider[CheckInCommand, CheckIn, CheckInEvent] = Decider(
    stream=STREAM,
    commands=(
        CreateCheckIn,
        ApproveCheckIn,
        RejectCheckIn,
        ModifyCheckIn,
        WithdrawCheckIn,
        ExpireCheckIn,
    ),
    events=(
        CheckInCreated,
        CheckInApproved,
        CheckInRejected,
        CheckInModified,
        CheckInWithdrawn,
        CheckInExpired,
        CheckInHeld,
    ),
    initial=CheckIn(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    timers=timers,
    answer=answer,
    describe=describe,
)

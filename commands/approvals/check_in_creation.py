"""A check-in is asked for: who may ask, the room's verdict, what is written down of it. Pure."""

from collections.abc import Sequence

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.agent import Agent
from commands.approvals.check_in_state import (
    CheckIn,
    CheckInExists,
    CreateCheckIn,
    Emitted,
    PolicyForbids,
)
from commands.approvals.conditions import Asked
from commands.approvals.payload import payload_hash
from commands.approvals.policy import approvals_required, judge
from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room, RoomNotFound
from commands.approvals.trust import STREAM as TRUST
from commands.approvals.trust import Trust, trust_id
from commands.decider import Context
from commands.refusals import ActorForbidden
from schemas.approvals.check_in import CheckInApproved, CheckInCreated, Decision
from schemas.approvals.policies import Policies, Verdict

_MINUTE = 60_000_000


def create(command: CreateCheckIn, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    """What an agent asks, and the approval where the policies let it through at once.

    Raises RoomNotFound, ActorForbidden, CheckInExists, PolicyForbids.
    """
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
    escalate_after = policies.escalate_after_minutes
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
        approvals_required=approvals_required(policies, verdict),
        escalate_at=now + escalate_after * _MINUTE if waits and escalate_after else None,
        escalate_to=policies.escalate_to if waits else [],
    )

"""A check-in as clients see it, of a row of the view or of a decider's answer."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from commands.approvals.payload import modified, payload_hash
from schemas.approvals.check_in import Decision, Outcome, Vote
from schemas.approvals.policies import Verdict
from schemas.approvals.vocabulary import (
    AnyStatus,
    OutcomeStatus,
    RiskLevel,
    TimeoutAction,
    Urgency,
)
from schemas.envelope import ActorKind
from schemas.instants import iso, iso_or_none


class StatusItem(Struct, frozen=True):
    """What became of a check-in.

    payload_hash, approved_hash: SHA-256 of the canonical `{"action", "context"}` that was asked,
    and of the one that may be run, which is another when a person has modified it; null until then.
    modifications: a JSON merge patch (RFC 7396) of the context that was asked.
    decision_source: `human`, `policy`, `timeout`, or `agent` (withdrawn). decision_id: the same for
    every reader, so that an agent that resumes twice acts once. overdue: the timeout has passed and
    holds it. Instants are RFC 3339 in UTC.
    """

    id: str
    status: AnyStatus
    overdue: bool
    payload_hash: str
    approved_hash: str | None
    expires_at: str | None
    decision_id: str | None
    decision_source: str | None
    decision_reason: str | None
    decided_by: str | None
    decided_by_name: str | None
    decided_at: str | None
    modifications: Raw | None


class VoteItem(Struct, frozen=True):
    """A person's yes; payload_hash: of what they said yes to."""

    by: str
    by_name: str
    reason: str
    payload_hash: str
    voted_at: str


class ApprovalsItem(Struct, frozen=True):
    """Who has approved so far, where it takes several people.

    payload_hash: of what stands to be approved, which is the `proposed_modifications` too where
    somebody has proposed some.
    """

    required: int
    votes: list[VoteItem]
    payload_hash: str
    proposed_modifications: Raw | None


class OutcomeItem(Struct, frozen=True):
    """What the agent says came of what it was allowed to run."""

    status: OutcomeStatus
    message: str
    details: Raw
    reported_at: str


class CheckInItem(StatusItem, frozen=True, kw_only=True, tag_field="kind", tag="check_in"):
    """An agent's question.

    context: what was asked; to an agent, once a person has modified it, what it may run. policy:
    what the room's policies said of it, by which rule, and why. approvals: null where one person's
    is enough. escalated_to: ids of the people who were named when nobody had answered by
    `escalates_at`; nobody in particular when it is empty.
    """

    room_id: str
    agent_id: str
    agent_name: str
    action: str
    description: str
    risk_level: RiskLevel
    urgency: Urgency
    context: Raw
    policy: Verdict
    trust_score: float
    timeout_minutes: int
    timeout_action: TimeoutAction
    created_at: str
    approvals: ApprovalsItem | None
    escalates_at: str | None
    escalated_at: str | None
    escalated_to: list[str]
    outcome: OutcomeItem | None


def status_of(check_in: Mapping[str, Any]) -> StatusItem:
    """The status of a row or of an answer's fields."""
    return StatusItem(**status_fields(check_in))


def item_of(check_in: Mapping[str, Any], reader: ActorKind) -> CheckInItem:
    """The whole of a row or of an answer's fields, as its reader sees it."""
    same = (
        "room_id",
        "agent_id",
        "agent_name",
        "action",
        "description",
        "risk_level",
        "urgency",
        "trust_score",
        "timeout_minutes",
        "timeout_action",
    )
    return CheckInItem(
        **status_fields(check_in),
        **{name: check_in[name] for name in same},
        context=context_for(reader, check_in),
        policy=msgspec.convert(check_in["verdict"], Verdict),
        created_at=iso(check_in["created_at"]),
        approvals=_approvals_of(check_in),
        escalates_at=iso_or_none(check_in["escalate_at"]),
        escalated_at=iso_or_none(check_in["escalated_at"]),
        escalated_to=check_in["escalated_to"],
        outcome=_outcome_of(check_in),
    )


def context_for(reader: ActorKind, row: Mapping[str, Any]) -> Raw:
    """What was asked; for an agent, once that was modified, what it may run and nothing else.

    People see both: what was asked here, and the modifications beside it.
    """
    changes = row["modifications"]
    if reader != "agent" or changes is None:
        return Raw(row["context"])
    return Raw(modified(row["context"], changes))


def approved_hash(row: Mapping[str, Any]) -> str | None:
    """The payload hash of what may be run, if anything may."""
    match row["status"]:
        case "approved":
            return str(row["payload_hash"])
        case "modified":
            return payload_hash(row["action"], modified(row["context"], row["modifications"]))
    return None


def _approvals_of(check_in: Mapping[str, Any]) -> ApprovalsItem | None:
    if check_in["approvals_required"] == 1:
        return None
    proposed = check_in["proposed"]
    votes = msgspec.convert(check_in["votes"], list[Vote])
    return ApprovalsItem(
        required=check_in["approvals_required"],
        votes=[
            VoteItem(vote.by, vote.by_name, vote.reason, vote.payload_hash, iso(vote.voted_at))
            for vote in votes
        ],
        # A change is proposed with its proposer's vote, so there is one for what stands.
        payload_hash=votes[-1].payload_hash if votes else check_in["payload_hash"],
        proposed_modifications=None if proposed is None else Raw(proposed),
    )


def _outcome_of(check_in: Mapping[str, Any]) -> OutcomeItem | None:
    outcome = msgspec.convert(check_in["outcome"], Outcome | None)
    if outcome is None:
        return None
    details = Raw(outcome.details)
    return OutcomeItem(outcome.status, outcome.message, details, iso(outcome.reported_at))


def status_fields(check_in: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a StatusItem. A task knows no timeout, so it is never overdue."""
    decision: Decision | None = msgspec.convert(check_in["decision"], Decision | None)
    modifications, due_at = check_in["modifications"], check_in.get("due_at")
    return {
        "id": check_in["id"],
        "status": check_in["status"],
        "overdue": check_in.get("held_at") is not None and decision is None,
        "payload_hash": check_in["payload_hash"],
        "approved_hash": approved_hash(check_in),
        "expires_at": iso_or_none(due_at),
        "decision_id": decision and decision.id,
        "decision_source": decision and decision.source,
        "decision_reason": decision and decision.reason,
        "decided_by": decision and decision.by,
        "decided_by_name": decision and decision.by_name,
        "decided_at": decision and iso(decision.decided_at),
        "modifications": None if modifications is None else Raw(modifications),
    }

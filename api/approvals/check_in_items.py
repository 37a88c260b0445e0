"""A check-in as clients see it, of a row of the view or of a decider's answer."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from infra.clock import iso
from schemas.approvals.check_in import Decision
from schemas.approvals.policies import Verdict
from schemas.approvals.vocabulary import AnyStatus, RiskLevel, TimeoutAction, Urgency


class StatusItem(Struct, frozen=True):
    """What became of a check-in.

    decision_source: `human`, `policy`, `timeout`, or `agent` (withdrawn). decision_id: the same for
    every reader, so that an agent that resumes twice acts once. overdue: the timeout has passed and
    holds it. Instants are RFC 3339 in UTC.
    """

    id: str
    status: AnyStatus
    overdue: bool
    payload_hash: str
    expires_at: str | None
    decision_id: str | None
    decision_source: str | None
    decision_reason: str | None
    decided_by: str | None
    decided_by_name: str | None
    decided_at: str | None
    modifications: Raw | None


class CheckInItem(StatusItem, frozen=True, kw_only=True, tag_field="kind", tag="check_in"):
    """An agent's question. policy: what the room's policies said of it, by which rule, and why."""

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


def status_of(check_in: Mapping[str, Any]) -> StatusItem:
    """The status of a row or of an answer's fields."""
    return StatusItem(**status_fields(check_in))


def item_of(check_in: Mapping[str, Any]) -> CheckInItem:
    """The whole of a row or of an answer's fields."""
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
        context=Raw(check_in["context"]),
        policy=msgspec.convert(check_in["verdict"], Verdict),
        created_at=iso(check_in["created_at"]),
    )


def status_fields(check_in: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a StatusItem. A task knows no timeout, so it is never overdue."""
    decision: Decision | None = msgspec.convert(check_in["decision"], Decision | None)
    modifications, due_at = check_in["modifications"], check_in.get("due_at")
    return {
        "id": check_in["id"],
        "status": check_in["status"],
        "overdue": check_in.get("held_at") is not None and decision is None,
        "payload_hash": check_in["payload_hash"],
        "expires_at": None if due_at is None else iso(due_at),
        "decision_id": decision and decision.id,
        "decision_source": decision and decision.source,
        "decision_reason": decision and decision.reason,
        "decided_by": decision and decision.by,
        "decided_by_name": decision and decision.by_name,
        "decided_at": decision and iso(decision.decided_at),
        "modifications": None if modifications is None else Raw(modifications),
    }

"""What is told of a room's events, to whoever follows its stream or watches it. Pure."""

from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInEscalated,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInOutcomeReported,
    CheckInRejected,
    CheckInVoted,
    CheckInWithdrawn,
    Decision,
)
from schemas.approvals.signal import SignalBroadcast
from schemas.approvals.task import (
    TaskClaimed,
    TaskDecided,
    TaskHelpRequested,
    TaskPosted,
    TaskReleased,
)
from schemas.approvals.thread import MessagePosted
from schemas.approvals.watcher import WatcherTriggered
from schemas.envelope import Envelope
from schemas.instants import iso, iso_or_none

_PREFIXES = (
    "approvals.check_in_",
    "approvals.task_",
    "approvals.message_",
    "approvals.signal_broadcast.",
    "approvals.watcher_triggered.",
)


class Told(NamedTuple):
    """An event as those outside know it: its public name, and what is said of it (JSON values)."""

    name: str
    fields: dict[str, Any]


def of_a_room(event_type: str) -> bool:
    """Whether events of this type may be told of; they all name their `room_id`."""
    return event_type.startswith(_PREFIXES)


def told_of(envelope: Envelope, event: Any) -> Told | None:
    """What is told of an event; None for those that nobody outside need know."""
    match event:
        case SignalBroadcast():
            return Told("signal.broadcast", _signalled(envelope, event))
        case WatcherTriggered():
            return Told("watcher.triggered", _triggered(envelope, event))
    return _told_of_check_in(envelope, event)


def _told_of_check_in(envelope: Envelope, event: Any) -> Told | None:
    """A check-in's events; those of a task and of a thread are told as a check-in's."""
    about: dict[str, Any] = {
        "check_in_id": envelope.stream_id,
        "room_id": event.room_id,
        "agent_id": getattr(event, "agent_id", "") or None,
        "occurred_at": iso(envelope.time),
    }
    match event:
        case CheckInCreated():
            return Told("check_in.created", about | _asked(event))
        case CheckInApproved():
            return Told("check_in.decided", about | _decided("approved", event.decision))
        case CheckInRejected():
            return Told("check_in.decided", about | _decided("rejected", event.decision))
        case CheckInModified():
            changes = {"modifications": Raw(event.modifications)}
            said = _decided("modified", event.decision) | changes
            return Told("check_in.decided", about | said)
        case CheckInWithdrawn():
            return Told("check_in.withdrawn", about | _decided("withdrawn", event.decision))
        case CheckInExpired():
            return Told("check_in.expired", about | _decided("expired", event.decision))
        case CheckInHeld():
            return Told("check_in.held", about | {"status": "pending", "overdue": True})
        case CheckInVoted():
            return Told("check_in.voted", about | _voted(event))
        case CheckInEscalated():
            said = {"status": "pending", "escalated_to": event.reviewers}
            return Told("check_in.escalated", about | said)
        case CheckInOutcomeReported():
            return Told("check_in.outcome", about | _outcome(event))
    return _told_of_task(about, event)


def _told_of_task(about: dict[str, Any], event: Any) -> Told | None:
    match event:
        case TaskPosted():
            return Told("check_in.created", about | _posted(event))
        case TaskClaimed():
            return Told("check_in.claimed", about | _claimed(event))
        case TaskReleased():
            return Told("check_in.released", about | {"status": "pending", "cause": event.cause})
        case TaskHelpRequested():
            return Told("check_in.help_requested", about | {"body": event.body})
        case TaskDecided():
            said = _decided(event.status, event.decision)
            if event.modifications is not None:
                said["modifications"] = Raw(event.modifications)
            return Told("check_in.decided", about | said)
        case MessagePosted():
            return Told("check_in.message", about | _written(event))
    return None


def _signalled(envelope: Envelope, event: SignalBroadcast) -> dict[str, Any]:
    return {
        "signal_id": envelope.stream_id,
        "room_id": event.room_id,
        "occurred_at": iso(envelope.time),
        "type": event.name,
        "payload": Raw(event.payload),
        "sent_by": event.sent_by,
        "sent_by_name": event.sent_by_name,
    }


def _triggered(envelope: Envelope, event: WatcherTriggered) -> dict[str, Any]:
    return {
        "watcher_id": envelope.stream_id,
        "room_id": event.room_id,
        "agent_id": event.agent_id,
        "occurred_at": iso(envelope.time),
        "event_id": event.event_id,
        "event_type": event.event_type,
    }


def _posted(event: TaskPosted) -> dict[str, Any]:
    return {
        "kind": "task",
        "status": "pending",
        "action": event.action,
        "description": event.description,
        "risk_level": event.risk_level,
        "urgency": event.urgency,
        "context": Raw(event.context),
        "payload_hash": event.payload_hash,
        "created_by": event.posted_by,
        "created_by_name": event.posted_by_name,
    }


def _claimed(event: TaskClaimed) -> dict[str, Any]:
    return {
        "status": "in_progress",
        "agent_name": event.agent_name,
        "claim_expires_at": iso(event.claimed_until),
    }


def _written(event: MessagePosted) -> dict[str, Any]:
    return {
        "message_id": event.message_id,
        "number": event.number,
        "author_type": event.author_kind,
        "author_id": event.author_id,
        "author_name": event.author_name,
        "body": event.body,
        "message_type": event.message_type,
        "metadata": Raw(event.metadata),
        "attachments": Raw(event.attachments),
    }


def _asked(event: CheckInCreated) -> dict[str, Any]:
    return {
        "kind": "check_in",
        "status": "pending",
        "agent_name": event.agent_name,
        "action": event.action,
        "description": event.description,
        "risk_level": event.risk_level,
        "urgency": event.urgency,
        "context": Raw(event.context),
        "payload_hash": event.payload_hash,
        "policy": msgspec.to_builtins(event.verdict),
        "expires_at": iso_or_none(event.due_at),
    }


def _voted(event: CheckInVoted) -> dict[str, Any]:
    latest = event.votes[-1]
    changes = event.modifications
    return {
        "status": "pending",
        "voted_by": latest.by,
        "voted_by_name": latest.by_name,
        "reason": latest.reason,
        "payload_hash": latest.payload_hash,
        "proposed_modifications": None if changes is None else Raw(changes),
        "approvals": len(event.votes),
        "approvals_required": event.approvals_required,
    }


def _outcome(event: CheckInOutcomeReported) -> dict[str, Any]:
    outcome = event.outcome
    return {
        "outcome": outcome.status,
        "message": outcome.message,
        "details": Raw(outcome.details),
    }


def _decided(status: str, decision: Decision) -> dict[str, Any]:
    return {
        "status": status,
        "decision_id": decision.id,
        "decision_source": decision.source,
        "decision_reason": decision.reason,
        "decided_by": decision.by,
        "decided_by_name": decision.by_name,
        "decided_at": iso(decision.decided_at),
        "payload_hash": decision.payload_hash,
    }

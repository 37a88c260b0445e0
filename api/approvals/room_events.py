"""A room's events as they happen: `GET /v1/rooms/{room}/events`, server-sent events."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from api.approvals.visible import room_row
from api.live import TooManyListeners
from api.problems import Problem
from api.routing import Call
from api.sse import EventStream, Frame
from api.subscription import BadPosition, LiveEvent
from infra.clock import iso
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInRejected,
    CheckInWithdrawn,
    Decision,
)
from schemas.approvals.task import (
    TaskClaimed,
    TaskDecided,
    TaskHelpRequested,
    TaskPosted,
    TaskReleased,
)
from schemas.approvals.thread import MessagePosted
from schemas.types import Text

# Events of these types name their room; those of a task and of a thread are told as a check-in's.
_PREFIXES = ("approvals.check_in_", "approvals.task_", "approvals.message_")


class EventsQuery(Struct, frozen=True):
    """Where to go on: the `id` of the last event seen, for clients that can't set the header."""

    last_event_id: Annotated[Text, Meta(max_length=300)] = ""


async def stream_room_events(call: Call[None, EventsQuery]) -> Any:
    """Follow a room. `Last-Event-ID` resumes from the log, without loss or repeat."""
    room_id = (await room_row(call, call.path["room"]))["id"]

    def wants(event: LiveEvent) -> bool:
        return event.type.startswith(_PREFIXES) and event.event.room_id == room_id

    try:
        subscription = await call.services.live.subscribe(
            call.tenant,
            wants=wants,
            after=call.raw.headers.get("last-event-id", "") or call.query.last_event_id or None,
            credential=call.principal.key_id or call.principal.session_id,
            holder=call.actor.id,
        )
    except BadPosition as error:
        raise Problem(
            400, "validation_error", str(error), field="Last-Event-ID", where="header"
        ) from None
    except TooManyListeners:
        message = "Too many event streams are open"
        raise Problem(429, "rate_limited", message, headers={"retry-after": "10"}) from None
    return EventStream(subscription, frame_of)


def frame_of(item: LiveEvent) -> Frame | None:
    """What a client is told of an event; None for those that it need not know."""
    event, envelope = item.event, item.envelope
    about: dict[str, Any] = {
        "check_in_id": envelope.stream_id,
        "room_id": event.room_id,
        "agent_id": getattr(event, "agent_id", "") or None,
        "occurred_at": iso(envelope.time),
    }
    match event:
        case CheckInCreated():
            return Frame("check_in.created", about | _asked(event))
        case CheckInApproved():
            return Frame("check_in.decided", about | _decided("approved", event.decision))
        case CheckInRejected():
            return Frame("check_in.decided", about | _decided("rejected", event.decision))
        case CheckInModified():
            changes = {"modifications": Raw(event.modifications)}
            said = _decided("modified", event.decision) | changes
            return Frame("check_in.decided", about | said)
        case CheckInWithdrawn():
            return Frame("check_in.withdrawn", about | _decided("withdrawn", event.decision))
        case CheckInExpired():
            return Frame("check_in.expired", about | _decided("expired", event.decision))
        case CheckInHeld():
            return Frame("check_in.held", about | {"status": "pending", "overdue": True})
        case TaskPosted():
            return Frame("check_in.created", about | _posted(event))
        case TaskClaimed():
            return Frame("check_in.claimed", about | _claimed(event))
        case TaskReleased():
            return Frame("check_in.released", about | {"status": "pending", "cause": event.cause})
        case TaskHelpRequested():
            return Frame("check_in.help_requested", about | {"body": event.body})
        case TaskDecided():
            said = _decided(event.status, event.decision)
            if event.modifications is not None:
                said["modifications"] = Raw(event.modifications)
            return Frame("check_in.decided", about | said)
        case MessagePosted():
            return Frame("check_in.message", about | _written(event))
    return None


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
        "expires_at": None if event.due_at is None else iso(event.due_at),
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

"""A room's events as they happen: `GET /v1/rooms/{room}/events`, server-sent events."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.approvals.visible import room_row
from api.live import TooManyListeners
from api.problems import Problem
from api.routing import Call
from api.sse import EventStream, Frame
from api.subscription import BadPosition, LiveEvent
from schemas.types import Text
from streams.approvals.room_feed import of_a_room, told_of


class EventsQuery(Struct, frozen=True):
    """Where to go on: the `id` of the last event seen, for clients that can't set the header."""

    last_event_id: Annotated[Text, Meta(max_length=300)] = ""


async def stream_room_events(call: Call[None, EventsQuery]) -> Any:
    """Follow a room. `Last-Event-ID` resumes from the log, without loss or repeat."""
    room_id = (await room_row(call, call.path["room"]))["id"]

    def wants(event: LiveEvent) -> bool:
        return of_a_room(event.type) and event.event.room_id == room_id

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
    told = told_of(item.envelope, item.event)
    return None if told is None else Frame(*told)

"""A room's events as they happen: `GET /v1/rooms/{room}/events`, server-sent events."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.approvals.declaring import route
from api.approvals.visible import room_row
from api.listening import listen
from api.routing import Call, Who
from api.sse import EventStream, Frame
from api.subscription import LiveEvent
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

    return EventStream(await listen(call, wants), frame_of)


def frame_of(item: LiveEvent) -> Frame | None:
    """What a client is told of an event; None for those that it need not know."""
    told = told_of(item.envelope, item.event)
    return None if told is None else Frame(*told)


ROUTES = [
    route(
        "GET",
        "/v1/rooms/{room}/events",
        stream_room_events,
        Who.ANY,
        "Follow a room's events",
        query=EventsQuery,
        stream=True,
        media_type="text/event-stream",
        refusals=(404, 429),
        description="Server-sent events. `id` is a log position: send the last one as "
        "`Last-Event-ID` to go on without loss.",
    ),
]

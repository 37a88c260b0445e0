"""Billing events: listed, newest first, and followed as they happen."""

from typing import Annotated, Any, get_args

from msgspec import Meta, Struct

from api.billing.answers import (
    BillingEventHistoryResponse,
    EventType,
    event_of_row,
    event_response,
)
from api.billing.declaring import TENANT, service_route
from api.billing.instants import instant
from api.billing.tenant import own_tenant
from api.cursors import read_cursor, write_cursor
from api.listening import listen
from api.roles import BILLING_READERS
from api.routing import Call
from api.sse import EventStream, Frame
from api.subscription import LiveEvent
from projections.billing import billing_events
from schemas.types import Text

TOPIC = "billing"
_SHOWN = frozenset(get_args(EventType))

Position = Annotated[Text, Meta(max_length=100)]
MeterFilter = Annotated[Text, Meta(max_length=100)]


class EventsQuery(Struct, frozen=True):
    """Which events; `since` bounds when they were recorded."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 25
    cursor: Annotated[Text, Meta(max_length=300)] = ""
    event_type: EventType | None = None
    meter: MeterFilter = ""
    since: Annotated[Text, Meta(max_length=40)] = ""


class StreamQuery(Struct, frozen=True):
    """Which events, and for clients that can't set `Last-Event-ID` where to go on."""

    event_type: EventType | None = None
    meter: MeterFilter = ""
    last_event_id: Position = ""


async def list_events(call: Call[None, EventsQuery]) -> BillingEventHistoryResponse:
    """A page of the tenant's billing events."""
    own_tenant(call)
    query = call.query
    recorded_at, event_id = read_cursor(query.cursor, status=422)
    tag = f"billing.{query.event_type}.v1" if query.event_type else ""
    rows = await call.services.reads.all(
        billing_events.PAGE,
        call.tenant,
        recorded_at,
        event_id,
        tag,
        tag,
        query.meter,
        query.meter,
        instant(query.since, "since", 0),
        query.limit + 1,
    )
    page = rows[: query.limit]
    more = len(rows) > query.limit
    return BillingEventHistoryResponse(
        items=[event_of_row(row, call.tenant) for row in page],
        next_cursor=write_cursor(page[-1]["recorded_at"], page[-1]["event_id"]) if more else None,
    )


async def stream_events(call: Call[None, StreamQuery]) -> Any:
    """Follow the tenant's billing events. `Last-Event-ID` resumes without loss or repeat."""
    query = call.query

    def wants(event: LiveEvent) -> bool:
        name = event.type.split(".")[1]
        if name not in _SHOWN or (query.event_type and name != query.event_type):
            return False
        return not query.meter or meter_of(event.event) == query.meter

    return EventStream(await listen(call, wants, topic=TOPIC), frame_of)


def meter_of(event: Any) -> str:
    """The meter that an event is about; a budget's id is its meter and window."""
    return str(getattr(event, "meter", "") or getattr(event, "budget_id", "").rpartition("@")[0])


def frame_of(item: LiveEvent) -> Frame:
    """An event as the stream sends it."""
    envelope = item.envelope
    shown = event_response(envelope.id, envelope.tenant, envelope.time, item.event)
    return Frame(shown.event_type, shown)


ROUTES = [
    service_route(
        "GET",
        f"{TENANT}/events",
        list_events,
        roles=BILLING_READERS,
        query=EventsQuery,
        response=BillingEventHistoryResponse,
        summary="List Billing Events",
        refusals=(404,),
    ),
    service_route(
        "GET",
        "/api/v1/billing/stream",
        stream_events,
        roles=BILLING_READERS,
        query=StreamQuery,
        stream=True,
        media_type="text/event-stream",
        summary="Billing Event Stream",
        refusals=(400, 429),
        description="Server-sent events. `id` is a log position: send the last one as "
        "`Last-Event-ID` to go on without loss. An event `resync` says that the log does not hold "
        "that position any more.",
    ),
]

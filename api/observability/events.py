"""Governance events: free-form reports of what was allowed, blocked or overridden, and their list.

An event is kept as the text it came as. What it says under `event_type`, `agent_name`, `action` and
`timestamp` can be filtered by, where it is text (and the timestamp ISO 8601).
"""

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from api.observability.bodies import Counted, JsonObject, object_text
from api.observability.pages import (
    DEFAULT_LIMIT,
    Cursor,
    DeepOffset,
    Limit,
    Listing,
    instant,
    shown,
    window,
)
from api.observability.reporting import MAX_BODY, append
from api.problems import OBSERVE, Problem
from api.roles import BUILDERS, READERS
from api.routing import Call, Route, Who
from infra.clock import iso
from projections.observability import governance_events as queries
from projections.observability.governance_events import NEWEST_FIRST, GovernanceSelection
from schemas.observability.governance import STREAM, GovernanceEvent, GovernanceEventsRecorded
from streams.telemetry import item_id

WORD_MAX = 500
Text = Annotated[str, Meta(max_length=WORD_MAX)]


class EventsBody(Struct):
    """Events are objects of any fields. `event_type`, `agent_name`, `action` and `timestamp` (ISO
    8601) are what the list filters and sorts by."""

    events: list[JsonObject]


class _Lifted(Struct):
    event_type: Any = None
    agent_name: Any = None
    action: Any = None
    timestamp: Any = None


class ListEvents(Struct):
    """Filters and page, newest first. `end` includes the moment given, or the whole day of a
    date."""

    event_type: Text = ""
    agent: Text = ""
    start: Text = ""
    end: Text = ""
    limit: Limit = DEFAULT_LIMIT
    offset: DeepOffset = 0
    cursor: Cursor = ""


class EventRow(Struct):
    """An event. timestamp: its own, or when it was received if it has none."""

    id: str
    event_type: str
    agent_name: str
    action: str
    timestamp: str
    received_at: str
    event: JsonObject


class EventPage(Struct):
    results: list[EventRow]
    count: int
    next: str | None
    previous: str | None
    next_cursor: str | None


async def record_events(call: Call[EventsBody, None]) -> Counted:
    now = call.services.clock.now()
    events = [
        _event(item, f"events[{index}]", item_id("gov", call.command_id, index), now)
        for index, item in enumerate(call.body.events)
    ]
    if events:
        recorded = GovernanceEventsRecorded(events=events)
        await append(call, call.tenant, recorded, stream=STREAM, at=now)
    return Counted(len(events))


def _event(item: Raw, place: str, id: str, now: int) -> GovernanceEvent:
    if bytes(item) == b"null":
        raise Problem(400, "validation_error", "Expected `object`", field=place)
    text = object_text(item, place)
    lifted = msgspec.json.decode(text, type=_Lifted)
    for name in ("event_type", "agent_name", "action"):
        if len(_text(getattr(lifted, name))) > WORD_MAX:
            message = f"Expected `str` of length <= {WORD_MAX}"
            raise Problem(400, "validation_error", message, field=f"{place}.{name}")
    return GovernanceEvent(
        id=id,
        event=text,
        occurred_at=_moment(lifted.timestamp, now),
        event_type=_text(lifted.event_type),
        agent_name=_text(lifted.agent_name),
        action=_text(lifted.action),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _moment(value: Any, now: int) -> int:
    """What the event's timestamp says; now, where that is nothing we can read."""
    try:
        moment = instant(_text(value), "timestamp")
    except Problem:
        return now
    return now if moment is None else moment


async def list_events(call: Call[None, ListEvents]) -> EventPage:
    asked, ask = call.query, call.services.analytics.query
    selection = GovernanceSelection(
        tenant=call.tenant,
        event_type=asked.event_type,
        agent=asked.agent,
        since=instant(asked.start, "start"),
        until=instant(asked.end, "end", end=True),
    )
    listing = Listing("events", NEWEST_FIRST)
    page = window(asked, listing)
    counted, rows = await asyncio.gather(
        ask(*queries.count(selection)), ask(*queries.page(selection, page))
    )
    count = counted[0]["events"]
    found = shown(call, page, listing, rows, count)
    results = [
        EventRow(
            id=row["id"],
            event_type=row["event_type"],
            agent_name=row["agent_name"],
            action=row["action"],
            timestamp=iso(row["at"]),
            received_at=iso(row["received"]),
            event=Raw(row["event"].encode()),
        )
        for row in found.rows
    ]
    return EventPage(results, count, found.next, found.previous, found.next_cursor)


ROUTES = [
    Route(
        "POST",
        "/api/v1/observe/events/",
        record_events,
        dialect=OBSERVE,
        who=Who.API_KEY,
        roles=BUILDERS,
        body=EventsBody,
        response=Counted,
        tags=("events",),
        summary="Record governance events",
        max_body=MAX_BODY,
        lenient=True,
        repeats=True,
        quiet=True,
    ),
    Route(
        "GET",
        "/api/v1/observability/events/",
        list_events,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=READERS,
        query=ListEvents,
        response=EventPage,
        tags=("events",),
        summary="List governance events",
        analytics=True,
    ),
]

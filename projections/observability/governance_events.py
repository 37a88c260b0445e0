"""Governance events as they came, with what they say of themselves lifted out; and their list."""

from typing import Any

from msgspec import Struct

from projections.clickhouse import INSTANT, JSON_TEXT, TENANT, ClickHouseView, Row
from projections.observability.items import TEXT, TOPIC, WORD, first_reports
from projections.observability.ordering import (
    Key,
    Kind,
    Order,
    Query,
    Window,
    instant_parameter,
    page_of,
)
from schemas.envelope import Envelope
from schemas.observability.governance import GovernanceEventsRecorded


def rows(event: GovernanceEventsRecorded, envelope: Envelope) -> list[Row]:
    """One row per event."""
    return [
        (
            envelope.tenant,
            item.id,
            item.event_type,
            item.agent_name,
            item.action,
            item.occurred_at,
            envelope.time,
            item.event,
        )
        for item in first_reports(event.events)
    ]


GOVERNANCE_EVENTS = ClickHouseView(
    name="governance_events",
    version=1,
    topic=TOPIC,
    events=(GovernanceEventsRecorded,),
    columns={
        "tenant": TENANT,
        "id": TEXT,
        "event_type": WORD,
        "agent_name": WORD,
        "action": TEXT,
        "occurred_at": INSTANT,
        "received_at": INSTANT,
        "event": JSON_TEXT,
    },
    order_by=("tenant", "id"),
    indexes=("by_time occurred_at TYPE minmax GRANULARITY 1",),
    rows=rows,
    keep="first",
)

_KEYS: dict[str, Kind] = {
    "occurred_at": "instant",
    "received_at": "instant",
    "_index": "integer",
    "id": "text",
}
NEWEST_FIRST = Order(tuple(Key(name, kind, descending=True) for name, kind in _KEYS.items()))


class GovernanceSelection(Struct, frozen=True, kw_only=True):
    """Which events. `since` is included, `until` is not."""

    tenant: str
    event_type: str = ""
    agent: str = ""
    since: int | None = None
    until: int | None = None

    def source(self) -> Query:
        """FROM … WHERE …"""
        conditions = ["tenant = {tenant:String}"]
        params: dict[str, Any] = {"tenant": self.tenant}

        def add(name: str, value: Any, condition: str) -> None:
            if value not in (None, ""):
                conditions.append(condition)
                params[name] = value

        add("event_type", self.event_type, "event_type = {event_type:String}")
        add("agent", self.agent, "agent_name = {agent:String}")
        add("since", self.since, f"occurred_at >= {instant_parameter('since')}")
        add("until", self.until, f"occurred_at < {instant_parameter('until')}")
        where = " AND ".join(conditions)
        return Query(f"FROM {GOVERNANCE_EVENTS.table} WHERE {where}", params)


def page(selection: GovernanceSelection, window: Window) -> Query:
    """One page, in the order NEWEST_FIRST; instants as microseconds."""
    fields = (
        "id, event_type, agent_name, action, event, toUnixTimestamp64Micro(occurred_at) AS at,"
        " toUnixTimestamp64Micro(received_at) AS received"
    )
    return page_of(fields, selection.source(), NEWEST_FIRST, window)


def count(selection: GovernanceSelection) -> Query:
    """How many events there are."""
    sql, params = selection.source()
    return Query(f"SELECT count() AS events {sql}", params)

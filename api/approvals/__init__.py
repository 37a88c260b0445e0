"""Waitroom's surface: rooms, agents, check-ins, signals, watchers and the events of a room."""

from typing import Any

from api.approvals import (
    agents,
    audit,
    check_ins,
    deliveries,
    room_events,
    rooms,
    signals,
    watchers,
)
from api.approvals.check_in_items import CheckInItem, StatusItem
from api.approvals.envelopes import Data, Page, PageQuery
from api.problems import WAITROOM
from api.roles import BUILDERS, READERS
from api.routing import Handler, Route, Who

# The largest valid body: 10 KB of context, and 5,500 characters that may all be written `\uXXXX`
# pairs, with room for white space.
_MAX_BODY = 256 * 1024
# Routes that agents call too name no roles: an agent has none, its key says what it reaches.


def _route(method: str, path: str, handler: Handler, who: Who, summary: str, **more: Any) -> Route:
    """A row of this surface: its dialect, its limit, its tag after the path."""
    tag = path.split("/")[2]
    if who is Who.HUMAN:
        more["roles"] = READERS if method == "GET" else BUILDERS
    return Route(
        method,
        path,
        handler,
        dialect=WAITROOM,
        who=who,
        tags=(tag,),
        summary=summary,
        max_body=_MAX_BODY,
        **more,
    )


_ROOMS = [
    _route(
        "POST",
        "/v1/rooms",
        rooms.create_room,
        Who.HUMAN,
        "Create a room",
        body=rooms.CreateRoomBody,
        response=Data[rooms.RoomItem],
        status=201,
        refusals=(409,),
    ),
    _route(
        "GET",
        "/v1/rooms",
        rooms.list_rooms,
        Who.ANY,
        "List rooms",
        query=PageQuery,
        response=Page[rooms.RoomItem],
    ),
    _route(
        "GET",
        "/v1/rooms/{room}",
        rooms.get_room,
        Who.ANY,
        "Get a room by slug or id",
        response=Data[rooms.RoomItem],
        refusals=(404,),
    ),
    _route(
        "PUT",
        "/v1/rooms/{room}/policies",
        rooms.replace_policies,
        Who.HUMAN,
        "Replace a room's policies",
        body=rooms.ReplacePoliciesBody,
        response=Data[rooms.RoomItem],
        refusals=(404,),
    ),
    _route(
        "GET",
        "/v1/rooms/{room}/pending",
        check_ins.list_pending,
        Who.HUMAN,
        "List a room's check-ins, the pending ones by default",
        query=check_ins.PendingQuery,
        response=Page[CheckInItem],
        refusals=(404,),
    ),
    _route(
        "GET",
        "/v1/rooms/{room}/events",
        room_events.stream_room_events,
        Who.ANY,
        "Follow a room's events",
        query=room_events.EventsQuery,
        stream=True,
        media_type="text/event-stream",
        refusals=(404, 429),
        description="Server-sent events. `id` is a log position: send the last one as "
        "`Last-Event-ID` to go on without loss.",
    ),
]
_CHECK_INS = [
    _route(
        "POST",
        "/v1/rooms/{room}/check-in",
        check_ins.create_check_in,
        Who.AGENT,
        "Create a check-in",
        body=check_ins.CheckInBody,
        response=Data[CheckInItem],
        status=201,
        refusals=(403, 404, 409),
    ),
    _route(
        "GET",
        "/v1/check-ins/{id}",
        check_ins.get_check_in,
        Who.ANY,
        "Get a check-in",
        response=Data[CheckInItem],
        refusals=(404,),
    ),
    _route(
        "GET",
        "/v1/check-ins/{id}/status",
        check_ins.get_status,
        Who.ANY,
        "Get a check-in's status, waiting for it if asked to",
        query=check_ins.StatusQuery,
        response=Data[StatusItem],
        refusals=(404,),
    ),
    _route(
        "POST",
        "/v1/check-ins/{id}/approve",
        check_ins.approve,
        Who.HUMAN,
        "Approve a check-in",
        body=check_ins.ApproveBody,
        response=Data[CheckInItem],
        refusals=(404, 409),
    ),
    _route(
        "POST",
        "/v1/check-ins/{id}/reject",
        check_ins.reject,
        Who.HUMAN,
        "Reject a check-in",
        body=check_ins.RejectBody,
        response=Data[CheckInItem],
        refusals=(404, 409),
    ),
    _route(
        "POST",
        "/v1/check-ins/{id}/modify",
        check_ins.modify,
        Who.HUMAN,
        "Approve a check-in with modifications",
        body=check_ins.ModifyBody,
        response=Data[CheckInItem],
        refusals=(404, 409),
    ),
    _route(
        "DELETE",
        "/v1/check-ins/{id}",
        check_ins.withdraw,
        Who.AGENT,
        "Withdraw a check-in",
        response=Data[CheckInItem],
        refusals=(403, 404, 409),
    ),
]
_AGENTS = [
    _route(
        "POST",
        "/v1/agents/register",
        agents.register_agent,
        Who.HUMAN,
        "Register an agent and make its key",
        body=agents.RegisterBody,
        response=Data[agents.RegisteredAgent],
        status=201,
        refusals=(409,),
    ),
    _route(
        "GET",
        "/v1/agents/me",
        agents.get_me,
        Who.AGENT,
        "Get the calling agent",
        response=Data[agents.AgentItem],
        refusals=(404,),
    ),
    _route(
        "GET",
        "/v1/agents",
        agents.list_agents,
        Who.HUMAN,
        "List agents",
        query=PageQuery,
        response=Page[agents.AgentItem],
    ),
    _route(
        "GET",
        "/v1/agents/{agent}",
        agents.get_agent,
        Who.HUMAN,
        "Get an agent",
        response=Data[agents.AgentItem],
        refusals=(404,),
    ),
    _route(
        "DELETE",
        "/v1/agents/{agent}",
        agents.deactivate_agent,
        Who.HUMAN,
        "Deactivate an agent and its key for good",
        response=Data[agents.AgentItem],
        refusals=(404,),
    ),
    _route(
        "GET",
        "/v1/agents/{agent}/trust",
        agents.get_trust,
        Who.HUMAN,
        "Get an agent's trust in each room",
        response=agents.TrustList,
        refusals=(404,),
    ),
]
_SIGNALS = [
    _route(
        "POST",
        "/v1/rooms/{room}/signal",
        signals.broadcast,
        Who.HUMAN,
        "Broadcast a signal to all watchers in a room",
        body=signals.SignalBody,
        response=Data[signals.SignalItem],
        status=201,
        refusals=(404, 409),
    ),
    _route(
        "POST",
        "/v1/rooms/{room}/watch",
        watchers.watch,
        Who.AGENT,
        "Subscribe a watcher to events in a room",
        body=watchers.WatchBody,
        response=Data[watchers.CreatedWatcher],
        status=201,
        refusals=(403, 404, 409),
    ),
    _route(
        "GET",
        "/v1/rooms/{room}/watchers",
        watchers.list_watchers,
        Who.ANY,
        "List a room's watchers",
        query=PageQuery,
        response=Page[watchers.WatcherItem],
        refusals=(404,),
    ),
    _route(
        "GET",
        "/v1/watchers/{id}",
        watchers.get_watcher,
        Who.ANY,
        "Get a watcher",
        response=Data[watchers.WatcherItem],
        refusals=(404,),
    ),
    _route(
        "DELETE",
        "/v1/watchers/{id}",
        watchers.remove_watcher,
        Who.AGENT,
        "Remove a watcher",
        response=Data[watchers.WatcherItem],
        refusals=(403, 404),
    ),
    _route(
        "GET",
        "/v1/watchers/{id}/deliveries",
        deliveries.list_deliveries,
        Who.ANY,
        "List what became of a watcher's webhooks",
        query=deliveries.DeliveriesQuery,
        response=Page[deliveries.DeliveryItem],
        refusals=(404,),
    ),
    _route(
        "POST",
        "/v1/watchers/{id}/deliveries/{event}/redeliver",
        deliveries.redeliver,
        Who.HUMAN,
        "Send a settled webhook again",
        response=Data[deliveries.DeliveryItem],
        status=202,
        refusals=(404, 409),
    ),
]
_AUDIT = [
    _route(
        "GET",
        "/v1/rooms/{room}/audit",
        audit.room_audit,
        Who.HUMAN,
        "Get a room's audit trail",
        query=audit.AuditQuery,
        response=Page[audit.AuditItem],
        refusals=(404,),
        analytics=True,
    ),
    _route(
        "GET",
        "/v1/agents/{agent}/audit",
        audit.agent_audit,
        Who.HUMAN,
        "Get an agent's audit trail",
        query=audit.AgentAuditQuery,
        response=Page[audit.AuditItem],
        refusals=(404,),
        analytics=True,
    ),
    _route(
        "GET",
        "/v1/audit",
        audit.tenant_audit,
        Who.HUMAN,
        "Get the tenant's audit trail",
        query=audit.AuditQuery,
        response=Page[audit.AuditItem],
        analytics=True,
    ),
]
ROUTES = [*_ROOMS, *_CHECK_INS, *_AGENTS, *_SIGNALS, *_AUDIT]

"""Waitroom: rooms, agents, check-ins, tasks, threads, signals, watchers, the events of a room."""

from api.approvals import (
    agents,
    audit,
    check_ins,
    deliveries,
    messages,
    policy_simulations,
    registrations,
    room_events,
    rooms,
    signals,
    tasks,
    watcher_webhooks,
    watchers,
)
from api.routing import Route

ROUTES: list[Route] = [
    *rooms.ROUTES,
    *policy_simulations.ROUTES,
    *room_events.ROUTES,
    *check_ins.ROUTES,
    *tasks.ROUTES,
    *messages.ROUTES,
    *agents.ROUTES,
    *registrations.ROUTES,
    *signals.ROUTES,
    *watchers.ROUTES,
    *watcher_webhooks.ROUTES,
    *deliveries.ROUTES,
    *audit.ROUTES,
]

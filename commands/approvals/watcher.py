"""`approvals.watcher`: an agent is told of what happens in a room, by the room's event stream and,
if it gives a URL, by webhook."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, assert_never

import msgspec
from msgspec import Struct

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.agent import Agent
from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room, RoomNotFound
from commands.approvals.watch_filter import filter_faults
from commands.decider import Claim, Context, Decider, Emit, Lookup, Ref, Release
from commands.platform import webhook_endpoint
from commands.platform.triggering import trigger
from commands.platform.webhook_endpoint import STREAM as ENDPOINT
from commands.platform.webhook_endpoint import WebhookEndpoint
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand, NotFound
from schemas.approvals.vocabulary import WatchedType
from schemas.approvals.watcher import (
    WatcherCreated,
    WatcherEvent,
    WatcherRemoved,
    WatcherTriggered,
)
from schemas.types import Count, Json, Text
from schemas.unions import members

STREAM = "approvals.watcher"
SLOT = "approvals.watcher_slot"
WATCHERS_OF_ROOM_MAX = 100


class CreateWatcher(Struct, frozen=True, tag="approvals.create_watcher.v1"):
    """Watch a room for these events; filter is canonical JSON. An empty URL: no webhooks."""

    room_id: str
    agent_id: str
    event_types: list[WatchedType]
    filter: Json = "{}"
    webhook_url: Text = ""


class TriggerWatcher(Struct, frozen=True, tag="approvals.trigger_watcher.v1"):
    """An event of the room matched; the fan-out's command.

    body: the webhook's body. partition and offset: where the event lies on `events`.
    """

    room_id: str
    agent_id: str
    event_id: str
    event_type: WatchedType
    body: Json
    partition: Count
    offset: Count


class RemoveWatcher(Struct, frozen=True, tag="approvals.remove_watcher.v1"):
    """Do not watch any more."""

    room_id: str
    agent_id: str


WatcherCommand = CreateWatcher | TriggerWatcher | RemoveWatcher
Emitted = WatcherEvent | Emit


class WatcherExists(AlreadyDone):
    """A watcher with this id exists and is not what was asked for."""


class RoomIsWatchedEnough(AlreadyDone):
    """The room has as many watchers as it may have."""


class WatcherNotFound(NotFound):
    """The tenant has no such watcher, or it was removed."""


class Watcher(Struct, frozen=True):
    """The state of a watcher; partition and offset are of the last event that triggered it."""

    created: WatcherCreated | None = None
    removed: bool = False
    partition: int = -1
    offset: int = -1


class WatcherAnswered(Struct, frozen=True):
    """What a caller is told of a watcher."""

    id: str
    room_id: str
    agent_id: str
    event_types: list[WatchedType]
    filter: Json
    webhook_url: str
    created_at: int
    removed: bool


def loads(command: WatcherCommand, watcher_id: str) -> Sequence[Ref | Lookup]:
    # The room is named always: its audit trail finds what its watchers do.
    needed = (
        Ref(ROOM, command.room_id),
        Ref(AGENT, command.agent_id),
        Ref(ENDPOINT, watcher_id),
    )
    if not isinstance(command, CreateWatcher):
        return needed
    slots = range(WATCHERS_OF_ROOM_MAX)
    return (*needed, *(Lookup(SLOT, _slot_key(command.room_id, slot)) for slot in slots))


def _slot_key(room_id: str, slot: int) -> str:
    return f"{room_id}/{slot}"


def decide(command: WatcherCommand, watcher: Watcher, context: Context) -> Sequence[Emitted]:
    """Raises RoomNotFound, RoomIsWatchedEnough, WatcherNotFound, WatcherExists, ActorForbidden,
    InvalidCommand."""
    match command:
        case CreateWatcher():
            return _create(command, watcher, context)
        case TriggerWatcher():
            return _trigger(command, watcher, context)
        case RemoveWatcher():
            return _remove(command, watcher, context)
    assert_never(command)


def _create(command: CreateWatcher, watcher: Watcher, context: Context) -> Sequence[Emitted]:
    room: Room = context.state(ROOM, command.room_id)
    agent: Agent = context.state(AGENT, command.agent_id)
    if not room.slug or not agent.sees(command.room_id):
        raise RoomNotFound("no such room")
    if context.actor.kind != "agent" or context.actor.id != command.agent_id or not agent.active:
        raise ActorForbidden("only a registered agent watches, for itself")
    if not command.event_types:
        raise InvalidCommand("a watcher names at least one event type", field="event_types")
    for fault in filter_faults(msgspec.json.decode(command.filter)):
        place = f"filter.{fault.place}".rstrip(".")
        raise InvalidCommand(f"{place}: {fault.message}", field=place)
    created = WatcherCreated(
        room_id=command.room_id,
        agent_id=command.agent_id,
        event_types=command.event_types,
        filter=command.filter,
        webhook_url=command.webhook_url,
        created_at=context.now,
    )
    if watcher.created is not None:
        about = msgspec.structs.replace(watcher.created, created_at=context.now, slot=-1)
        if created == about:
            return []
        raise WatcherExists("a watcher with this id exists already")
    created = msgspec.structs.replace(created, slot=_free_slot(command.room_id, context))
    if not command.webhook_url:
        return [created]
    return [
        created,
        webhook_endpoint.opened(context.stream_id, command.webhook_url, context),
    ]


def _free_slot(room_id: str, context: Context) -> int:
    for slot in range(WATCHERS_OF_ROOM_MAX):
        if context.find(SLOT, _slot_key(room_id, slot)) is None:
            return slot
    raise RoomIsWatchedEnough(f"the room has {WATCHERS_OF_ROOM_MAX} watchers already")


def _trigger(command: TriggerWatcher, watcher: Watcher, context: Context) -> Sequence[Emitted]:
    agent: Agent = context.state(AGENT, command.agent_id)
    endpoint: WebhookEndpoint = context.state(ENDPOINT, context.stream_id)
    return trigger(
        command,
        watcher,
        endpoint,
        context,
        listens=watcher.created is not None and not watcher.removed and agent.active,
        record=partial(WatcherTriggered, room_id=command.room_id, agent_id=command.agent_id),
    )


def _remove(command: RemoveWatcher, watcher: Watcher, context: Context) -> Sequence[Emitted]:
    created = watcher.created
    if created is None:
        raise WatcherNotFound("no such watcher")
    if context.actor.kind != "agent" or context.actor.id != created.agent_id:
        raise ActorForbidden("only the agent that watches may remove its watcher")
    if watcher.removed:
        return []
    endpoint: WebhookEndpoint = context.state(ENDPOINT, context.stream_id)
    return [
        WatcherRemoved(created.room_id, created.agent_id, context.now, created.slot),
        *webhook_endpoint.closed(context.stream_id, endpoint, context),
    ]


def evolve(watcher: Watcher, event: WatcherEvent) -> Watcher:
    match event:
        case WatcherCreated():
            return Watcher(event)
        case WatcherTriggered():
            return Watcher(watcher.created, watcher.removed, event.partition, event.offset)
        case WatcherRemoved():
            return Watcher(watcher.created, True, watcher.partition, watcher.offset)
    assert_never(event)


def claims(event: WatcherEvent, watcher_id: str) -> Sequence[Claim | Release]:
    match event:
        case WatcherCreated() if event.slot >= 0:
            return (Claim(SLOT, _slot_key(event.room_id, event.slot)),)
        case WatcherRemoved() if event.slot >= 0:
            return (Release(SLOT, _slot_key(event.room_id, event.slot)),)
    return ()


def _answer(command: WatcherCommand, watcher: Watcher, context: Context) -> WatcherAnswered | None:
    created = watcher.created
    if created is None:
        return None
    return WatcherAnswered(
        id=context.stream_id,
        room_id=created.room_id,
        agent_id=created.agent_id,
        event_types=created.event_types,
        filter=created.filter,
        webhook_url=created.webhook_url,
        created_at=created.created_at,
        removed=watcher.removed,
    )


def _describe(command: WatcherCommand) -> Mapping[str, Any]:
    match command:
        case CreateWatcher():
            return {
                "room_id": command.room_id,
                "event_types": command.event_types,
                "webhook": bool(command.webhook_url),
            }
        case TriggerWatcher():
            return {"event_id": command.event_id, "event_type": command.event_type}
        case RemoveWatcher():
            return {"room_id": command.room_id}
    assert_never(command)


DECIDER: Decider[WatcherCommand, Watcher, WatcherEvent] = Decider(
    stream=STREAM,
    commands=members(WatcherCommand),
    events=members(WatcherEvent),
    initial=Watcher(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    claims=claims,
    answer=_answer,
    describe=_describe,
)

"""Events of `approvals.watcher`: an agent is told of what happens in a room."""

from msgspec import Struct

from schemas.approvals.vocabulary import WatchedType
from schemas.types import Count, Json, Micros, Text


class WatcherCreated(Struct, frozen=True, tag="approvals.watcher_created.v1"):
    """An agent watches a room. filter: canonical JSON, `{}` for every event of these types.

    webhook_url: empty when it watches by the room's event stream only. slot: which of the room's
    places for watchers it takes; -1 for none, as before places were counted.
    """

    room_id: str
    agent_id: str
    event_types: list[WatchedType]
    filter: Json
    webhook_url: Text
    created_at: Micros
    slot: int = -1


class WatcherTriggered(Struct, frozen=True, tag="approvals.watcher_triggered.v1"):
    """An event of the room matched.

    event_id, event_type: of what matched, as the room's event stream names it. partition and
    offset: where it lies on `events`; a watcher is triggered in that order.
    """

    room_id: str
    agent_id: str
    event_id: str
    event_type: WatchedType
    partition: Count
    offset: Count
    triggered_at: Micros


class WatcherRemoved(Struct, frozen=True, tag="approvals.watcher_removed.v1"):
    """The agent does not watch any more. Final. slot: the place in the room that it gives back."""

    room_id: str
    agent_id: str
    removed_at: Micros
    slot: int = -1


WatcherEvent = WatcherCreated | WatcherTriggered | WatcherRemoved

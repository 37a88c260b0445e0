"""The event of `approvals.signal`: a person tells a room something."""

from msgspec import Struct

from schemas.types import Json, Micros, Text


class SignalBroadcast(Struct, frozen=True, tag="approvals.signal_broadcast.v1"):
    """A signal went to everybody who watches or follows the room. name: the signal's own type."""

    room_id: str
    name: Text
    payload: Json
    sent_by: str
    sent_by_name: Text
    broadcast_at: Micros


SignalEvent = SignalBroadcast

"""`approvals.signal`: a person tells everybody in a room something, once."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room, RoomNotFound
from commands.decider import Context, Decider, Ref
from commands.refusals import ActorForbidden, AlreadyDone
from schemas.approvals.signal import SignalBroadcast, SignalEvent
from schemas.types import Json, Text

STREAM = "approvals.signal"


class BroadcastSignal(Struct, frozen=True, tag="approvals.broadcast_signal.v1"):
    """Tell a room. name: the signal's own type; payload: canonical JSON."""

    room_id: str
    name: Text
    payload: Json


class SignalExists(AlreadyDone):
    """A signal with this id was broadcast and is not what was asked for."""


class Signal(Struct, frozen=True):
    """The state of a signal: what was broadcast."""

    sent: SignalBroadcast | None = None


class SignalAnswered(Struct, frozen=True):
    """What a caller is told of a signal."""

    id: str
    room_id: str
    name: str
    payload: Json
    sent_by: str
    broadcast_at: int


def loads(command: BroadcastSignal, signal_id: str) -> Sequence[Ref]:
    return (Ref(ROOM, command.room_id),)


def decide(command: BroadcastSignal, signal: Signal, context: Context) -> list[SignalEvent]:
    """Raises RoomNotFound, ActorForbidden, SignalExists."""
    room: Room = context.state(ROOM, command.room_id)
    if not room.slug:
        raise RoomNotFound("no such room")
    if context.actor.kind != "user":
        raise ActorForbidden("only people broadcast signals")
    if signal.sent is not None:
        sent = signal.sent
        if (sent.room_id, sent.name, sent.payload) == (
            command.room_id,
            command.name,
            command.payload,
        ):
            return []
        raise SignalExists("a signal with this id was broadcast already")
    return [
        SignalBroadcast(
            room_id=command.room_id,
            name=command.name,
            payload=command.payload,
            sent_by=context.actor.id,
            sent_by_name=context.actor.name,
            broadcast_at=context.now,
        )
    ]


def evolve(signal: Signal, event: SignalEvent) -> Signal:
    return Signal(event)


def _answer(command: BroadcastSignal, signal: Signal, context: Context) -> SignalAnswered:
    sent = signal.sent
    assert sent is not None
    return SignalAnswered(
        id=context.stream_id,
        room_id=sent.room_id,
        name=sent.name,
        payload=sent.payload,
        sent_by=sent.sent_by,
        broadcast_at=sent.broadcast_at,
    )


def _describe(command: BroadcastSignal) -> Mapping[str, Any]:
    return {"room_id": command.room_id, "name": command.name}


DECIDER: Decider[BroadcastSignal, Signal, SignalEvent] = Decider(
    stream=STREAM,
    commands=(BroadcastSignal,),
    events=(SignalBroadcast,),
    initial=Signal(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    answer=_answer,
    describe=_describe,
)

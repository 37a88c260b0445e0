"""Signals: `POST /v1/rooms/{room}/signal`, by which people tell a room something."""

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Data, data
from api.approvals.sending import canonical
from api.approvals.visible import room_id_of
from api.routing import Call, Who, answer_of
from commands.approvals.signal import BroadcastSignal, SignalAnswered
from infra.clock import iso
from schemas.types import Text


class SignalBody(Struct, frozen=True):
    """What to tell: a type of the sender's own, and what goes with it."""

    type: Annotated[Text, Meta(min_length=1, max_length=200)]
    payload: Annotated[dict[str, Any], Meta(description="10 KB of JSON at most")] = {}


class SignalItem(Struct, frozen=True):
    """A signal as clients see it."""

    id: str
    room_id: str
    type: str
    payload: dict[str, Any]
    sent_by: str
    created_at: str


async def broadcast(call: Call[SignalBody, None]) -> Any:
    """Tell everybody who watches or follows the room."""
    command = BroadcastSignal(
        room_id=await room_id_of(call, call.path["room"]),
        name=call.body.type,
        payload=canonical(call.body.payload, "payload"),
    )
    reply = await call.send("sig_" + call.command_id.removeprefix("cmd_"), command)
    sent = answer_of(reply, SignalAnswered)
    return data(
        {
            "id": sent.id,
            "room_id": sent.room_id,
            "type": sent.name,
            "payload": Raw(sent.payload.encode()),
            "sent_by": sent.sent_by,
            "created_at": iso(sent.broadcast_at),
        }
    )


ROUTES = [
    route(
        "POST",
        "/v1/rooms/{room}/signal",
        broadcast,
        Who.HUMAN,
        "Broadcast a signal to all watchers in a room",
        body=SignalBody,
        response=Data[SignalItem],
        status=201,
        refusals=(404, 409),
    ),
]

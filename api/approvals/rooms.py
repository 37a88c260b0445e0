"""Rooms: `/v1/rooms`."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Data, Page, PageQuery, after, data, page_of
from api.approvals.policies import PartialPolicies, PoliciesBody, policies_answer, policies_of
from api.approvals.visible import room_id_of, room_row
from api.routing import Call, Who, answer_of
from commands.approvals.room import (
    SLUG_PATTERN,
    CreateRoom,
    ReplaceRoomPolicies,
    RoomAnswered,
)
from infra.clock import iso
from projections.approvals import rooms
from schemas.types import Text


class CreateRoomBody(Struct, frozen=True):
    """A new room. Without a slug one is made from the name."""

    name: Annotated[Text, Meta(min_length=1, max_length=200)]
    slug: Annotated[str, Meta(pattern=SLUG_PATTERN, min_length=1, max_length=100)] | None = None
    description: Annotated[Text, Meta(max_length=2000)] | None = None
    policies: PartialPolicies | None = None


class ReplacePoliciesBody(Struct, frozen=True):
    """The policies that replace all those of the room."""

    policies: PoliciesBody


class RoomMember(Struct, frozen=True):
    """A person in a room."""

    user_id: str
    role: str


class RoomItem(Struct, frozen=True):
    """A room as clients see it."""

    id: str
    slug: str
    name: str
    description: str
    policies: PoliciesBody
    members: list[RoomMember]
    created_by: str
    created_at: str
    updated_at: str


async def create_room(call: Call[CreateRoomBody, None]) -> Any:
    """Open a room; whoever does owns it."""
    body = call.body
    command = CreateRoom(
        name=body.name,
        policies=policies_of(body.policies or PartialPolicies()),
        slug=body.slug or "",
        description=body.description or "",
    )
    # The id follows from the command's, so that a repeat of the request meets the room it made.
    reply = await call.send("room_" + call.command_id.removeprefix("cmd_"), command)
    return data(_answered(answer_of(reply, RoomAnswered)))


async def list_rooms(call: Call[None, PageQuery]) -> Any:
    """The rooms that the caller's key reaches, newest first."""
    query, scopes = call.query, sorted(call.principal.room_scopes)
    behind, limit = after(query.cursor), query.limit
    reads = call.services.reads
    if scopes:
        found = await reads.all(rooms.PAGE_OF_SCOPES, call.tenant, scopes, *behind, limit + 1)
    else:
        found = await reads.all(rooms.PAGE, call.tenant, *behind, limit + 1)
    return page_of(found, limit, _item)


async def get_room(call: Call[None, None]) -> Any:
    """One room, by slug or id."""
    return data(_item(await room_row(call, call.path["room"])))


async def replace_policies(call: Call[ReplacePoliciesBody, None]) -> Any:
    """Replace a room's policies; the check-ins that wait keep the timeout they were given."""
    room_id = await room_id_of(call, call.path["room"])
    reply = await call.send(room_id, ReplaceRoomPolicies(policies_of(call.body.policies)))
    return data(_answered(answer_of(reply, RoomAnswered)))


def _answered(room: RoomAnswered) -> RoomItem:
    return _item(msgspec.to_builtins(room))


def _item(room: Any) -> RoomItem:
    return RoomItem(
        id=room["id"],
        slug=room["slug"],
        name=room["name"],
        description=room["description"],
        policies=policies_answer(room["policies"]),
        members=[RoomMember(room["owner_id"], "owner")],
        created_by=room["owner_id"],
        created_at=iso(room["created_at"]),
        updated_at=iso(room["updated_at"]),
    )


ROUTES = [
    route(
        "POST",
        "/v1/rooms",
        create_room,
        Who.HUMAN,
        "Create a room",
        body=CreateRoomBody,
        response=Data[RoomItem],
        status=201,
        refusals=(409,),
    ),
    route(
        "GET",
        "/v1/rooms",
        list_rooms,
        Who.ANY,
        "List rooms",
        query=PageQuery,
        response=Page[RoomItem],
    ),
    route(
        "GET",
        "/v1/rooms/{room}",
        get_room,
        Who.ANY,
        "Get a room by slug or id",
        response=Data[RoomItem],
        refusals=(404,),
    ),
    route(
        "PUT",
        "/v1/rooms/{room}/policies",
        replace_policies,
        Who.HUMAN,
        "Replace a room's policies",
        body=ReplacePoliciesBody,
        response=Data[RoomItem],
        refusals=(404,),
    ),
]

"""`approvals.room`: a named place for check-ins, with the policies that judge them."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import assert_never

from msgspec import Struct

from commands.approvals.policy import check
from commands.decider import Claim, Context, Decider, Lookup, Ref
from commands.identity.user import STREAM as USER
from commands.identity.user import User
from commands.refusals import AlreadyDone, InvalidCommand, NotFound
from schemas.approvals.policies import Policies
from schemas.approvals.room import RoomCreated, RoomEvent, RoomPoliciesReplaced
from schemas.identity.roles import DECIDING
from schemas.types import Text
from schemas.unions import members

STREAM = "approvals.room"
SLUG = "approvals.room_slug"
SLUG_PATTERN = r"^[a-z0-9-]+$"
_SLUG_LENGTH = 80  # leaves room for the suffix below the limit of 100


class CreateRoom(Struct, frozen=True, tag="approvals.create_room.v1"):
    """Open a room. An empty slug asks for one made from the name."""

    name: Text
    policies: Policies
    slug: Text = ""
    description: Text = ""


class ReplaceRoomPolicies(Struct, frozen=True, tag="approvals.replace_room_policies.v1"):
    """Replace the whole policy configuration."""

    policies: Policies


RoomCommand = CreateRoom | ReplaceRoomPolicies


class SlugTaken(AlreadyDone):
    """Another room of the tenant has the slug."""


class RoomExists(AlreadyDone):
    """A room with this id exists and is not what was asked for."""


class RoomNotFound(NotFound):
    """The tenant has no such room, or the caller may not see it."""


class Room(Struct, frozen=True):
    """The state of a room; without a slug it does not exist. Instants are microseconds UTC."""

    slug: str = ""
    name: str = ""
    description: str = ""
    policies: Policies | None = None
    owner_id: str = ""
    created_at: int = 0
    updated_at: int = 0


class RoomAnswered(Struct, frozen=True):
    """What a caller is told of a room."""

    id: str
    slug: str
    name: str
    description: str
    policies: Policies
    owner_id: str
    created_at: int
    updated_at: int


def slug_of(name: str) -> str:
    """A slug made from a display name: ASCII letters and digits, hyphens between."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    return words[:_SLUG_LENGTH].rstrip("-") or "room"


def _spare_slug(slug: str, room_id: str) -> str:
    """The slug to take when `slug` is gone: the end of the room's own id makes it unique."""
    return f"{slug}-{room_id[-8:]}"


def loads(command: RoomCommand, room_id: str) -> Sequence[Ref | Lookup]:
    reviewers = tuple(Ref(USER, id) for id in command.policies.escalate_to)
    if not isinstance(command, CreateRoom):
        return reviewers
    if command.slug:
        return (*reviewers, Lookup(SLUG, command.slug))
    slug = slug_of(command.name)
    return (*reviewers, Lookup(SLUG, slug), Lookup(SLUG, _spare_slug(slug, room_id)))


def decide(command: RoomCommand, room: Room, context: Context) -> list[RoomEvent]:
    match command:
        case CreateRoom():
            return _create(command, room, context)
        case ReplaceRoomPolicies():
            if not room.slug:
                raise RoomNotFound("no such room")
            _check(command.policies, context)
            if command.policies == room.policies:
                return []
            return [RoomPoliciesReplaced(command.policies, context.now)]
    assert_never(command)


def check_reviewers(policies: Policies, people: Mapping[str, User]) -> None:
    """Refuse policies that name as a reviewer who could not answer.

    people: the users that they name, by id. Raises InvalidCommand.
    """
    for index, id in enumerate(policies.escalate_to):
        place, user = f"policies.escalate_to[{index}]", people.get(id, User())
        if not user.exists:
            raise InvalidCommand(f"{place}: is nobody of this organisation", field=place)
        if not user.decides:
            needed = " or ".join(DECIDING)
            raise InvalidCommand(f"{place}: {id} decides no check-ins: not {needed}", field=place)


def _check(policies: Policies, context: Context) -> None:
    """Raises InvalidCommand for policies that cannot be meant, or with a wrong reviewer."""
    check(policies)
    check_reviewers(policies, {id: context.state(USER, id) for id in policies.escalate_to})


def _create(command: CreateRoom, room: Room, context: Context) -> list[RoomEvent]:
    _check(command.policies, context)
    if room.slug:
        if _describes(command, room):
            return []
        raise RoomExists("a room with this id exists already")
    slug = command.slug
    if slug and context.find(SLUG, slug) is not None:
        raise SlugTaken(f"the slug {slug!r} is taken", field="slug")
    if not slug:
        slug = slug_of(command.name)
        if context.find(SLUG, slug) is not None:
            slug = _spare_slug(slug, context.stream_id)
        if context.find(SLUG, slug) is not None:
            raise SlugTaken(f"the slug {slug!r} is taken", field="slug")
    return [
        RoomCreated(
            slug=slug,
            name=command.name,
            description=command.description,
            policies=command.policies,
            owner_id=context.actor.id,
            created_at=context.now,
        )
    ]


def _describes(command: CreateRoom, room: Room) -> bool:
    asked = (command.name, command.description, command.policies)
    held = (room.name, room.description, room.policies)
    return asked == held and command.slug in ("", room.slug)


def evolve(room: Room, event: RoomEvent) -> Room:
    match event:
        case RoomCreated():
            return Room(
                slug=event.slug,
                name=event.name,
                description=event.description,
                policies=event.policies,
                owner_id=event.owner_id,
                created_at=event.created_at,
                updated_at=event.created_at,
            )
        case RoomPoliciesReplaced():
            return Room(
                slug=room.slug,
                name=room.name,
                description=room.description,
                policies=event.policies,
                owner_id=room.owner_id,
                created_at=room.created_at,
                updated_at=event.replaced_at,
            )
    assert_never(event)


def claims(event: RoomEvent, room_id: str) -> Sequence[Claim]:
    return (Claim(SLUG, event.slug),) if isinstance(event, RoomCreated) else ()


def answer(command: RoomCommand, room: Room, context: Context) -> RoomAnswered:
    assert room.policies is not None
    return RoomAnswered(
        id=context.stream_id,
        slug=room.slug,
        name=room.name,
        description=room.description,
        policies=room.policies,
        owner_id=room.owner_id,
        created_at=room.created_at,
        updated_at=room.updated_at,
    )


def describe(command: RoomCommand) -> dict[str, object]:
    if isinstance(command, CreateRoom):
        return {"name": command.name, "slug": command.slug}
    return {
        "default_action": command.policies.default_action,
        "rules": len(command.policies.rules),
    }


DECIDER: Decider[RoomCommand, Room, RoomEvent] = Decider(
    stream=STREAM,
    commands=members(RoomCommand),
    events=members(RoomEvent),
    initial=Room(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    claims=claims,
    answer=answer,
    describe=describe,
)

"""Which rooms and check-ins a caller sees: its tenant's, and of those the ones its key reaches.

Tasks are check-ins that people post; their ids say so. What never changes is remembered per
process: a slug names one room for ever, and a check-in stays in its room and with its agent (a task
does not). What is not there is asked for again each time.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from api.problems import not_found
from api.routing import Call
from commands.approvals.task_state import ID_PREFIX as TASK_PREFIX
from projections.approvals import check_ins, rooms, tasks

_REMEMBERED_MAX = 20_000
_ROOM_PREFIX = "room_"


class Owners(NamedTuple):
    """Whose a check-in is; a task that nobody has claimed has no agent (an empty id)."""

    room_id: str
    agent_id: str


class Remembered(dict[tuple[str, str], Any]):
    """A bounded memory of what never changes; the oldest goes first."""

    def keep(self, key: tuple[str, str], value: Any) -> None:
        """Remember, and forget the oldest when there is too much."""
        if len(self) >= _REMEMBERED_MAX:
            del self[next(iter(self))]
        self[key] = value


def _remembered(call: Call[Any, Any], name: str) -> Remembered:
    found: Remembered = call.services.caches.setdefault(f"approvals.{name}", Remembered())
    return found


def reaches(call: Call[Any, Any], room_id: str) -> bool:
    """Whether the caller's key reaches the room; people's reach all."""
    scopes = call.principal.room_scopes
    return not scopes or room_id in scopes


async def room_row(call: Call[Any, Any], room: str) -> Mapping[str, Any]:
    """The row of a room, by slug first and then by id. Raises Problem (404)."""
    # No slug holds an underscore and every id does, so one of the two look-ups is enough.
    sql = rooms.BY_ID if room.startswith(_ROOM_PREFIX) else rooms.BY_SLUG
    row = await call.services.reads.one(sql, call.tenant, room)
    if row is None or not reaches(call, row["id"]):
        not_found("No such room")
    _remembered(call, "rooms").keep((call.tenant, row["slug"]), row["id"])
    return row


async def room_id_of(call: Call[Any, Any], room: str) -> str:
    """The id of a room that is named by slug or id, for a command whose decider looks it up.

    An id is not looked up here. Raises Problem (404).
    """
    if room.startswith(_ROOM_PREFIX):
        room_id = room
    else:
        room_id = _remembered(call, "rooms").get((call.tenant, room), "")
    if not room_id:
        return str((await room_row(call, room))["id"])
    if not reaches(call, room_id):
        not_found("No such room")
    return room_id


def is_task(check_in_id: str) -> bool:
    """Whether an id is a task's."""
    return check_in_id.startswith(TASK_PREFIX)


async def owners_of(call: Call[Any, Any], check_in_id: str) -> Owners:
    """The room and the agent of a check-in that the caller sees. Raises Problem (404)."""
    if is_task(check_in_id):
        task = await check_in_row(call, check_in_id)
        return Owners(task["room_id"], task["agent_id"])
    owners: Owners | None = _remembered(call, "check_ins").get((call.tenant, check_in_id))
    if owners is None:
        row = await call.services.reads.one(check_ins.OWNERS, call.tenant, check_in_id)
        if row is None:
            not_found("No such check-in")
        owners = Owners(row["room_id"], row["agent_id"])
        remember_owners(call, check_in_id, owners)
    if not reaches(call, owners.room_id):
        not_found("No such check-in")
    return owners


def remember_owners(call: Call[Any, Any], check_in_id: str, owners: Owners) -> None:
    """Keep whose a check-in is, so that its decision needs no query."""
    _remembered(call, "check_ins").keep((call.tenant, check_in_id), owners)


async def check_in_row(call: Call[Any, Any], check_in_id: str) -> dict[str, Any]:
    """The row of a check-in or a task that the caller sees. Raises Problem (404)."""
    sql = tasks.BY_ID if is_task(check_in_id) else check_ins.BY_ID
    row = await call.services.reads.one(sql, call.tenant, check_in_id)
    if row is None or not reaches(call, row["room_id"]):
        not_found("No such check-in")
    return row

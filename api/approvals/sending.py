"""Commands about one check-in or task, sent and answered with the thing as it is now."""

from typing import Any

import msgspec
from msgspec import Struct

from api.approvals.check_in_items import item_of
from api.approvals.task_items import AnyItem, row_of, task_item_of
from api.approvals.visible import Owners, is_task, remember_owners
from api.problems import Problem
from api.routing import Call, answer_of
from commands.approvals.check_in_state import CheckInAnswered
from commands.approvals.payload import NotCanonical, canonical_json
from commands.approvals.task_state import TaskAnswered
from infra.clock import iso
from schemas.types import Json

_INSTANTS = ("decided_at", "claimed_at", "reported_at")


async def send(call: Call[Any, Any], id: str, command: Struct) -> AnyItem:
    """Send a command; the instants of a refusal's details are told as clients read them.

    Raises as `Call.send`.
    """
    try:
        reply = await call.send(id, command)
    except Problem as problem:
        for name in _INSTANTS:
            at = problem.details.get(name)
            if isinstance(at, int):
                problem.details[name] = iso(at)
        raise
    if is_task(id):
        return task_item_of(row_of(answer_of(reply, TaskAnswered)), call.actor.kind)
    answer = answer_of(reply, CheckInAnswered)
    check_in = answer.check_in
    remember_owners(call, answer.id, Owners(check_in.room_id, check_in.agent_id))
    return item_of({"id": answer.id, **msgspec.to_builtins(check_in)}, call.actor.kind)


def canonical(value: Any, field: str) -> Json:
    """The canonical text of a body's field. Raises Problem (400), also when it is too large."""
    try:
        return canonical_json(value)
    except NotCanonical as fault:
        raise Problem(400, "validation_error", str(fault), field=field) from None

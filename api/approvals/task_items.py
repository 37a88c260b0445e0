"""A task as clients see it, of a row of the view or of a decider's answer."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from api.approvals.check_in_items import (
    CheckInItem,
    StatusItem,
    context_for,
    item_of,
    status_fields,
)
from api.approvals.visible import is_task
from commands.approvals.task_state import TaskAnswered
from schemas.approvals.task import Helper
from schemas.approvals.vocabulary import RiskLevel, Urgency
from schemas.envelope import ActorKind
from schemas.instants import iso, iso_or_none


class HelpItem(Struct, frozen=True):
    """What the agent at work asked for."""

    body: str
    requested_at: str


class HelperItem(Struct, frozen=True):
    """An agent that joined as a helper."""

    agent_id: str
    agent_name: str
    joined_at: str


class TaskItem(StatusItem, frozen=True, kw_only=True, tag_field="kind", tag="task"):
    """A task: a check-in that a person posted for any agent of the room.

    context: as a check-in's. agent_id: who has claimed it, null for nobody. claim_expires_at: when
    it is free again unless that agent gives a sign of life.
    """

    room_id: str
    agent_id: str | None
    agent_name: str | None
    action: str
    description: str
    risk_level: RiskLevel
    urgency: Urgency
    context: Raw
    claimed: bool
    claimed_at: str | None
    claim_expires_at: str | None
    help: HelpItem | None
    helpers: list[HelperItem]
    created_by: str
    created_by_name: str
    created_at: str


AnyItem = CheckInItem | TaskItem


class AnyCheckIn(Struct, frozen=True):
    """A check-in or a task; `kind` tells which."""

    data: AnyItem


def any_item_of(row: Mapping[str, Any], reader: ActorKind) -> AnyItem:
    """The item of a row of either view, as its reader sees it; the id tells which."""
    return task_item_of(row, reader) if is_task(row["id"]) else item_of(row, reader)


def task_item_of(task: Mapping[str, Any], reader: ActorKind) -> TaskItem:
    """The whole of a row of `tasks`, as its reader sees it."""
    same = ("room_id", "action", "description", "risk_level", "urgency", "claimed")
    asked_at = task["help_requested_at"]
    return TaskItem(
        **status_fields(task),
        **{name: task[name] for name in same},
        agent_id=task["agent_id"] or None,
        agent_name=task["agent_name"] or None,
        context=context_for(reader, task),
        claimed_at=iso_or_none(task["claimed_at"]),
        claim_expires_at=iso_or_none(task["claimed_until"]) if task["decision"] is None else None,
        help=None if asked_at is None else HelpItem(task["help_body"], iso(asked_at)),
        helpers=[_helper(msgspec.convert(helper, Helper)) for helper in task["helpers"]],
        created_by=task["posted_by"],
        created_by_name=task["posted_by_name"],
        created_at=iso(task["posted_at"]),
    )


def row_of(answer: TaskAnswered) -> dict[str, Any]:
    """A decider's answer as the row that the view has of it."""
    task = answer.task
    row: dict[str, Any] = msgspec.to_builtins(task)
    claim, help = task.claim, task.help
    return row | {
        "id": answer.id,
        "agent_id": task.agent_id,
        "agent_name": claim.agent_name if claim else "",
        "claimed": claim is not None,
        "claimed_at": claim and claim.claimed_at,
        "claimed_until": claim and claim.until,
        "help_body": help and help.body,
        "help_requested_at": help and help.requested_at,
    }


def _helper(helper: Helper) -> HelperItem:
    return HelperItem(helper.agent_id, helper.agent_name, iso(helper.joined_at))

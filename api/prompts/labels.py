"""The labels of a prompt: which version is live, since when, by whom, and what was before."""

import re
from typing import Any

from msgspec import Struct

from api.observability.pages import MAX_LIMIT, instant, links
from api.problems import Problem, not_found
from api.prompts.bodies import (
    LABEL_PATTERN,
    Instant,
    MoveLabelBody,
    PageQuery,
    author_of,
    prompt_id_of,
)
from api.prompts.declaring import PROMPT, read_route, write_route
from api.routing import Call, answer_of
from commands.prompts.prompt import LabelAnswered, MovePromptLabel, RemovePromptLabel
from infra.clock import iso
from projections.prompts import prompt_label_moves as moves

_EVER = 2**63 - 1


class LabelQuery(Struct):
    """`as_of`: tell where the label pointed at that instant; now when it is left out."""

    as_of: Instant = ""


class MovedLabel(Struct):
    """`created` is true when the label pointed nowhere before."""

    label: str
    version: int
    prompt_id: str
    created: bool


class LabelStanding(Struct):
    label: str
    version: int
    prompt_id: str
    moved_by: str
    moved_at: str


class LabelMove(Struct):
    """`version` is null where the label was removed, `from_version` where it pointed nowhere."""

    label: str
    version: int | None
    from_version: int | None
    moved_by: str
    moved_at: str


class LabelHistory(Struct):
    results: list[LabelMove]
    count: int
    next: str | None
    previous: str | None


async def move_label(call: Call[MoveLabelBody, None]) -> MovedLabel:
    """Point a label at a version, forward or back."""
    prompt_id, label = prompt_id_of(call), call.path["label"]
    if not re.fullmatch(LABEL_PATTERN, label):
        raise Problem(
            400,
            "validation_error",
            "Give 1 to 100 letters, digits, dots, hyphens or underscores, a letter or digit first",
            field="label",
            where="path",
        )
    reply = await call.send(prompt_id, MovePromptLabel(label, call.body.version, author_of(call)))
    moved = answer_of(reply, LabelAnswered)
    return MovedLabel(moved.label, moved.version, prompt_id, moved.created)


async def remove_label(call: Call[None, None]) -> None:
    """Take a label away."""
    await call.send(prompt_id_of(call), RemovePromptLabel(_label(call), author_of(call)))


async def get_label(call: Call[None, LabelQuery]) -> LabelStanding:
    """Where a label points, or pointed at an instant."""
    prompt_id, label = prompt_id_of(call), _label(call)
    until = instant(call.query.as_of, "as_of")
    row = await call.services.reads.one(
        moves.LAST_UNTIL, call.tenant, prompt_id, label, _EVER if until is None else until
    )
    if row is None or row["version"] is None:
        not_found("The prompt has no such label")
    return LabelStanding(label, row["version"], prompt_id, row["moved_by"], iso(row["moved_at"]))


async def label_history(call: Call[None, PageQuery]) -> LabelHistory:
    """Every move of a label, the latest first; also of one that was removed."""
    prompt_id, label, reads = prompt_id_of(call), _label(call), call.services.reads
    limit, offset = min(call.query.limit, MAX_LIMIT), call.query.offset
    counted = await reads.one(moves.COUNT, call.tenant, prompt_id, label)
    count = counted["count"] if counted else 0
    if not count:
        not_found("The prompt has no such label")
    rows = await reads.all(moves.PAGE, call.tenant, prompt_id, label, limit, offset)
    found = [
        LabelMove(label, row["version"], row["from_version"], row["moved_by"], iso(row["moved_at"]))
        for row in rows
    ]
    return LabelHistory(found, count, *links(call, limit, offset, count))


def _label(call: Call[Any, Any]) -> str:
    """The label in the path. Raises Problem (404) for what can be none."""
    label = call.path["label"]
    if not re.fullmatch(LABEL_PATTERN, label):
        not_found("The prompt has no such label")
    return label


_LABEL = f"{PROMPT}labels/{{label}}/"

ROUTES = [
    read_route(
        "GET",
        _LABEL,
        get_label,
        summary="Get where a label points",
        query=LabelQuery,
        response=LabelStanding,
    ),
    write_route(
        "PUT",
        _LABEL,
        move_label,
        summary="Point a label at a version",
        body=MoveLabelBody,
        response=MovedLabel,
    ),
    write_route("DELETE", _LABEL, remove_label, summary="Remove a label", status=204),
    read_route(
        "GET",
        f"{_LABEL}history/",
        label_history,
        summary="List the moves of a label",
        query=PageQuery,
        response=LabelHistory,
    ),
]

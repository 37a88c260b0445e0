"""`prompt_label_moves`: every move of a label, so that where it pointed at any instant is known."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Delete, Put, Statement, View
from schemas.envelope import Envelope
from schemas.prompts.prompt import PromptDeleted, PromptLabelMoved, PromptLabelRemoved


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case PromptLabelMoved() | PromptLabelRemoved():
            values = {
                "label": event.label,
                "version": event.version if isinstance(event, PromptLabelMoved) else None,
                "from_version": event.from_version or None,
                "moved_by": event.moved_by,
                "moved_at": event.moved_at,
            }
            return [Put(_key(event.move, envelope), values)]
        case PromptDeleted():
            return [Delete(_key(number, envelope)) for number in range(1, event.moves + 1)]
    return []


def _key(number: int, envelope: Envelope) -> dict[str, str | int]:
    return {"tenant": envelope.tenant, "prompt_id": envelope.stream_id, "number": number}


PROMPT_LABEL_MOVES = View(
    name="prompt_label_moves",
    version=1,
    events=(PromptDeleted, PromptLabelMoved, PromptLabelRemoved),
    columns={
        "tenant": "text",
        "prompt_id": "text",
        "number": "bigint",
        "label": "text",
        "version": "bigint",
        "from_version": "bigint",
        "moved_by": "text",
        "moved_at": "bigint",
    },
    key=("tenant", "prompt_id", "number"),
    indexes=("(tenant, prompt_id, label, number)",),
    reduce=reduce,
)

_TABLE = PROMPT_LABEL_MOVES.table
# Parameters: tenant, prompt id, label.
COUNT = f"""
SELECT count(*) AS count FROM {_TABLE} WHERE tenant = %s AND prompt_id = %s AND label = %s
"""
# Parameters: tenant, prompt id, label, limit, offset.
PAGE = f"""
SELECT version, from_version, moved_by, moved_at FROM {_TABLE}
WHERE tenant = %s AND prompt_id = %s AND label = %s
ORDER BY number DESC LIMIT %s OFFSET %s
"""
# The last move until an instant. Parameters: tenant, prompt id, label, instant.
LAST_UNTIL = f"""
SELECT version, moved_by, moved_at FROM {_TABLE}
WHERE tenant = %s AND prompt_id = %s AND label = %s AND moved_at <= %s
ORDER BY number DESC LIMIT 1
"""


def label_until(tenant: str, prompt_id: str) -> str:
    """SQL for the version that a label pointed at until an instant, two parameters of the query;
    NULL for nowhere. The arguments are SQL expressions of the query around it."""
    return f"""(
  SELECT m.version FROM {_TABLE} AS m
  WHERE m.tenant = {tenant} AND m.prompt_id = {prompt_id} AND m.label = %s AND m.moved_at <= %s
  ORDER BY m.number DESC LIMIT 1)"""


def labels_until(tenant: str, prompt_id: str, version: str) -> str:
    """SQL for the sorted names of the labels that pointed at a version until an instant, a
    parameter of the query. The arguments are SQL expressions of the query around it."""
    return f"""(
  SELECT coalesce(jsonb_agg(m.label ORDER BY m.label COLLATE "C"), '[]')
  FROM (
    SELECT DISTINCT ON (label) label, version FROM {_TABLE}
    WHERE tenant = {tenant} AND prompt_id = {prompt_id} AND moved_at <= %s
    ORDER BY label, number DESC) AS m
  WHERE m.version = {version})"""

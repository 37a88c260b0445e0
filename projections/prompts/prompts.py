"""`prompts`: one row for each prompt. What is in its versions is in `prompt_versions`."""

from collections.abc import Sequence
from typing import Any

from projections.prompts.prompt_labels import labels_of
from projections.statements import Delete, Put, Set, Statement, View, json_text
from schemas.envelope import Envelope
from schemas.prompts.prompt import (
    PromptCreated,
    PromptDeleted,
    PromptDescribed,
    PromptEvent,
    PromptLabelMoved,
    PromptLabelRemoved,
    PromptRenamed,
    PromptVersionAdded,
)
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case PromptCreated():
            values = {
                "name": event.name,
                "description": event.description,
                "prompt_type": event.prompt_type,
                "tags": json_text(event.tags),
                "metadata": event.metadata,
                "config": event.config,
                "latest_version": 0,
                "created_by": event.created_by,
                "created_at": event.created_at,
                "updated_at": event.created_at,
            }
            return [Put(key, values)]
        case PromptVersionAdded():
            return [Set(key, {"latest_version": event.version, "updated_at": event.created_at})]
        case PromptRenamed():
            return [Set(key, {"name": event.name, "updated_at": event.renamed_at})]
        case PromptDescribed():
            described = {
                "description": event.description,
                "tags": json_text(event.tags),
                "metadata": event.metadata,
                "updated_at": event.described_at,
            }
            return [Set(key, described)]
        case PromptLabelMoved() | PromptLabelRemoved():
            return [Set(key, {"updated_at": event.moved_at})]
        case PromptDeleted():
            return [Delete(key)]
    return []


PROMPTS = View(
    name="prompts",
    version=1,
    events=members(PromptEvent),
    columns={
        "tenant": "text",
        "id": "text",
        "name": "text",
        "description": "text",
        "prompt_type": "text",
        "tags": "jsonb",
        # JSON that is handed out as it came: jsonb would write its numbers anew.
        "metadata": "text",
        "config": "text",
        "latest_version": "bigint",
        "created_by": "text",
        "created_at": "bigint",
        "updated_at": "bigint",
    },
    key=("tenant", "id"),
    # Not unique: within a batch one prompt may get a name before the row of another lets it go.
    # The decider's claims keep names unique.
    indexes=("(tenant, name)", "(tenant, created_at, id)"),
    reduce=reduce,
)

_SELECT = f"""
SELECT id, name, description, prompt_type, tags, metadata, config, latest_version, created_by,
  created_at, updated_at, {labels_of("p.tenant", "p.id")} AS labels
FROM {PROMPTS.table} AS p
"""
# Parameters: tenant, id.
BY_ID = f"{_SELECT} WHERE tenant = %s AND id = %s"
HEAD_OF = f"SELECT name, latest_version FROM {PROMPTS.table} WHERE tenant = %s AND id = %s"
# Parameters: tenant, name.
ID_OF = f"SELECT id FROM {PROMPTS.table} WHERE tenant = %s AND name = %s"
# Parameters: tenant, the tags that a prompt must have (as JSON), a part of name or description.
_SELECTION = r"""
WHERE tenant = %s AND tags @> %s::jsonb
  AND strpos(lower(name || E'\n' || description), lower(%s)) > 0
"""
COUNT = f"SELECT count(*) AS count FROM {PROMPTS.table} AS p {_SELECTION}"
# Parameters: those of the selection, limit, offset.
PAGE = f"{_SELECT} {_SELECTION} ORDER BY created_at DESC, id DESC LIMIT %s OFFSET %s"

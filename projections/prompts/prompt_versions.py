"""`prompt_versions`: what each version of a prompt holds. A row never changes; it goes with the
prompt."""

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.prompts.prompt_label_moves import label_until, labels_until
from projections.prompts.prompt_labels import PROMPT_LABELS, labels_of
from projections.prompts.prompts import PROMPTS
from projections.statements import Delete, Put, Statement, View
from schemas.envelope import Envelope
from schemas.prompts.prompt import PromptDeleted, PromptVersionAdded

PREVIEW_CHARACTERS = 200


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case PromptVersionAdded():
            values = {
                "content": event.content,
                "content_preview": preview_of(event.content),
                "content_hash": event.content_hash,
                "config": event.config,
                "commit_message": event.commit_message,
                "created_by": event.created_by,
                "created_at": event.created_at,
            }
            return [Put(_key(event.version, envelope), values)]
        case PromptDeleted():
            return [Delete(_key(number, envelope)) for number in range(1, event.versions + 1)]
    return []


def preview_of(content: str) -> str:
    """The start of a string, or of the JSON of anything else."""
    text = msgspec.json.decode(content, type=str) if content.startswith('"') else content
    return text[:PREVIEW_CHARACTERS]


def _key(number: int, envelope: Envelope) -> dict[str, str | int]:
    return {"tenant": envelope.tenant, "prompt_id": envelope.stream_id, "version": number}


PROMPT_VERSIONS = View(
    name="prompt_versions",
    version=1,
    events=(PromptVersionAdded, PromptDeleted),
    columns={
        "tenant": "text",
        "prompt_id": "text",
        "version": "bigint",
        # JSON that is handed out as it came: jsonb would write its numbers anew, and the hash is
        # of what was written.
        "content": "text",
        "content_preview": "text",
        "content_hash": "text",
        "config": "text",
        "commit_message": "text",
        "created_by": "text",
        "created_at": "bigint",
    },
    key=("tenant", "prompt_id", "version"),
    reduce=reduce,
)

_TABLE = PROMPT_VERSIONS.table
_FIELDS = "v.version, v.config, v.content_hash, v.commit_message, v.created_by, v.created_at"
_LABELS = labels_of("v.tenant", "v.prompt_id", "v.version")
# Parameters: tenant, prompt id, limit, offset. The newest first.
PAGE = f"""
SELECT {_FIELDS}, v.content_preview, {_LABELS} AS labels
FROM {_TABLE} AS v WHERE v.tenant = %s AND v.prompt_id = %s
ORDER BY v.version DESC LIMIT %s OFFSET %s
"""
# Parameters: tenant, prompt id. The oldest first.
HASHES = f"""
SELECT version, content_hash FROM {_TABLE} WHERE tenant = %s AND prompt_id = %s ORDER BY version
"""
# Parameters: tenant, prompt id, version.
ONE = f"""
SELECT {_FIELDS}, v.content, p.name, p.prompt_type, {_LABELS} AS labels
FROM {_TABLE} AS v JOIN {PROMPTS.table} AS p ON p.tenant = v.tenant AND p.id = v.prompt_id
WHERE v.tenant = %s AND v.prompt_id = %s AND v.version = %s
"""


def _fetch(version: str, labels: str = _LABELS) -> str:
    """One version of the prompt with a name, in one look: `version` says which, in SQL."""
    return f"""
SELECT p.name, p.prompt_type, v.version, v.content, v.config, v.content_hash, {labels} AS labels
FROM {PROMPTS.table} AS p
JOIN {_TABLE} AS v ON v.tenant = p.tenant AND v.prompt_id = p.id AND v.version = {version}
WHERE p.tenant = %s AND p.name = %s
"""


_LABELS_UNTIL = labels_until("v.tenant", "v.prompt_id", "v.version")
# Parameters: version, tenant, name.
FETCH_VERSION = _fetch("%s")
# Parameters: tenant, name.
FETCH_LATEST = _fetch("p.latest_version")
# Parameters: instant, instant, tenant, name.
FETCH_LATEST_UNTIL = _fetch(
    f"""(
  SELECT max(o.version) FROM {_TABLE} AS o
  WHERE o.tenant = p.tenant AND o.prompt_id = p.id AND o.created_at <= %s)""",
    _LABELS_UNTIL,
)
# Parameters: label, tenant, name.
FETCH_LABEL = _fetch(
    f"""(
  SELECT l.version FROM {PROMPT_LABELS.table} AS l
  WHERE l.tenant = p.tenant AND l.prompt_id = p.id AND l.label = %s)"""
)
# Parameters: instant, label, instant, tenant, name.
FETCH_LABEL_UNTIL = _fetch(label_until("p.tenant", "p.id"), _LABELS_UNTIL)

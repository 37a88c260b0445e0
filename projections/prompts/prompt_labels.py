"""`prompt_labels`: where each label of a prompt points now."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Delete, Put, Statement, View
from schemas.envelope import Envelope
from schemas.prompts.prompt import PromptDeleted, PromptLabelMoved, PromptLabelRemoved


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case PromptLabelMoved():
            return [Put(_key(event.label, envelope), {"version": event.version})]
        case PromptLabelRemoved():
            return [Delete(_key(event.label, envelope))]
        case PromptDeleted():
            return [Delete(_key(label, envelope)) for label in event.labels]
    return []


def _key(label: str, envelope: Envelope) -> dict[str, str]:
    return {"tenant": envelope.tenant, "prompt_id": envelope.stream_id, "label": label}


PROMPT_LABELS = View(
    name="prompt_labels",
    version=1,
    events=(PromptLabelMoved, PromptLabelRemoved, PromptDeleted),
    columns={"tenant": "text", "prompt_id": "text", "label": "text", "version": "bigint"},
    key=("tenant", "prompt_id", "label"),
    reduce=reduce,
)


def labels_of(tenant: str, prompt_id: str, version: str = "") -> str:
    """SQL for the sorted names of a prompt's labels, of those at one version if it is given.

    The arguments are SQL expressions of the query around it.
    """
    at = f" AND l.version = {version}" if version else ""
    return f"""(
  SELECT coalesce(jsonb_agg(l.label ORDER BY l.label COLLATE "C"), '[]')
  FROM {PROMPT_LABELS.table} AS l
  WHERE l.tenant = {tenant} AND l.prompt_id = {prompt_id}{at})"""

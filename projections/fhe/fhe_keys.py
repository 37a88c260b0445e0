"""`fhe_keys`: one row for each evaluation key, deleted ones too, and when a job needed it last."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.envelope import Envelope
from schemas.fhe.evaluation_key import EvaluationKeyDeleted, EvaluationKeyRegistered
from schemas.fhe.job import JobSubmitted


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "key_id": envelope.stream_id}
    match event:
        case EvaluationKeyRegistered():
            values = {
                "params_id": event.params_id,
                "fingerprint": event.fingerprint,
                "name": event.name,
                "size_bytes": sum(part.size_bytes for part in event.parts),
                "parts": json_text(event.parts),
                "created_at": event.registered_at,
                "created_by": envelope.actor.id,
                "generated": event.generated,
                "last_used_at": None,
                "deleted_at": None,
            }
            return [Put(key, values)]
        case EvaluationKeyDeleted():
            return [Set(key, {"deleted_at": event.deleted_at})]
        case JobSubmitted():
            used = {"tenant": envelope.tenant, "key_id": event.key_id}
            return [Set(used, {"last_used_at": event.submitted_at})]
    return []


FHE_KEYS = View(
    name="fhe_keys",
    version=2,
    events=(EvaluationKeyRegistered, EvaluationKeyDeleted, JobSubmitted),
    columns={
        "tenant": "text",
        "key_id": "text",
        "params_id": "text",
        "fingerprint": "text",
        "name": "text",
        "size_bytes": "bigint",
        "parts": "jsonb",
        "created_at": "bigint",
        "created_by": "text",
        "generated": "boolean",
        "last_used_at": "bigint",
        "deleted_at": "bigint",
    },
    key=("tenant", "key_id"),
    indexes=("(tenant, created_at, key_id) WHERE deleted_at IS NULL",),
    reduce=reduce,
)

_SELECT = f"""
SELECT key_id, params_id, fingerprint, name, size_bytes, parts, created_at, generated,
       last_used_at, deleted_at
FROM {FHE_KEYS.table}
"""
# Deleted or not. Parameters: tenant, key id.
BY_ID = f"{_SELECT} WHERE tenant = %s AND key_id = %s"
# Parameters: tenant, then (created_at, key_id) of the last row seen, then the limit.
PAGE = f"""{_SELECT} WHERE tenant = %s AND deleted_at IS NULL AND (created_at, key_id) < (%s, %s)
ORDER BY created_at DESC, key_id DESC LIMIT %s"""

"""`fhe_keys`: one row for each evaluation key that can be computed with."""

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.statements import Delete, Put, Statement, View
from schemas.envelope import Envelope
from schemas.fhe.evaluation_key import EvaluationKeyDeleted, EvaluationKeyRegistered


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "key_id": envelope.stream_id}
    match event:
        case EvaluationKeyRegistered():
            values = {
                "params_id": event.params_id,
                "fingerprint": event.fingerprint,
                "name": event.name,
                "size_bytes": sum(part.size_bytes for part in event.parts),
                "parts": msgspec.json.encode(event.parts).decode(),
                "created_at": event.registered_at,
                "created_by": envelope.actor.id,
            }
            return [Put(key, values)]
        case EvaluationKeyDeleted():
            return [Delete(key)]
    return []


FHE_KEYS = View(
    name="fhe_keys",
    version=1,
    events=(EvaluationKeyRegistered, EvaluationKeyDeleted),
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
    },
    key=("tenant", "key_id"),
    indexes=("(tenant, created_at, key_id)",),
    reduce=reduce,
)

_SELECT = f"""
SELECT key_id, params_id, fingerprint, name, size_bytes, parts, created_at
FROM {FHE_KEYS.table}
"""
# Parameters: tenant, key id.
BY_ID = f"{_SELECT} WHERE tenant = %s AND key_id = %s"
# Parameters: tenant, then (created_at, key_id) of the last row seen, then the limit.
PAGE = f"""{_SELECT} WHERE tenant = %s AND (created_at, key_id) < (%s, %s)
ORDER BY created_at DESC, key_id DESC LIMIT %s"""

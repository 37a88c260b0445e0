"""`fhe_key_uploads` and `fhe_key_upload_parts`: uploads under way, and how far each part is."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.envelope import Envelope
from schemas.fhe.key_upload import (
    KeyPieceReceived,
    KeyUploadAbandoned,
    KeyUploadCompleted,
    KeyUploadEvent,
    KeyUploadOpened,
)
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "upload_id": envelope.stream_id}
    match event:
        case KeyUploadOpened():
            values = {
                "params_id": event.params_id,
                "name": event.name,
                "status": "open",
                "key_id": "",
                "opened_at": event.opened_at,
                "updated_at": event.opened_at,
            }
            return [Put(key, values)]
        case KeyPieceReceived():
            return [Set(key, {"updated_at": event.received_at})]
        case KeyUploadCompleted():
            values = {
                "status": "completed",
                "key_id": event.key_id,
                "updated_at": event.completed_at,
            }
            return [Set(key, values)]
        case KeyUploadAbandoned():
            return [Set(key, {"status": event.reason, "updated_at": event.abandoned_at})]
    return []


def reduce_parts(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "upload_id": envelope.stream_id}
    match event:
        case KeyUploadOpened():
            return [
                Put(
                    {**key, "part": number},
                    {
                        "kind": part.kind,
                        "size_bytes": part.size_bytes,
                        "received_bytes": 0,
                        "pieces": "[]",
                        "stored": None,
                    },
                )
                for number, part in enumerate(event.parts)
            ]
        case KeyPieceReceived():
            stored = event.stored
            values = {
                "received_bytes": event.received_bytes,
                "pieces": json_text(event.pieces),
                "stored": None if stored is None else json_text(stored),
            }
            return [Set({**key, "part": event.part}, values)]
    return []


FHE_KEY_UPLOADS = View(
    name="fhe_key_uploads",
    version=1,
    events=members(KeyUploadEvent),
    columns={
        "tenant": "text",
        "upload_id": "text",
        "params_id": "text",
        "name": "text",
        "status": "text",
        "key_id": "text",
        "opened_at": "bigint",
        "updated_at": "bigint",
    },
    key=("tenant", "upload_id"),
    reduce=reduce,
)
FHE_KEY_UPLOAD_PARTS = View(
    name="fhe_key_upload_parts",
    version=1,
    events=(KeyUploadOpened, KeyPieceReceived),
    columns={
        "tenant": "text",
        "upload_id": "text",
        "part": "bigint",
        "kind": "text",
        "size_bytes": "bigint",
        "received_bytes": "bigint",
        "pieces": "jsonb",
        "stored": "jsonb",
    },
    key=("tenant", "upload_id", "part"),
    reduce=reduce_parts,
)

# Parameters: tenant, upload id.
BY_ID = f"""
SELECT upload_id, params_id, name, status, key_id, opened_at, updated_at
FROM {FHE_KEY_UPLOADS.table} WHERE tenant = %s AND upload_id = %s
"""
PARTS = f"""
SELECT part, kind, size_bytes, received_bytes, pieces, stored
FROM {FHE_KEY_UPLOAD_PARTS.table} WHERE tenant = %s AND upload_id = %s ORDER BY part
"""

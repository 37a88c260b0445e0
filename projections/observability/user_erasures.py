"""`user_erasures` and `erased_read_models`: the receipts of erasures, and each read model's line.

A receipt does not name the user. The order of a list is that of the requests.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.statements import Put, Set, Statement, View
from schemas.envelope import Envelope
from schemas.observability.erasure import (
    ReadModelErased,
    UserErasureCompleted,
    UserErasureRequested,
    UserKeyDropped,
)


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "erasure_id": envelope.stream_id}
    match event:
        case UserErasureRequested():
            requested = {
                "status": "requested",
                "key_name": event.key,
                "requested_at": event.at,
                "requested_by": envelope.actor.id,
            }
            return [Put(key, requested)]
        case UserKeyDropped():
            return [Set(key, {"status": "key_dropped", "key_dropped_at": event.at})]
        case UserErasureCompleted():
            return [Set(key, {"status": "completed", "completed_at": event.at})]
    return []


def reduce_read_models(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case ReadModelErased():
            key = {
                "tenant": envelope.tenant,
                "erasure_id": envelope.stream_id,
                "read_model": event.read_model,
            }
            values = {
                "rows_erased": event.rows,
                "positions": msgspec.json.encode(event.positions).decode(),
                "erased_at": event.at,
            }
            return [Put(key, values)]
    return []


USER_ERASURES = View(
    name="user_erasures",
    version=1,
    events=(UserErasureRequested, UserKeyDropped, UserErasureCompleted),
    columns={
        "tenant": "text",
        "erasure_id": "text",
        "status": "text",
        "key_name": "text",
        "requested_at": "bigint",
        "requested_by": "text",
        "key_dropped_at": "bigint",
        "completed_at": "bigint",
    },
    key=("tenant", "erasure_id"),
    reduce=reduce,
    indexes=("(tenant, requested_at, erasure_id)",),
)

ERASED_READ_MODELS = View(
    name="erased_read_models",
    version=1,
    events=(ReadModelErased,),
    columns={
        "tenant": "text",
        "erasure_id": "text",
        "read_model": "text",
        "rows_erased": "bigint",
        "positions": "jsonb",
        "erased_at": "bigint",
    },
    key=("tenant", "erasure_id", "read_model"),
    reduce=reduce_read_models,
)

# Parameters: tenant, erasure id.
BY_ID = f"SELECT * FROM {USER_ERASURES.table} WHERE tenant = %s AND erasure_id = %s"

# Parameter: an instant, microseconds.
COMPLETED_SINCE = f"SELECT tenant, key_name FROM {USER_ERASURES.table} WHERE completed_at >= %s"

# Parameters: tenant, limit, offset.
NEWEST_FIRST = f"""
SELECT * FROM {USER_ERASURES.table} WHERE tenant = %s
ORDER BY requested_at DESC, erasure_id DESC LIMIT %s OFFSET %s
"""

# Parameter: tenant.
COUNT = f"SELECT count(*) AS erasures FROM {USER_ERASURES.table} WHERE tenant = %s"

# Parameters: tenant, erasure ids.
READ_MODELS = f"""
SELECT * FROM {ERASED_READ_MODELS.table} WHERE tenant = %s AND erasure_id = ANY(%s)
ORDER BY erased_at, read_model
"""

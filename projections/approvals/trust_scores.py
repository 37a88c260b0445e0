"""`trust_scores`: one row for each agent in each room where a decision has moved its trust."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Statement, View
from schemas.approvals.trust import TrustMoved
from schemas.envelope import Envelope


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case TrustMoved():
            key = {
                "tenant": envelope.tenant,
                "agent_id": event.agent_id,
                "room_id": event.room_id,
            }
            values = {
                "score": event.score,
                "approved_count": event.approved_count,
                "modified_count": event.modified_count,
                "rejected_count": event.rejected_count,
                "expired_count": event.expired_count,
                "updated_at": event.moved_at,
            }
            return [Put(key, values)]
    return []


TRUST_SCORES = View(
    name="trust_scores",
    version=1,
    events=(TrustMoved,),
    columns={
        "tenant": "text",
        "agent_id": "text",
        "room_id": "text",
        "score": "float8",
        "approved_count": "bigint",
        "modified_count": "bigint",
        "rejected_count": "bigint",
        "expired_count": "bigint",
        "updated_at": "bigint",
    },
    key=("tenant", "agent_id", "room_id"),
    reduce=reduce,
)

OF_AGENT = f"""
SELECT room_id, score, approved_count, modified_count, rejected_count, expired_count, updated_at
FROM {TRUST_SCORES.table} WHERE tenant = %s AND agent_id = %s ORDER BY room_id LIMIT 1000
"""

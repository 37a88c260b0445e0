"""`trust_moves`: one row for each thing that moved an agent's trust in a room, numbered from 1."""

from collections.abc import Sequence
from typing import Any

from projections.approvals.trust_scores import TRUST_SCORES
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
                "number": event.approved_count
                + event.modified_count
                + event.rejected_count
                + event.expired_count,
            }
            values = {
                "check_in_id": event.check_in_id,
                "outcome": event.outcome,
                "change": event.change,
                "score": event.score,
                "moved_at": event.moved_at,
            }
            return [Put(key, values)]
    return []


TRUST_MOVES = View(
    name="trust_moves",
    version=1,
    events=(TrustMoved,),
    columns={
        "tenant": "text",
        "agent_id": "text",
        "room_id": "text",
        "number": "bigint",
        "check_in_id": "text",
        "outcome": "text",
        "change": "float8",
        "score": "float8",
        "moved_at": "bigint",
    },
    key=("tenant", "agent_id", "room_id", "number"),
    reduce=reduce,
)

# The last of them in each room of an agent, newest first. Parameters: how many, tenant, agent.
LATEST = f"""
SELECT m.room_id, m.check_in_id, m.outcome, m.change, m.score, m.moved_at
FROM {TRUST_SCORES.table} t, LATERAL (
  SELECT * FROM {TRUST_MOVES.table} m
  WHERE (m.tenant, m.agent_id, m.room_id) = (t.tenant, t.agent_id, t.room_id)
  ORDER BY m.number DESC LIMIT %s) AS m
WHERE t.tenant = %s AND t.agent_id = %s ORDER BY m.room_id, m.number DESC
"""
# All of them, oldest first. Parameters: tenant, agent, room.
OUTCOMES = f"""
SELECT outcome FROM {TRUST_MOVES.table}
WHERE tenant = %s AND agent_id = %s AND room_id = %s ORDER BY number
"""

"""`agent_policy_revisions`: who changed which policy when, and what it was from then on."""

from collections.abc import Sequence
from typing import Any

from projections.observability.policies import encode
from projections.statements import Put, Statement, View
from schemas.envelope import Envelope
from schemas.observability.policy import PolicyCreated, PolicyDeleted, PolicyRevised


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case PolicyCreated():
            return [_row(event, envelope, "created", encode(event.definition))]
        case PolicyRevised():
            return [_row(event, envelope, "revised", encode(event.definition))]
        case PolicyDeleted():
            return [_row(event, envelope, "deleted", None)]
    return []


def _row(
    event: PolicyCreated | PolicyRevised | PolicyDeleted,
    envelope: Envelope,
    change: str,
    definition: str | None,
) -> Statement:
    key = {
        "tenant": envelope.tenant,
        "policy_id": event.policy_id,
        "revision": event.revision,
    }
    values = {
        "change": change,
        "definition": definition,
        "at": event.at,
        "actor_kind": envelope.actor.kind,
        "actor_id": envelope.actor.id,
        "actor_name": envelope.actor.name,
    }
    return Put(key, values)


POLICY_REVISIONS = View(
    name="agent_policy_revisions",
    version=1,
    events=(PolicyCreated, PolicyRevised, PolicyDeleted),
    columns={
        "tenant": "text",
        "policy_id": "text",
        "revision": "bigint",
        "change": "text",
        "definition": "jsonb",
        "at": "bigint",
        "actor_kind": "text",
        "actor_id": "text",
        "actor_name": "text",
    },
    key=("tenant", "policy_id", "revision"),
    reduce=reduce,
)

# Newest first. Parameters: tenant, policy id, limit, offset.
PAGE = f"""
SELECT * FROM {POLICY_REVISIONS.table} WHERE tenant = %s AND policy_id = %s
ORDER BY revision DESC LIMIT %s OFFSET %s
"""
COUNT = f"""
SELECT count(*) AS revisions FROM {POLICY_REVISIONS.table} WHERE tenant = %s AND policy_id = %s
"""

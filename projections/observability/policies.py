"""`agent_policies`: the policies that a policy check is answered by, one row each."""

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.statements import Delete, Put, Set, Statement, View
from schemas.envelope import Envelope
from schemas.observability.policy import (
    Definition,
    PolicyCreated,
    PolicyDeleted,
    PolicyRevised,
    kind_of,
)


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case PolicyCreated():
            values = {"created_at": event.at, "updated_at": event.at}
            return [Put(_key(event, envelope), {**_values(event), **values})]
        case PolicyRevised():
            return [Set(_key(event, envelope), {**_values(event), "updated_at": event.at})]
        case PolicyDeleted():
            return [Delete(_key(event, envelope))]
    return []


def _key(event: PolicyCreated | PolicyRevised | PolicyDeleted, envelope: Envelope) -> Any:
    return {"tenant": envelope.tenant, "policy_id": event.policy_id}


def _values(event: PolicyCreated | PolicyRevised) -> dict[str, Any]:
    definition = event.definition
    return {
        "revision": event.revision,
        "kind": kind_of(definition.rule),
        "enabled": definition.enabled,
        "definition": encode(definition),
    }


def encode(definition: Definition) -> str:
    """The definition as the tables hold it."""
    return msgspec.json.encode(definition).decode()


POLICIES = View(
    name="agent_policies",
    version=1,
    events=(PolicyCreated, PolicyRevised, PolicyDeleted),
    columns={
        "tenant": "text",
        "policy_id": "text",
        "revision": "bigint",
        "kind": "text",
        "enabled": "boolean",
        "definition": "jsonb",
        "created_at": "bigint",
        "updated_at": "bigint",
    },
    key=("tenant", "policy_id"),
    reduce=reduce,
)

_TABLE = POLICIES.table
_SELECT = f"SELECT policy_id, revision, definition, created_at, updated_at FROM {_TABLE}"
_CHOSEN = "tenant = %s AND (%s = '' OR kind = %s)"
# Parameters: tenant.
ALL = f"{_SELECT} WHERE tenant = %s"
# Parameters: tenant, policy id.
ONE = f"{_SELECT} WHERE tenant = %s AND policy_id = %s"
# The oldest first. Parameters: tenant, kind twice ('' for all), limit, offset.
PAGE = f"{_SELECT} WHERE {_CHOSEN} ORDER BY created_at, policy_id LIMIT %s OFFSET %s"
COUNT = f"SELECT count(*) AS policies FROM {_TABLE} WHERE {_CHOSEN}"

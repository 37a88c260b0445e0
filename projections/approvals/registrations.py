"""`registrations`: agents that registered themselves, until nobody has claimed them in time.

Tenant `_directory`. A claimed one stays, so that its token is known to be used.
"""

from collections.abc import Sequence
from typing import Any

from projections.statements import Delete, Put, Set, Statement, View
from schemas.approvals.registration import (
    AgentClaimed,
    AgentClaimExpired,
    AgentSelfRegistered,
    RegistrationEvent,
)
from schemas.envelope import Envelope
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "id": envelope.stream_id}
    match event:
        case AgentSelfRegistered():
            values = {
                "name": event.name,
                "description": event.description,
                "platform": event.platform,
                "key_prefix": event.key_prefix,
                "key_hash": event.key_hash,
                "registered_at": event.registered_at,
                "expires_at": event.expires_at,
                "claimed_at": None,
            }
            return [Put(key, values)]
        case AgentClaimed():
            return [Set(key, {"claimed_at": event.claimed_at})]
        case AgentClaimExpired():
            return [Delete(key)]
    return []


REGISTRATIONS = View(
    name="registrations",
    version=1,
    events=members(RegistrationEvent),
    columns={
        "tenant": "text",
        "id": "text",
        "name": "text",
        "description": "text",
        "platform": "text",
        "key_prefix": "text",
        "key_hash": "text",
        "registered_at": "bigint",
        "expires_at": "bigint",
        "claimed_at": "bigint",
    },
    key=("tenant", "id"),
    indexes=("(key_prefix)",),
    reduce=reduce,
)

_SELECT = f"""
SELECT tenant, id, name, description, platform, key_prefix, key_hash, registered_at, expires_at,
       claimed_at
FROM {REGISTRATIONS.table}
"""
BY_ID = f"{_SELECT} WHERE tenant = '_directory' AND id = %s"
# For authentication, of agents that no tenant has; the caller compares the hash.
BY_KEY_PREFIX = f"{_SELECT} WHERE key_prefix = %s ORDER BY id LIMIT 1"

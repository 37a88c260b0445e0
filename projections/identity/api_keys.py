"""`api_keys`: one row for each API key, revoked ones too."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.envelope import Envelope
from schemas.identity.api_key import (
    ApiKeyEvent,
    ApiKeyExpirySet,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    ApiKeyRolesGranted,
    ApiKeyRotated,
    ApiKeyUsed,
)
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "key_id": envelope.stream_id}
    match event:
        case ApiKeyIssued():
            values = {
                "name": event.name,
                "prefix": event.prefix,
                "key_hash": event.key_hash,
                "roles": json_text(event.roles),
                "scopes": json_text(event.scopes),
                "expires_at": event.expires_at,
                "created_at": envelope.time,
                "created_by": envelope.actor.id,
                "revoked_at": None,
                "previous_prefix": None,
                "previous_hash": None,
                "previous_until": None,
                "last_used_at": None,
            }
            return [Put(key, values)]
        case ApiKeyRenamed():
            return [Set(key, {"name": event.name})]
        case ApiKeyRolesGranted():
            return [Set(key, {"roles": json_text(event.roles), "scopes": json_text(event.scopes)})]
        case ApiKeyExpirySet():
            return [Set(key, {"expires_at": event.expires_at})]
        case ApiKeyRotated():
            values = {
                "prefix": event.prefix,
                "key_hash": event.key_hash,
                "previous_prefix": event.previous_prefix,
                "previous_hash": event.previous_hash,
                "previous_until": event.previous_until,
            }
            return [Set(key, values)]
        case ApiKeyUsed():
            return [Set(key, {"last_used_at": event.used_at})]
        case ApiKeyRevoked():
            return [Set(key, {"revoked_at": envelope.time})]
    return []


API_KEYS = View(
    name="api_keys",
    version=2,
    events=members(ApiKeyEvent),
    columns={
        "tenant": "text",
        "key_id": "text",
        "name": "text",
        "prefix": "text",
        "key_hash": "text",
        "roles": "jsonb",
        "scopes": "jsonb",
        "expires_at": "bigint",
        "created_at": "bigint",
        "created_by": "text",
        "revoked_at": "bigint",
        "previous_prefix": "text",
        "previous_hash": "text",
        "previous_until": "bigint",
        "last_used_at": "bigint",
    },
    key=("tenant", "key_id"),
    indexes=("(prefix)", "(previous_prefix)", "(tenant, created_at, key_id)"),
    reduce=reduce,
)

_SELECT = f"""
SELECT tenant, key_id, name, prefix, key_hash, roles, scopes, expires_at, created_at, created_by,
       revoked_at, previous_prefix, previous_hash, previous_until, last_used_at
FROM {API_KEYS.table}
"""
# Twelve random characters: two keys do not share them, and if they did, one would not work.
# Parameters: the prefix, twice: of the key's secret, or of the one before its last rotation.
BY_PREFIX = f"{_SELECT} WHERE prefix = %s OR previous_prefix = %s ORDER BY created_at LIMIT 1"
OF_TENANT_BY_ID = f"{_SELECT} WHERE tenant = %s AND key_id = %s"
# Parameters: tenant, then (created_at, key_id) of the last row seen, then the limit.
PAGE = f"""{_SELECT} WHERE tenant = %s AND (created_at, key_id) < (%s, %s)
ORDER BY created_at DESC, key_id DESC LIMIT %s"""

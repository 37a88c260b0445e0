"""`email_owners`: which user of which tenant an address belongs to. Tenant `_directory`."""

from collections.abc import Sequence
from typing import Any

from projections.identity.users import USERS
from projections.statements import Delete, Put, Statement, View
from schemas.envelope import Envelope
from schemas.identity.email import (
    EmailConfirmed,
    EmailEvent,
    EmailReservationExpired,
    EmailReserved,
)
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "email_hash": envelope.stream_id}
    match event:
        case EmailReserved() | EmailConfirmed():
            values = {
                "user_id": event.user_id,
                "user_tenant": event.user_tenant,
                "confirmed": isinstance(event, EmailConfirmed),
            }
            return [Put(key, values)]
        case EmailReservationExpired():
            return [Delete(key)]
    return []


EMAIL_OWNERS = View(
    name="email_owners",
    version=1,
    events=members(EmailEvent),
    columns={
        "tenant": "text",
        "email_hash": "text",
        "user_id": "text",
        "user_tenant": "text",
        "confirmed": "boolean",
    },
    key=("tenant", "email_hash"),
    reduce=reduce,
)

BY_HASH = f"""
SELECT user_id, user_tenant, confirmed FROM {EMAIL_OWNERS.table}
WHERE tenant = '_directory' AND email_hash = %s
"""

# The user who may log in with an address (its SHA-256): the directory says who, the tenant how.
USER_BY_EMAIL = f"""
SELECT u.tenant, u.user_id, u.email, u.email_hash, u.name, u.roles, u.password_hash, u.epoch,
       u.created_at
FROM {EMAIL_OWNERS.table} AS o
JOIN {USERS.table} AS u
  ON u.tenant = o.user_tenant AND u.user_id = o.user_id AND u.email_hash = o.email_hash
WHERE o.tenant = '_directory' AND o.email_hash = %s
"""

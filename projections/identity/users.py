"""`users`: one row for each user, with what verifies a login."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.envelope import Envelope
from schemas.identity.user import AllSessionsRevoked, PasswordChanged, UserRegistered


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "user_id": envelope.stream_id}
    match event:
        case UserRegistered():
            values = {
                "email": event.email,
                "email_hash": event.email_hash,
                "name": event.name,
                "roles": json_text(event.roles),
                "password_hash": event.password_hash,
                "epoch": 0,
                "created_at": envelope.time,
            }
            return [Put(key, values)]
        case PasswordChanged():
            return [Set(key, {"password_hash": event.password_hash, "epoch": event.epoch})]
        case AllSessionsRevoked():
            return [Set(key, {"epoch": event.epoch})]
    return []


USERS = View(
    name="users",
    version=1,
    events=(UserRegistered, PasswordChanged, AllSessionsRevoked),
    columns={
        "tenant": "text",
        "user_id": "text",
        "email": "text",
        "email_hash": "text",
        "name": "text",
        "roles": "jsonb",
        "password_hash": "text",
        "epoch": "bigint",
        "created_at": "bigint",
    },
    key=("tenant", "user_id"),
    indexes=("(user_id)",),
    reduce=reduce,
)

COLUMNS = "tenant, user_id, email, email_hash, name, roles, password_hash, epoch, created_at"
BY_ID = f"SELECT {COLUMNS} FROM {USERS.table} WHERE user_id = %s"

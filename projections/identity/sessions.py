"""`sessions`: one row for each login session, ended ones too."""

from collections.abc import Sequence
from typing import Any

from projections.identity.users import USERS
from projections.statements import Put, Set, Statement, View
from schemas.envelope import Envelope
from schemas.identity.session import (
    SessionEvent,
    SessionExpired,
    SessionOpened,
    SessionRefreshed,
    SessionRevoked,
)
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "session_id": envelope.stream_id}
    match event:
        case SessionOpened():
            values = {
                "user_id": event.user_id,
                "epoch": event.epoch,
                "generation": 0,
                "cookie_hash": event.cookie_hash,
                "opened_at": event.opened_at,
                "seen_at": event.opened_at,
                "expires_at": event.expires_at,
                "ended_at": None,
                "ended": "",
                "address": event.address,
                "user_agent": event.user_agent,
            }
            return [Put(key, values)]
        case SessionRefreshed():
            values = {
                "generation": event.generation,
                "expires_at": event.expires_at,
                "seen_at": envelope.time,
            }
            return [Set(key, values)]
        case SessionRevoked():
            return [Set(key, {"ended": event.reason, "ended_at": envelope.time})]
        case SessionExpired():
            return [Set(key, {"ended": "expired", "ended_at": envelope.time})]
    return []


SESSIONS = View(
    name="sessions",
    version=1,
    events=members(SessionEvent),
    columns={
        "tenant": "text",
        "session_id": "text",
        "user_id": "text",
        "epoch": "bigint",
        "generation": "bigint",
        "cookie_hash": "text",
        "opened_at": "bigint",
        "seen_at": "bigint",
        "expires_at": "bigint",
        "ended_at": "bigint",
        "ended": "text",
        "address": "text",
        "user_agent": "text",
    },
    key=("tenant", "session_id"),
    indexes=("(session_id)", "(cookie_hash)", "(tenant, user_id, opened_at)"),
    reduce=reduce,
)

# A session whose epoch is not its user's any more has ended, although no event names it.
_SELECT = f"""
SELECT s.tenant, s.session_id, s.user_id, s.generation, s.cookie_hash, s.opened_at, s.seen_at,
       s.expires_at, s.ended_at, s.ended, s.address, s.user_agent, s.epoch <> u.epoch AS outdated
FROM {SESSIONS.table} AS s
JOIN {USERS.table} AS u ON u.tenant = s.tenant AND u.user_id = s.user_id
"""
BY_ID = f"{_SELECT} WHERE s.session_id = %s"
BY_COOKIE = f"{_SELECT} WHERE s.cookie_hash = %s"
OF_USER_BY_ID = f"{_SELECT} WHERE s.tenant = %s AND s.user_id = %s AND s.session_id = %s"

_ACTIVE = "s.tenant = %s AND s.user_id = %s AND s.ended = '' AND s.epoch = u.epoch"
# Parameters: tenant, user, now (microseconds), limit, offset.
ACTIVE_OF_USER = f"""{_SELECT} WHERE {_ACTIVE} AND s.expires_at > %s
ORDER BY s.opened_at DESC, s.session_id DESC LIMIT %s OFFSET %s"""
COUNT_ACTIVE_OF_USER = f"""
SELECT count(*) AS total FROM {SESSIONS.table} AS s
JOIN {USERS.table} AS u ON u.tenant = s.tenant AND u.user_id = s.user_id
WHERE {_ACTIVE} AND s.expires_at > %s"""

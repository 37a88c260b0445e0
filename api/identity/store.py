"""Credentials out of the Postgres read models: what `api.auth` asks, each one query."""

from collections.abc import Mapping
from typing import Any

from api.credentials import AgentKey, ApiKey, Session, User
from api.identity.email import email_hash
from api.services import Reads
from projections.approvals import agents, registrations
from projections.identity import api_keys, email_owners, sessions, users


class PostgresCredentials:
    """The `CredentialStore` over read models. Raises DatabaseUnavailable from every look-up."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def get_api_key(self, prefix: str) -> ApiKey | None:
        row = await self._reads.one(api_keys.BY_PREFIX, prefix, prefix)
        if row is None:
            return None
        return ApiKey(
            row["key_id"],
            row["tenant"],
            row["key_hash"],
            name=row["name"],
            roles=frozenset(row["roles"]),
            scopes=frozenset(row["scopes"]),
            revoked=row["revoked_at"] is not None,
            expires_at=row["expires_at"],
            previous_hash=row["previous_hash"] or "",
            previous_until=row["previous_until"] or 0,
        )

    async def get_agent_key(self, prefix: str) -> AgentKey | None:
        row = await self._reads.one(agents.BY_KEY_PREFIX, prefix)
        if row is None:
            return await self._self_registered(prefix)
        return AgentKey(
            row["id"],
            row["tenant"],
            row["key_hash"],
            name=row["name"],
            room_scopes=frozenset(row["room_scopes"]),
            revoked=not row["active"],
        )

    async def _self_registered(self, prefix: str) -> AgentKey | None:
        # One that was claimed and that its tenant has not adopted yet is still on its own.
        row = await self._reads.one(registrations.BY_KEY_PREFIX, prefix)
        if row is None:
            return None
        return AgentKey(row["id"], row["tenant"], row["key_hash"], name=row["name"], claimed=False)

    async def get_session(self, session_id: str) -> Session | None:
        return _session(await self._reads.one(sessions.BY_ID, session_id))

    async def get_session_by_cookie(self, cookie_hash: str) -> Session | None:
        return _session(await self._reads.one(sessions.BY_COOKIE, cookie_hash))

    async def get_user(self, user_id: str) -> User | None:
        return _user(await self._reads.one(users.BY_ID, user_id))

    async def get_user_by_email(self, email: str) -> User | None:
        try:
            digest = email_hash(email)
        except ValueError:
            return None
        return _user(await self._reads.one(email_owners.USER_BY_EMAIL, digest))


def _session(row: Mapping[str, Any] | None) -> Session | None:
    if row is None:
        return None
    return Session(
        row["session_id"],
        row["user_id"],
        row["tenant"],
        row["cookie_hash"],
        # An epoch that was raised ended the session without an event of its own.
        revoked=bool(row["ended"]) or row["outdated"],
        expires_at=row["expires_at"],
    )


def _user(row: Mapping[str, Any] | None) -> User | None:
    if row is None:
        return None
    return User(
        row["user_id"],
        row["tenant"],
        email=row["email"],
        name=row["name"],
        roles=frozenset(row["roles"]),
    )

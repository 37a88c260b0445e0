"""What the auth endpoints answer. Instants are ISO 8601 in UTC."""

from msgspec import Struct


class SessionTokens(Struct, frozen=True):
    """A login or a refresh. `expires_in` is seconds until the access token ends."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int
    expires_at: str
    refresh_expires_at: str
    session_id: str
    user_id: str
    tenant_id: str
    email: str
    roles: list[str]


class CurrentUser(Struct, frozen=True):
    """Who is logged in. `session_id` is None when another issuer's token was used."""

    user_id: str
    tenant_id: str
    tenant_name: str
    email: str
    name: str
    roles: list[str]
    session_id: str | None
    created_at: str


class SessionClient(Struct, frozen=True):
    """What the request that opened the session said of its sender."""

    user_agent: str | None


class SessionItem(Struct, frozen=True):
    """One login session that goes on. `current`: the one that asks."""

    id: str
    client: SessionClient
    ip_address_masked: str | None
    created_at: str
    last_seen_at: str
    expires_at: str
    current: bool


class SessionList(Struct, frozen=True):
    """A page of sessions, newest first; `total` counts all of them."""

    sessions: list[SessionItem]
    total: int
    limit: int
    offset: int


class Success(Struct, frozen=True):
    """It is done."""

    success: bool
    message: str

"""Credentials as read models hold them, and the principal that a request acts as.

`CredentialStore` is what authentication asks; the identity domain implements it over the Postgres
views. Secrets are looked up by `lookup_prefix` and compared by SHA-256 (`infra.ids.secret_hash`).
"""

from typing import Protocol

from msgspec import Struct

from schemas.envelope import Actor

API_KEY_PREFIX = "wax_sk_"
AGENT_KEY_PREFIX = "wr_"
SUB_USER_PREFIX = "wax_su_"
DIRECTORY = "_directory"  # the reserved tenant of what is not (yet) a tenant's

_LOOKUP_CHARACTERS = 12  # 60 bits of a key's 256: enough to find it by, too few to guess the rest


def lookup_prefix(secret: str) -> str:
    """The public part of a key, by which it is found: its kind and 12 characters.

    The same where keys are made (the command carries it) and where they are looked up.
    """
    for kind in (API_KEY_PREFIX, SUB_USER_PREFIX, AGENT_KEY_PREFIX):
        if secret.startswith(kind):
            return secret[: len(kind) + _LOOKUP_CHARACTERS]
    raise ValueError("not a key of ours")


class ApiKey(Struct, frozen=True):
    """A `wax_sk_` key. Instants are microseconds, None for never; `hash` is SHA-256 in hex.

    previous_hash: of the secret before the last rotation, which works until `previous_until`;
    empty when there was none.
    """

    id: str
    tenant: str
    hash: str
    name: str = ""
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    revoked: bool = False
    expires_at: int | None = None
    previous_hash: str = ""
    previous_until: int = 0


class AgentKey(Struct, frozen=True):
    """A `wr_` key; `id` is the agent's. An unclaimed agent's tenant is `_directory`."""

    id: str
    tenant: str
    hash: str
    name: str = ""
    room_scopes: frozenset[str] = frozenset()
    claimed: bool = True
    revoked: bool = False


class Session(Struct, frozen=True):
    """A signed-in user's session. `cookie_hash` is the SHA-256 of the `sessionid` cookie."""

    id: str
    user_id: str
    tenant: str
    cookie_hash: str = ""
    revoked: bool = False
    expires_at: int | None = None


class User(Struct, frozen=True):
    """A person. `active` is False when suspended."""

    id: str
    tenant: str
    email: str = ""
    name: str = ""
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    active: bool = True


class CredentialStore(Protocol):
    """Look-ups in the read models. Each returns None for what is unknown; revoked and expired ones
    are returned as they are. Raises DatabaseUnavailable when the database can't be reached."""

    async def get_api_key(self, prefix: str) -> ApiKey | None: ...

    async def get_agent_key(self, prefix: str) -> AgentKey | None: ...

    async def get_session(self, session_id: str) -> Session | None: ...

    async def get_session_by_cookie(self, cookie_hash: str) -> Session | None: ...

    async def get_user(self, user_id: str) -> User | None: ...

    async def get_user_by_email(self, email: str) -> User | None: ...


class Principal(Struct, frozen=True):
    """Whom a request acts as.

    kind `anonymous` on public routes. roles and scopes are the key's or the user's. claimed is
    False for an agent that registered itself and has no tenant yet. csrf: the credential came in a
    cookie, so a write needs proof that the page is ours.
    """

    tenant: str
    actor: Actor
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    key_id: str = ""
    session_id: str = ""
    room_scopes: frozenset[str] = frozenset()
    claimed: bool = True
    email: str = ""
    by_cookie: bool = False


ANONYMOUS = Principal(DIRECTORY, Actor("anonymous", "anonymous"))

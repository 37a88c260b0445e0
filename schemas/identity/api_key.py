"""Events of an API key, stream `identity.api_key/<key_>` of its tenant."""

from msgspec import Struct

from schemas.identity.roles import Role, Scope
from schemas.types import Micros, Sha256, Text


class ApiKeyIssued(Struct, frozen=True, tag="identity.api_key_issued.v1"):
    """A key works. `prefix` are its first characters, `key_hash` the SHA-256 of all of it."""

    name: Text
    prefix: Text
    key_hash: Sha256
    roles: list[Role]
    scopes: list[Scope] = []
    expires_at: Micros | None = None


class ApiKeyRenamed(Struct, frozen=True, tag="identity.api_key_renamed.v1"):
    """The key is called something else."""

    name: Text


class ApiKeyRolesGranted(Struct, frozen=True, tag="identity.api_key_roles_granted.v1"):
    """The key has exactly these roles and scopes from now on."""

    roles: list[Role]
    scopes: list[Scope] = []


class ApiKeyExpirySet(Struct, frozen=True, tag="identity.api_key_expiry_set.v1"):
    """The key stops at this instant; None means never."""

    expires_at: Micros | None = None


class ApiKeyRevoked(Struct, frozen=True, tag="identity.api_key_revoked.v1"):
    """The key has stopped for good."""


class ApiKeyRotated(Struct, frozen=True, tag="identity.api_key_rotated.v1", kw_only=True):
    """The key has another secret; the one before works until `previous_until`, and none older.

    prefixes and hashes: as in ApiKeyIssued.
    """

    prefix: Text
    key_hash: Sha256
    previous_prefix: Text
    previous_hash: Sha256
    previous_until: Micros


class ApiKeyUsed(Struct, frozen=True, tag="identity.api_key_used.v1"):
    """The key was used, also at this instant: one event stands for minutes of use."""

    used_at: Micros


ApiKeyEvent = (
    ApiKeyIssued
    | ApiKeyRenamed
    | ApiKeyRolesGranted
    | ApiKeyExpirySet
    | ApiKeyRotated
    | ApiKeyUsed
    | ApiKeyRevoked
)

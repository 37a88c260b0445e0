"""Events of a user, stream `identity.user/<usr_>` of the user's tenant."""

from msgspec import Struct

from schemas.identity.roles import Role
from schemas.types import Sha256, Text


class UserRegistered(Struct, frozen=True, tag="identity.user_registered.v1"):
    """A person may log in. `password_hash` is an argon2 string, `email_hash` the address's."""

    email: Text
    email_hash: Sha256
    name: Text
    roles: list[Role]
    password_hash: str


class PasswordChanged(Struct, frozen=True, tag="identity.password_changed.v1"):
    """Another password counts; sessions of an epoch before `epoch` have ended."""

    password_hash: str
    epoch: int


class AllSessionsRevoked(Struct, frozen=True, tag="identity.all_sessions_revoked.v1"):
    """Sessions of an epoch before `epoch` have ended."""

    epoch: int


class LoginFailed(Struct, frozen=True, tag="identity.login_failed.v1"):
    """Somebody gave a wrong password for this user, from this network address."""

    address: Text


UserEvent = UserRegistered | PasswordChanged | AllSessionsRevoked | LoginFailed

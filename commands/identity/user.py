"""A user: who may log in, with which password, and which login sessions still count.

The password is verified at the edge (argon2 takes time and threads); what the decider keeps is the
session epoch. A session remembers the epoch it was opened in, so raising the epoch ends all of
them in one event, however many there are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import msgspec
from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import InvalidCommand, NotFound, Refusal
from schemas.identity.roles import DECIDING, Role
from schemas.identity.user import (
    AllSessionsRevoked,
    LoginFailed,
    PasswordChanged,
    UserEvent,
    UserRegistered,
)
from schemas.types import Sha256, Text
from schemas.unions import members

STREAM = "identity.user"


class UserExists(Refusal):
    """The id belongs to a user with another e-mail address."""

    code = "user_exists"


class SessionsEnded(Refusal):
    """The password was changed, or all sessions ended, after the caller had been verified."""

    code = "sessions_ended"
    kind = "forbidden"


class RegisterUser(Struct, frozen=True, tag="identity.register_user.v1"):
    """Let a person log in. `password_hash` is an argon2 string made at the edge."""

    email: Text
    email_hash: Sha256
    name: Text
    roles: list[Role]
    password_hash: str


class ChangePassword(Struct, frozen=True, tag="identity.change_password.v1"):
    """Replace the password that was verified in session epoch `epoch`; ends every session."""

    password_hash: str
    epoch: int


class RevokeAllSessions(Struct, frozen=True, tag="identity.revoke_all_sessions.v1"):
    """End every session of the user that was opened in session epoch `epoch` or before."""

    epoch: int


class RecordFailedLogin(Struct, frozen=True, tag="identity.record_failed_login.v1"):
    """Keep that somebody gave a wrong password, and from where."""

    address: Text


UserCommand = RegisterUser | ChangePassword | RevokeAllSessions | RecordFailedLogin


class User(Struct, frozen=True):
    """`email_hash` is empty until the user exists. `epoch` counts mass endings of sessions."""

    email_hash: str = ""
    epoch: int = 0
    failed_logins: int = 0
    roles: list[Role] = []

    @property
    def decides(self) -> bool:
        """Whether the person may decide check-ins."""
        return not set(DECIDING).isdisjoint(self.roles)

    @property
    def exists(self) -> bool:
        return bool(self.email_hash)


def decide(command: UserCommand, state: User, context: Context) -> Sequence[UserEvent]:
    """Raises UserExists, InvalidCommand, NotFound, SessionsEnded."""
    if isinstance(command, RegisterUser):
        return _register(command, state)
    if not state.exists:
        raise NotFound("no such user")
    match command:
        case ChangePassword():
            if command.epoch != state.epoch:
                raise SessionsEnded("the password was changed or all sessions ended meanwhile")
            return [PasswordChanged(command.password_hash, state.epoch + 1)]
        case RevokeAllSessions():
            # A repeat names the epoch that it has already ended.
            if command.epoch < state.epoch:
                return []
            return [AllSessionsRevoked(state.epoch + 1)]
        case RecordFailedLogin():
            return [LoginFailed(command.address)]
    assert_never(command)


def _register(command: RegisterUser, state: User) -> Sequence[UserEvent]:
    if state.exists:
        if state.email_hash != command.email_hash:
            raise UserExists("this user has another e-mail address")
        return []
    if not command.roles:
        raise InvalidCommand("a user needs at least one role", field="roles")
    roles = sorted(set(command.roles))
    return [
        UserRegistered(
            email=command.email,
            email_hash=command.email_hash,
            name=command.name,
            roles=roles,
            password_hash=command.password_hash,
        )
    ]


def evolve(state: User, event: UserEvent) -> User:
    match event:
        case UserRegistered():
            return User(email_hash=event.email_hash, roles=event.roles)
        case PasswordChanged() | AllSessionsRevoked():
            return msgspec.structs.replace(state, epoch=event.epoch, failed_logins=0)
        case LoginFailed():
            return msgspec.structs.replace(state, failed_logins=state.failed_logins + 1)
    assert_never(event)


def _describe(command: UserCommand) -> Mapping[str, Any]:
    # Never a password's hash: the audit topic is public.
    match command:
        case RegisterUser():
            return {"email": command.email, "name": command.name, "roles": command.roles}
        case RecordFailedLogin():
            return {"address": command.address}
        case ChangePassword() | RevokeAllSessions():
            return {}
    assert_never(command)


DECIDER: Decider[UserCommand, User, UserEvent] = Decider(
    stream=STREAM,
    commands=members(UserCommand),
    events=members(UserEvent),
    version=2,
    initial=User(),
    decide=decide,
    evolve=evolve,
    describe=_describe,
)

"""An API key: issued with roles and scopes, changed, revoked for good.

The key itself is made and shown at the edge; here are only its first characters and its SHA-256.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import msgspec
from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import AlreadyDone, InvalidCommand, NotFound, Refusal
from schemas.identity.api_key import (
    ApiKeyEvent,
    ApiKeyExpirySet,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    ApiKeyRolesGranted,
)
from schemas.identity.roles import Role, Scope
from schemas.types import Micros, Sha256, Text

STREAM = "identity.api_key"


class ApiKeyExists(Refusal):
    """The id belongs to another key."""

    code = "api_key_exists"


class IssueApiKey(Struct, frozen=True, tag="identity.issue_api_key.v1"):
    """Make a key work. `expires_at` in microseconds UTC, None for never."""

    name: Text
    prefix: Text
    key_hash: Sha256
    roles: list[Role]
    scopes: list[Scope] = []
    expires_at: Micros | None = None


class ReviseApiKey(Struct, frozen=True, tag="identity.revise_api_key.v1"):
    """Change what is given and leave the rest; `never_expires` takes the expiry away."""

    name: Text | None = None
    roles: list[Role] | None = None
    scopes: list[Scope] | None = None
    expires_at: Micros | None = None
    never_expires: bool = False


class RevokeApiKey(Struct, frozen=True, tag="identity.revoke_api_key.v1"):
    """Stop the key for good."""


ApiKeyCommand = IssueApiKey | ReviseApiKey | RevokeApiKey


class ApiKey(Struct, frozen=True):
    """`key_hash` is empty until the key was issued."""

    key_hash: str = ""
    name: str = ""
    roles: tuple[Role, ...] = ()
    scopes: tuple[str, ...] = ()
    expires_at: int | None = None
    revoked: bool = False


class ApiKeyAnswer(Struct, frozen=True):
    """The key as it stands; `expires_at` in microseconds UTC."""

    key_id: str
    name: str
    roles: tuple[Role, ...]
    scopes: tuple[str, ...]
    expires_at: int | None
    revoked: bool


def decide(command: ApiKeyCommand, state: ApiKey, context: Context) -> Sequence[ApiKeyEvent]:
    """Raises ApiKeyExists, InvalidCommand, NotFound, AlreadyDone."""
    if isinstance(command, IssueApiKey):
        return _issue(command, state, context)
    if not state.key_hash:
        raise NotFound("no such API key")
    match command:
        case ReviseApiKey():
            return _revise(command, state, context)
        case RevokeApiKey():
            return [] if state.revoked else [ApiKeyRevoked()]
    assert_never(command)


def _issue(command: IssueApiKey, state: ApiKey, context: Context) -> Sequence[ApiKeyEvent]:
    if state.key_hash:
        if state.key_hash != command.key_hash:
            raise ApiKeyExists("this id belongs to another key")
        if state.revoked:
            raise AlreadyDone("this API key is revoked")
        return []
    _refuse_no_roles(command.roles)
    _refuse_past(command.expires_at, context)
    return [
        ApiKeyIssued(
            name=command.name,
            prefix=command.prefix,
            key_hash=command.key_hash,
            roles=sorted(set(command.roles)),
            scopes=sorted(set(command.scopes)),
            expires_at=command.expires_at,
        )
    ]


def _revise(command: ReviseApiKey, state: ApiKey, context: Context) -> Sequence[ApiKeyEvent]:
    if state.revoked:
        raise AlreadyDone("this API key is revoked")
    events: list[ApiKeyEvent] = []
    if command.name is not None and command.name != state.name:
        events.append(ApiKeyRenamed(command.name))
    if command.roles is not None:
        _refuse_no_roles(command.roles)
    roles = state.roles if command.roles is None else tuple(sorted(set(command.roles)))
    scopes = state.scopes if command.scopes is None else tuple(sorted(set(command.scopes)))
    if (roles, scopes) != (state.roles, state.scopes):
        events.append(ApiKeyRolesGranted(list(roles), list(scopes)))
    if command.never_expires:
        if command.expires_at is not None:
            raise InvalidCommand("give an expiry or none, not both", field="expires_at")
        if state.expires_at is not None:
            events.append(ApiKeyExpirySet(None))
    elif command.expires_at is not None and command.expires_at != state.expires_at:
        _refuse_past(command.expires_at, context)
        events.append(ApiKeyExpirySet(command.expires_at))
    return events


def _refuse_no_roles(roles: Sequence[Role]) -> None:
    if not roles:
        raise InvalidCommand("an API key needs at least one role", field="roles")


def _refuse_past(expires_at: int | None, context: Context) -> None:
    if expires_at is not None and expires_at <= context.now:
        raise InvalidCommand("the expiry must be in the future", field="expires_at")


def evolve(state: ApiKey, event: ApiKeyEvent) -> ApiKey:
    replace = msgspec.structs.replace
    match event:
        case ApiKeyIssued():
            return ApiKey(
                key_hash=event.key_hash,
                name=event.name,
                roles=tuple(event.roles),
                scopes=tuple(event.scopes),
                expires_at=event.expires_at,
            )
        case ApiKeyRenamed():
            return replace(state, name=event.name)
        case ApiKeyRolesGranted():
            return replace(state, roles=tuple(event.roles), scopes=tuple(event.scopes))
        case ApiKeyExpirySet():
            return replace(state, expires_at=event.expires_at)
        case ApiKeyRevoked():
            return replace(state, revoked=True)
    assert_never(event)


def answer(command: ApiKeyCommand, state: ApiKey, context: Context) -> ApiKeyAnswer:
    """How the key stands after the command; never its hash."""
    return ApiKeyAnswer(
        key_id=context.stream_id,
        name=state.name,
        roles=state.roles,
        scopes=state.scopes,
        expires_at=state.expires_at,
        revoked=state.revoked,
    )


def _describe(command: ApiKeyCommand) -> Mapping[str, Any]:
    match command:
        case IssueApiKey():
            return {
                "name": command.name,
                "prefix": command.prefix,
                "roles": command.roles,
                "scopes": command.scopes,
                "expires_at": command.expires_at,
            }
        case ReviseApiKey():
            return {
                "name": command.name,
                "roles": command.roles,
                "scopes": command.scopes,
                "expires_at": command.expires_at,
                "never_expires": command.never_expires,
            }
        case RevokeApiKey():
            return {}
    assert_never(command)


DECIDER: Decider[ApiKeyCommand, ApiKey, ApiKeyEvent] = Decider(
    stream=STREAM,
    commands=(IssueApiKey, ReviseApiKey, RevokeApiKey),
    events=(ApiKeyIssued, ApiKeyRenamed, ApiKeyRolesGranted, ApiKeyExpirySet, ApiKeyRevoked),
    initial=ApiKey(),
    decide=decide,
    evolve=evolve,
    answer=answer,
    describe=_describe,
)

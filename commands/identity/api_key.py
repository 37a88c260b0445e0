"""An API key: issued with roles and scopes, changed, rotated, revoked for good; when it was used.

The key itself is made and shown at the edge; here are only its first characters and its SHA-256.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, assert_never

import msgspec
from msgspec import Meta, Struct

from commands.decider import Context, Decider
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand, NotFound, Refusal
from schemas.identity.api_key import (
    ApiKeyEvent,
    ApiKeyExpirySet,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    ApiKeyRolesGranted,
    ApiKeyRotated,
    ApiKeyUsed,
)
from schemas.identity.roles import Role, Scope
from schemas.types import Micros, Sha256, Text
from schemas.unions import members

STREAM = "identity.api_key"

# A secret that works beside its successor for longer is one that nobody has replaced.
GRACE_SECONDS_MAX = 7 * 86_400
# Of a key in steady use there is an event each ten minutes, whatever its requests.
USE_MICROS = 600 * 1_000_000


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


class RotateApiKey(Struct, frozen=True, tag="identity.rotate_api_key.v1", kw_only=True):
    """Give the key another secret; the one before works for `grace_seconds` more, 0 for none."""

    prefix: Text
    key_hash: Sha256
    grace_seconds: Annotated[int, Meta(ge=0, le=GRACE_SECONDS_MAX)]


class RecordApiKeyUse(Struct, frozen=True, tag="identity.record_api_key_use.v1"):
    """An API process has seen the key used, last at this instant."""

    used_at: Micros


ApiKeyCommand = IssueApiKey | ReviseApiKey | RotateApiKey | RecordApiKeyUse | RevokeApiKey


class ApiKey(Struct, frozen=True):
    """`key_hash` is empty until the key was issued."""

    key_hash: str = ""
    name: str = ""
    roles: tuple[Role, ...] = ()
    scopes: tuple[str, ...] = ()
    expires_at: int | None = None
    revoked: bool = False
    prefix: str = ""
    previous_until: int | None = None
    used_at: int = 0


class ApiKeyAnswer(Struct, frozen=True):
    """The key as it stands; instants in microseconds UTC. previous_until: when the secret before
    the last rotation stops."""

    key_id: str
    name: str
    roles: tuple[Role, ...]
    scopes: tuple[str, ...]
    expires_at: int | None
    revoked: bool
    previous_until: int | None = None


def decide(command: ApiKeyCommand, state: ApiKey, context: Context) -> Sequence[ApiKeyEvent]:
    """Raises ApiKeyExists, InvalidCommand, NotFound, AlreadyDone, ActorForbidden."""
    if isinstance(command, IssueApiKey):
        return _issue(command, state, context)
    if not state.key_hash:
        raise NotFound("no such API key")
    match command:
        case ReviseApiKey():
            return _revise(command, state, context)
        case RotateApiKey():
            return _rotate(command, state, context)
        case RecordApiKeyUse():
            if context.actor.kind != "system":
                raise ActorForbidden("only the API tells when a key was used")
            known = state.revoked or command.used_at < state.used_at + USE_MICROS
            return [] if known else [ApiKeyUsed(command.used_at)]
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


def _rotate(command: RotateApiKey, state: ApiKey, context: Context) -> Sequence[ApiKeyEvent]:
    if state.key_hash == command.key_hash:
        return []
    if state.revoked:
        raise AlreadyDone("this API key is revoked")
    if state.expires_at is not None and state.expires_at <= context.now:
        raise AlreadyDone("this API key has expired")
    return [
        ApiKeyRotated(
            prefix=command.prefix,
            key_hash=command.key_hash,
            previous_prefix=state.prefix,
            previous_hash=state.key_hash,
            previous_until=context.now + command.grace_seconds * 1_000_000,
        )
    ]


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
                prefix=event.prefix,
            )
        case ApiKeyRenamed():
            return replace(state, name=event.name)
        case ApiKeyRolesGranted():
            return replace(state, roles=tuple(event.roles), scopes=tuple(event.scopes))
        case ApiKeyExpirySet():
            return replace(state, expires_at=event.expires_at)
        case ApiKeyRotated():
            return replace(
                state,
                prefix=event.prefix,
                key_hash=event.key_hash,
                previous_until=event.previous_until,
            )
        case ApiKeyUsed():
            return replace(state, used_at=event.used_at)
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
        previous_until=state.previous_until,
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
        case RotateApiKey():
            return {"prefix": command.prefix, "grace_seconds": command.grace_seconds}
        case RecordApiKeyUse():
            return {"used_at": command.used_at}
        case RevokeApiKey():
            return {}
    assert_never(command)


DECIDER: Decider[ApiKeyCommand, ApiKey, ApiKeyEvent] = Decider(
    stream=STREAM,
    commands=members(ApiKeyCommand),
    events=members(ApiKeyEvent),
    version=2,
    initial=ApiKey(),
    decide=decide,
    evolve=evolve,
    answer=answer,
    describe=_describe,
)

"""API keys: `/api/v1/api-keys`. The key itself is shown once, when it is made or rotated."""

from functools import partial
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from api.credentials import API_KEY_PREFIX, lookup_prefix
from api.cursors import newest_page
from api.problems import FHE, Problem, not_found
from api.roles import ADMINS
from api.routing import Call, Route, Who, answer_of
from commands.identity.api_key import (
    GRACE_SECONDS_MAX,
    ApiKeyAnswer,
    IssueApiKey,
    ReviseApiKey,
    RevokeApiKey,
    RotateApiKey,
)
from infra.ids import secret_hash
from projections.identity import api_keys
from schemas.identity.roles import Role, Scope
from schemas.instants import iso, iso_or_none, parse_iso
from schemas.types import Text

Name = Annotated[Text, Meta(min_length=1, max_length=200)]
Roles = Annotated[list[Role], Meta(min_length=1, max_length=5)]
Scopes = Annotated[list[Scope], Meta(max_length=50)]
Instant = Annotated[Text, Meta(max_length=40, description="ISO 8601, UTC unless it says another")]


class IssueBody(Struct):
    """A new key: what it is called, what it may do, and until when (for ever by default)."""

    name: Name
    roles: Roles
    scopes: Scopes = []
    expires_at: Instant | None = None


class ReviseBody(Struct):
    """What to change; `expires_at` null takes the expiry away."""

    name: Name | UnsetType = UNSET
    roles: Roles | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    expires_at: Instant | UnsetType | None = UNSET


class RotateBody(Struct):
    """How long the secret so far works beside the new one: a day, or what is given; 0 ends it."""

    grace_seconds: Annotated[int, Meta(ge=0, le=GRACE_SECONDS_MAX)] = 86_400


class KeysQuery(Struct):
    """Which page of the keys."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[Text, Meta(max_length=200)] = ""


class ApiKeyItem(Struct, frozen=True):
    """A key without the key itself; `prefix` are its first characters.

    last_used_at: up to ten minutes behind. previous_valid_until: when the secret before the last
    rotation stops, or has stopped; null when the key was never rotated.
    """

    id: str
    name: str
    prefix: str
    roles: list[str]
    scopes: list[str]
    created_at: str
    created_by: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    previous_valid_until: str | None


class IssuedApiKey(Struct, frozen=True):
    """A new key. `key` is shown here and never again."""

    id: str
    name: str
    key: str
    prefix: str
    roles: list[str]
    scopes: list[str]
    expires_at: str | None


class RotatedApiKey(IssuedApiKey, frozen=True):
    """The key with its new secret. `key` is shown here and never again."""

    previous_valid_until: str


class ApiKeyPage(Struct, frozen=True):
    """A page of keys, newest first, and where the next one begins."""

    data: list[ApiKeyItem]
    next_cursor: str | None
    has_more: bool


async def issue(call: Call[IssueBody, None]) -> IssuedApiKey:
    """Make a key."""
    # Both follow from the command's id: its repeat shows the same key without our having kept it.
    secret = call.services.signer.secret(API_KEY_PREFIX, call.command_id)
    prefix = lookup_prefix(secret)
    body = call.body
    command = IssueApiKey(
        name=body.name,
        prefix=prefix,
        key_hash=secret_hash(secret),
        roles=body.roles,
        scopes=body.scopes,
        expires_at=_micros(body.expires_at),
    )
    reply = await call.send("key_" + call.command_id.removeprefix("cmd_"), command)
    key = answer_of(reply, ApiKeyAnswer)
    call.headers["cache-control"] = "no-store"
    return IssuedApiKey(
        id=key.key_id,
        name=key.name,
        key=secret,
        prefix=prefix,
        roles=list(key.roles),
        scopes=list(key.scopes),
        expires_at=iso_or_none(key.expires_at),
    )


async def list_keys(call: Call[None, KeysQuery]) -> ApiKeyPage:
    """The tenant's keys, revoked ones too, newest first."""
    rows, cursor = await newest_page(call, api_keys.PAGE, "key_id")
    return ApiKeyPage([_item(row) for row in rows], cursor, cursor is not None)


async def revise(call: Call[ReviseBody, None]) -> ApiKeyItem:
    """Change a key's name, roles, scopes or expiry."""
    key_id = (await _row(call))["key_id"]
    body = call.body
    command = ReviseApiKey(
        name=None if body.name is UNSET else body.name,
        roles=None if body.roles is UNSET else body.roles,
        scopes=None if body.scopes is UNSET else body.scopes,
        expires_at=None if body.expires_at is UNSET else _micros(body.expires_at),
        never_expires=body.expires_at is None,
    )
    await call.send(key_id, command)
    return _item(await _row(call))


async def rotate(call: Call[RotateBody, None]) -> RotatedApiKey:
    """Give a key another secret; the same Idempotency-Key shows the same one."""
    key_id = (await _row(call))["key_id"]
    secret = call.services.signer.secret(API_KEY_PREFIX, call.command_id)
    command = RotateApiKey(
        prefix=lookup_prefix(secret),
        key_hash=secret_hash(secret),
        grace_seconds=call.body.grace_seconds,
    )
    key = answer_of(await call.send(key_id, command), ApiKeyAnswer)
    assert key.previous_until is not None, "a rotated key had a secret before"
    call.headers["cache-control"] = "no-store"
    return RotatedApiKey(
        id=key.key_id,
        name=key.name,
        key=secret,
        prefix=command.prefix,
        roles=list(key.roles),
        scopes=list(key.scopes),
        expires_at=iso_or_none(key.expires_at),
        previous_valid_until=iso(key.previous_until),
    )


async def revoke(call: Call[None, None]) -> None:
    """Stop a key for good."""
    await call.send((await _row(call))["key_id"], RevokeApiKey())


async def _row(call: Call[Any, Any]) -> dict[str, Any]:
    row = await call.services.reads.one(
        api_keys.OF_TENANT_BY_ID, call.tenant, call.path["api_key_id"]
    )
    if row is None:
        not_found("No such API key")
    return row


def _item(row: dict[str, Any]) -> ApiKeyItem:
    return ApiKeyItem(
        id=row["key_id"],
        name=row["name"],
        prefix=row["prefix"],
        roles=row["roles"],
        scopes=row["scopes"],
        created_at=iso(row["created_at"]),
        created_by=row["created_by"],
        expires_at=iso_or_none(row["expires_at"]),
        revoked_at=iso_or_none(row["revoked_at"]),
        last_used_at=iso_or_none(row["last_used_at"]),
        previous_valid_until=iso_or_none(row["previous_until"]),
    )


def _micros(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return max(0, parse_iso(text))
    except (ValueError, OverflowError):
        message = "Not an ISO 8601 instant"
        raise Problem(422, "validation_error", message, field="expires_at") from None


_PATH = "/api/v1/api-keys"
_route = partial(Route, dialect=FHE, who=Who.SESSION_OR_KEY, roles=ADMINS, tags=("auth",))

ROUTES = [
    _route(
        "POST",
        _PATH,
        issue,
        body=IssueBody,
        response=IssuedApiKey,
        status=201,
        summary="Issue an API key; the key is shown once",
        refusals=(400,),
        max_body=16 * 1024,
    ),
    _route(
        "GET",
        _PATH,
        list_keys,
        query=KeysQuery,
        response=ApiKeyPage,
        summary="List API keys",
        refusals=(400,),
    ),
    _route(
        "PATCH",
        f"{_PATH}/{{api_key_id}}",
        revise,
        body=ReviseBody,
        response=ApiKeyItem,
        summary="Change an API key",
        refusals=(400, 404, 409),
        max_body=16 * 1024,
    ),
    _route(
        "POST",
        f"{_PATH}/{{api_key_id}}/rotate",
        rotate,
        body=RotateBody,
        response=RotatedApiKey,
        summary="Give an API key another secret",
        description=(
            "The new secret is shown in this answer and never again. The one so far works for "
            "`grace_seconds` more; one that is older stops at once."
        ),
        refusals=(400, 404, 409),
        max_body=16 * 1024,
    ),
    _route(
        "DELETE",
        f"{_PATH}/{{api_key_id}}",
        revoke,
        status=204,
        summary="Revoke an API key",
        refusals=(404,),
    ),
]

"""The caller's account: `/api/v1/auth/me`, their sessions, their password."""

import ipaddress
from typing import Annotated, Any

from msgspec import Meta, Struct

from api.identity.answers import (
    CurrentUser,
    SessionClient,
    SessionItem,
    SessionList,
    Success,
)
from api.identity.declaring import AUTH, auth_route
from api.identity.guessing import guard_of
from api.identity.login import Password, wrong_password
from api.identity.passwords import MAX_CHARACTERS, MIN_CHARACTERS
from api.problems import Problem, not_found
from api.routing import Call
from commands.identity.session import RevokeSession
from commands.identity.user import ChangePassword
from infra.clock import iso
from projections.identity import sessions, users
from projections.tenancy import tenants
from schemas.types import Text


class SessionsQuery(Struct):
    """Which page of the sessions."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 50
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class PasswordBody(Struct):
    """The password so far, and the one from now on."""

    current_password: Password
    new_password: Annotated[Text, Meta(min_length=MIN_CHARACTERS, max_length=MAX_CHARACTERS)]


async def current_user(call: Call[None, None]) -> CurrentUser:
    """Who is logged in."""
    user = await _user(call)
    tenant = await call.services.reads.one(tenants.BY_ID, user["tenant"])
    return CurrentUser(
        user_id=user["user_id"],
        tenant_id=user["tenant"],
        tenant_name=tenant["name"] if tenant else "",
        email=user["email"],
        name=user["name"],
        roles=list(user["roles"]),
        session_id=call.principal.session_id or None,
        created_at=iso(user["created_at"]),
    )


async def list_sessions(call: Call[None, SessionsQuery]) -> SessionList:
    """The caller's sessions that go on, newest first."""
    reads, now = call.services.reads, call.services.clock.now()
    query, owner = call.query, (call.tenant, call.actor.id, now)
    count = await reads.one(sessions.COUNT_ACTIVE_OF_USER, *owner)
    rows = await reads.all(sessions.ACTIVE_OF_USER, *owner, query.limit, query.offset)
    return SessionList(
        sessions=[_item(row, call.principal.session_id) for row in rows],
        total=count["total"] if count else 0,
        limit=query.limit,
        offset=query.offset,
    )


async def revoke_session(call: Call[None, None]) -> Success:
    """End one of the caller's sessions."""
    row = await call.services.reads.one(
        sessions.OF_USER_BY_ID, call.tenant, call.actor.id, call.path["session_id"]
    )
    if row is None:
        not_found("No such session")
    await call.send(row["session_id"], RevokeSession("revoked"))
    return Success(True, "The session has ended")


async def change_password(call: Call[PasswordBody, None]) -> Success:
    """Replace the caller's password, which ends all their sessions."""
    guard, address = guard_of(call.services), call.address
    user = await _user(call)
    account = user["email_hash"]
    guard.check(account, address)
    if not await guard.passwords.verify(user["password_hash"], call.body.current_password):
        guard.failed(account, address, call.body.current_password)
        guard.report(user["tenant"], user["user_id"], address, call.request_id)
        raise wrong_password()
    guard.succeeded(account, address)
    fresh = await guard.passwords.hash(call.body.new_password)
    await call.send(user["user_id"], ChangePassword(fresh, user["epoch"]))
    return Success(True, "The password is changed; log in again")


async def _user(call: Call[Any, Any]) -> dict[str, Any]:
    user = await call.services.reads.one(users.BY_ID, call.actor.id)
    if user is None or user["tenant"] != call.tenant:
        raise Problem(404, "not_found", "No such user")
    return user


def _item(row: dict[str, Any], current: str) -> SessionItem:
    return SessionItem(
        id=row["session_id"],
        client=SessionClient(row["user_agent"] or None),
        ip_address_masked=masked(row["address"]),
        created_at=iso(row["opened_at"]),
        last_seen_at=iso(row["seen_at"]),
        expires_at=iso(row["expires_at"]),
        current=row["session_id"] == current,
    )


def masked(address: str) -> str | None:
    """A network address without what tells one machine from its neighbours (/24, /48)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    width = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network((parsed, width), strict=False))


ROUTES = [
    auth_route(
        "GET",
        f"{AUTH}/me",
        current_user,
        response=CurrentUser,
        summary="Get Current User Info",
        refusals=(404,),
    ),
    auth_route(
        "GET",
        f"{AUTH}/sessions",
        list_sessions,
        query=SessionsQuery,
        response=SessionList,
        summary="List User Sessions",
    ),
    auth_route(
        "DELETE",
        f"{AUTH}/sessions/{{session_id}}",
        revoke_session,
        response=Success,
        summary="Revoke User Session",
        refusals=(404,),
    ),
    auth_route(
        "POST",
        f"{AUTH}/password/change",
        change_password,
        body=PasswordBody,
        response=Success,
        summary="Change Password",
        refusals=(401, 403, 404, 429),
        max_body=16 * 1024,
    ),
]

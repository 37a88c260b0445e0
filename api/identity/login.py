"""Login, refresh and logout: `/api/v1/auth/token`, `/refresh`, `/logout`, `/logout/all`."""

from http.cookies import SimpleCookie
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, Struct

from api.decoding import body_decoder, invalid
from api.identity.answers import SessionTokens, Success
from api.identity.declaring import AUTH, auth_route
from api.identity.email import email_hash
from api.identity.guessing import guard_of
from api.identity.passwords import MAX_CHARACTERS
from api.identity.secrets import (
    cookie_hash,
    cookie_secret,
    read_refresh_token,
    refresh_token,
)
from api.problems import Problem
from api.routing import Answer, Call, Who, answer_of
from commands.identity.session import OpenSession, RefreshSession, RevokeSession, SessionAnswer
from commands.identity.user import RevokeAllSessions
from infra.clock import iso
from infra.ids import command_id
from projections.identity import email_owners, sessions, users
from schemas.envelope import Actor
from schemas.types import Text

COOKIE = "sessionid"
ACCESS_SECONDS = 15 * 60
_AGENT_MAX = 256

Password = Annotated[Text, Meta(min_length=1, max_length=MAX_CHARACTERS)]


class LoginBody(Struct):
    """Also taken as a form with `username` and `password` (OAuth 2.0's password grant).

    tenant_id: refuse the login unless the user is this tenant's.
    """

    email: Annotated[
        str, Meta(max_length=254, pattern=r"^\s*[^@\s\x00]{1,64}@[^@\s\x00]{1,189}\s*$")
    ]
    password: Password
    tenant_id: Annotated[Text, Meta(max_length=64)] | None = None


class RefreshBody(Struct):
    """The refresh token of the last login or refresh; it works once."""

    refresh_token: Annotated[Text, Meta(min_length=1, max_length=256)]


class LogoutBody(Struct):
    """Which session to end; the one that asks, when no refresh token is given."""

    refresh_token: Annotated[Text, Meta(max_length=256)] | None = None


async def log_in(call: Call[bytes, None]) -> Answer:
    """Open a session for an address and a password."""
    body = _login_body(call)
    services, address = call.services, call.address
    guard = guard_of(services)
    try:
        account = email_hash(body.email)
    except ValueError:
        raise Problem(422, "validation_error", "Not an e-mail address", field="email") from None
    guard.check(account, address)
    row = await services.reads.one(email_owners.USER_BY_EMAIL, account)
    kept = row["password_hash"] if row is not None else None
    right = await guard.passwords.verify(kept, body.password)
    if row is None or not right or body.tenant_id not in (None, row["tenant"]):
        guard.failed(account, address, body.password)
        if row is not None:
            guard.report(row["tenant"], row["user_id"], address, call.request_id)
        raise wrong_password()
    guard.succeeded(account, address)
    session_id = _session_id(call, row)
    command = OpenSession(
        row["user_id"],
        row["epoch"],
        cookie_hash(services.signer, session_id),
        address=address,
        user_agent=_user_agent(call),
    )
    actor = Actor("user", row["user_id"], row["name"])
    try:
        reply = await call.send(session_id, command, tenant=row["tenant"], actor=actor)
    except Problem as problem:
        if problem.code == "sessions_ended":
            raise wrong_password() from problem
        raise
    return _tokens(call, answer_of(reply, SessionAnswer), row)


async def refresh(call: Call[RefreshBody, None]) -> Answer:
    """Use a refresh token up for new tokens."""
    services = call.services
    read = read_refresh_token(services.signer, call.body.refresh_token)
    session = None if read is None else await services.reads.one(sessions.BY_ID, read[0])
    if read is None or session is None:
        raise _over()
    user = await services.reads.one(users.BY_ID, session["user_id"])
    if user is None:
        raise _over()
    command = RefreshSession(user["user_id"], read[1])
    actor = Actor("user", user["user_id"], user["name"])
    try:
        reply = await call.send(read[0], command, tenant=session["tenant"], actor=actor)
    except Problem as problem:
        if problem.status in (403, 404):
            raise _over() from problem
        raise
    answer = answer_of(reply, SessionAnswer)
    if answer.ended:
        raise _over()
    return _tokens(call, answer, user)


async def log_out(call: Call[LogoutBody, None]) -> Answer:
    """End one session of the caller's."""
    session_id = call.principal.session_id
    token = call.body.refresh_token
    if token:
        read = read_refresh_token(call.services.signer, token)
        row = None
        if read is not None:
            row = await call.services.reads.one(
                sessions.OF_USER_BY_ID, call.tenant, call.actor.id, read[0]
            )
        if row is None:
            raise Problem(422, "validation_error", "Not a token of yours", field="refresh_token")
        session_id = row["session_id"]
    if not session_id:
        raise Problem(
            422,
            "validation_error",
            "This token is of another issuer: log out there, or give a refresh token of ours",
            field="refresh_token",
        )
    await call.send(session_id, RevokeSession("logout"))
    return Answer(Success(True, "Logged out"), headers={"set-cookie": _cookie(call, "", seconds=0)})


async def log_out_everywhere(call: Call[None, None]) -> Answer:
    """End every session of the caller's."""
    user = await call.services.reads.one(users.BY_ID, call.actor.id)
    if user is None:
        raise Problem(404, "not_found", "No such user")
    await call.send(call.actor.id, RevokeAllSessions(user["epoch"]))
    return Answer(
        Success(True, "Logged out everywhere"),
        headers={"set-cookie": _cookie(call, "", seconds=0)},
    )


def _session_id(call: Call[Any, Any], user: dict[str, Any]) -> str:
    """A repeat with the same Idempotency-Key opens no other session of this user.

    Nor may it name another user's: nothing but the client chose the key, and a session's secrets
    follow from its id.
    """
    own = call.command_id
    if call.fingerprint:
        own = command_id(user["tenant"], call.command_id, scope=f"login:{user['user_id']}")
    return "ses_" + own.removeprefix("cmd_")


_json = body_decoder(LoginBody, malformed_status=422, invalid_status=422)


def _login_body(call: Call[bytes, None]) -> LoginBody:
    kind = call.raw.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        body = _json(call.body)
        assert isinstance(body, LoginBody)
        return body
    try:
        form = parse_qs(call.body.decode(), keep_blank_values=True, max_num_fields=20)
        fields = {name: values[-1] for name, values in form.items()}
    except ValueError:
        raise Problem(422, "validation_error", "The body is not a form") from None
    if "username" in fields:
        fields["email"] = fields["username"]
    try:
        return msgspec.convert(fields, LoginBody)
    except msgspec.ValidationError as error:
        raise invalid(error, 422, "body") from None


def _tokens(call: Call[Any, None], session: SessionAnswer, user: dict[str, Any]) -> Answer:
    services = call.services
    now = services.clock.now()
    left = max(0, session.expires_at - now) // 1_000_000
    seconds = min(ACCESS_SECONDS, left)
    access = services.tokens.access(
        user_id=session.user_id,
        session_id=session.session_id,
        tenant=user["tenant"],
        seconds=seconds,
    )
    data = SessionTokens(
        access_token=access,
        refresh_token=refresh_token(services.signer, session.session_id, session.generation),
        token_type="bearer",
        expires_in=seconds,
        expires_at=iso(now + seconds * 1_000_000),
        refresh_expires_at=iso(session.expires_at),
        session_id=session.session_id,
        user_id=session.user_id,
        tenant_id=user["tenant"],
        email=user["email"],
        roles=list(user["roles"]),
    )
    cookie = _cookie(call, cookie_secret(services.signer, session.session_id), seconds=left)
    return Answer(data, headers={"set-cookie": cookie, "cache-control": "no-store"})


def _user_agent(call: Call[Any, Any]) -> str:
    text: str = call.raw.headers.get("user-agent", "")
    return "".join(letter for letter in text[:_AGENT_MAX] if letter.isprintable())


def _cookie(call: Call[Any, Any], value: str, *, seconds: int) -> str:
    jar: SimpleCookie = SimpleCookie()
    jar[COOKIE] = value
    morsel = jar[COOKIE]
    morsel["path"], morsel["max-age"] = "/", seconds
    morsel["httponly"], morsel["samesite"] = True, "Lax"
    # Behind a proxy that ends TLS the request itself looks like plain http.
    public = call.services.settings.public_url
    if call.raw.url.scheme == "https" or public.startswith("https:"):
        morsel["secure"] = True
    return morsel.OutputString()


def wrong_password() -> Problem:
    """The 401 of a login; it never says which part was wrong."""
    return Problem(
        401,
        "unauthorized",
        "Incorrect e-mail address or password",
        headers={"www-authenticate": 'Bearer realm="weir"'},
    )


def _over() -> Problem:
    return Problem(
        401,
        "unauthorized",
        "The refresh token is not valid any more; log in again",
        headers={"www-authenticate": 'Bearer realm="weir"'},
    )


ROUTES = [
    auth_route(
        "POST",
        f"{AUTH}/token",
        log_in,
        who=Who.PUBLIC,
        body=LoginBody,
        raw_body=True,
        response=SessionTokens,
        summary="Login For Access Token",
        refusals=(401, 429),
        max_body=16 * 1024,
    ),
    auth_route(
        "POST",
        f"{AUTH}/refresh",
        refresh,
        who=Who.PUBLIC,
        body=RefreshBody,
        response=SessionTokens,
        summary="Refresh Access Token",
        refusals=(401,),
        max_body=16 * 1024,
    ),
    auth_route(
        "POST",
        f"{AUTH}/logout",
        log_out,
        body=LogoutBody,
        response=Success,
        summary="Logout Session",
        refusals=(404,),
        max_body=16 * 1024,
    ),
    auth_route(
        "POST",
        f"{AUTH}/logout/all",
        log_out_everywhere,
        response=Success,
        summary="Logout All Sessions",
        refusals=(404,),
    ),
]

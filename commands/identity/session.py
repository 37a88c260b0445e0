"""A login session: opened after a password was verified, refreshed by rotating tokens, ended.

A refresh token names its session and a generation and carries a MAC, which the edge verifies; so
whoever presents generation g did hold that token. Only the newest generation refreshes. An older
one is the sign of a theft (RFC 9700, section 4.14.2): the session ends, for both holders.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

import msgspec
from msgspec import Struct

from commands.decider import ClearTimer, Context, Decider, Ref, SetTimer
from commands.identity import user as users
from commands.refusals import NotFound, Refusal
from schemas.identity.session import (
    SessionEvent,
    SessionExpired,
    SessionOpened,
    SessionRefreshed,
    SessionRevoked,
)
from schemas.types import Micros, Sha256, Text
from schemas.unions import members

STREAM = "identity.session"
DAY_MICROS = 86_400 * 1_000_000
IDLE_MICROS = 14 * DAY_MICROS  # without a refresh
LIFETIME_MICROS = 90 * DAY_MICROS  # however often it is refreshed
_TIMER = "expiry"

Ended = Literal["", "expired", "logout", "revoked", "refresh_reused", "sessions_ended"]


class SessionExists(Refusal):
    """The id belongs to a session of another user."""

    code = "session_exists"


class SessionOver(Refusal):
    """The session has ended: revoked, logged out or expired."""

    code = "session_over"
    kind = "forbidden"


class OpenSession(Struct, frozen=True, tag="identity.open_session.v1"):
    """Begin a session for a user whose password was verified in session epoch `epoch`."""

    user_id: Text
    epoch: int
    cookie_hash: Sha256
    address: Text = ""
    user_agent: Text = ""


class RefreshSession(Struct, frozen=True, tag="identity.refresh_session.v1"):
    """Use up the refresh token of a generation. `user_id` is the session's user."""

    user_id: Text
    generation: int


class RevokeSession(Struct, frozen=True, tag="identity.revoke_session.v1"):
    """End the session: the user logged out of it, or revoked it from elsewhere."""

    reason: Literal["logout", "revoked"]


class ExpireSession(Struct, frozen=True, tag="identity.expire_session.v1"):
    """Sent by the scheduler when the session's time is over."""

    due_at: Micros


SessionCommand = OpenSession | RefreshSession | RevokeSession | ExpireSession


class Session(Struct, frozen=True):
    """`user_id` is empty until the session was opened. Instants in microseconds UTC."""

    user_id: str = ""
    epoch: int = 0
    generation: int = 0
    opened_at: int = 0
    expires_at: int = 0
    ended: Ended = ""


class SessionAnswer(Struct, frozen=True):
    """What the edge is told: whether the session goes on, and until when."""

    session_id: str
    user_id: str
    generation: int
    expires_at: int
    ended: str


def loads(command: SessionCommand, stream_id: str) -> Sequence[Ref]:
    """The user, whose epoch says whether sessions of that time still count."""
    if isinstance(command, OpenSession | RefreshSession):
        return [Ref(users.STREAM, command.user_id)]
    return []


def decide(command: SessionCommand, state: Session, context: Context) -> Sequence[SessionEvent]:
    """Raises NotFound, SessionExists, SessionOver, users.SessionsEnded."""
    if isinstance(command, OpenSession):
        return _open(command, state, context)
    if not state.user_id:
        raise NotFound("no such session")
    match command:
        case RefreshSession():
            return _refresh(command, state, context)
        case RevokeSession():
            return [] if state.ended else [SessionRevoked(command.reason)]
        case ExpireSession():
            if state.ended or state.expires_at != command.due_at:
                return []
            return [SessionExpired()]
    assert_never(command)


def _open(command: OpenSession, state: Session, context: Context) -> Sequence[SessionEvent]:
    if state.user_id:
        if state.user_id != command.user_id:
            raise SessionExists("this session is another user's")
        return []
    user: users.User = context.state(users.STREAM, command.user_id)
    if not user.exists:
        raise NotFound("no such user")
    if user.epoch != command.epoch:
        raise users.SessionsEnded("the password was changed or all sessions ended meanwhile")
    return [
        SessionOpened(
            user_id=command.user_id,
            epoch=command.epoch,
            opened_at=context.now,
            expires_at=context.now + IDLE_MICROS,
            cookie_hash=command.cookie_hash,
            address=command.address,
            user_agent=command.user_agent,
        )
    ]


def _refresh(command: RefreshSession, state: Session, context: Context) -> Sequence[SessionEvent]:
    if state.user_id != command.user_id or command.generation > state.generation:
        raise NotFound("no such session")
    if state.ended:
        raise SessionOver("this session has ended")
    if context.now >= state.expires_at:
        return [SessionExpired()]
    user: users.User = context.state(users.STREAM, command.user_id)
    if user.epoch != state.epoch:
        return [SessionRevoked("sessions_ended")]
    if command.generation < state.generation:
        return [SessionRevoked("refresh_reused")]
    expires_at = min(context.now + IDLE_MICROS, state.opened_at + LIFETIME_MICROS)
    return [SessionRefreshed(state.generation + 1, expires_at)]


def evolve(state: Session, event: SessionEvent) -> Session:
    match event:
        case SessionOpened():
            return Session(
                user_id=event.user_id,
                epoch=event.epoch,
                opened_at=event.opened_at,
                expires_at=event.expires_at,
            )
        case SessionRefreshed():
            return msgspec.structs.replace(
                state, generation=event.generation, expires_at=event.expires_at
            )
        case SessionRevoked():
            return msgspec.structs.replace(state, ended=event.reason)
        case SessionExpired():
            return msgspec.structs.replace(state, ended="expired")
    assert_never(event)


def timers(event: SessionEvent, stream_id: str) -> Sequence[SetTimer | ClearTimer]:
    """A session ends by itself; each refresh puts that off."""
    if isinstance(event, SessionOpened | SessionRefreshed):
        return [SetTimer(_TIMER, event.expires_at, ExpireSession(event.expires_at))]
    return [ClearTimer(_TIMER)]


def answer(command: SessionCommand, state: Session, context: Context) -> SessionAnswer:
    """How the session stands after the command."""
    return SessionAnswer(
        session_id=context.stream_id,
        user_id=state.user_id,
        generation=state.generation,
        expires_at=state.expires_at,
        ended=state.ended,
    )


def _describe(command: SessionCommand) -> Mapping[str, Any]:
    match command:
        case OpenSession():
            return {
                "user_id": command.user_id,
                "address": command.address,
                "user_agent": command.user_agent,
            }
        case RefreshSession():
            return {"user_id": command.user_id, "generation": command.generation}
        case RevokeSession():
            return {"reason": command.reason}
        case ExpireSession():
            return {}
    assert_never(command)


DECIDER: Decider[SessionCommand, Session, SessionEvent] = Decider(
    stream=STREAM,
    commands=members(SessionCommand),
    events=members(SessionEvent),
    initial=Session(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    timers=timers,
    answer=answer,
    describe=_describe,
)

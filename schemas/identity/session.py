"""Events of a login session, stream `identity.session/<ses_>` of the user's tenant."""

from typing import Literal

from msgspec import Struct

from schemas.types import Micros, Sha256, Text

RevokeReason = Literal["logout", "revoked", "refresh_reused", "sessions_ended"]


class SessionOpened(Struct, frozen=True, tag="identity.session_opened.v1"):
    """A user logged in. `epoch` is the user's session epoch then; another epoch ends the session.

    cookie_hash: SHA-256 of the `sessionid` cookie. address and user_agent are the sender's.
    """

    user_id: Text
    epoch: int
    opened_at: Micros
    expires_at: Micros
    cookie_hash: Sha256
    address: Text = ""
    user_agent: Text = ""


class SessionRefreshed(Struct, frozen=True, tag="identity.session_refreshed.v1"):
    """The refresh token of the generation before was used up; `generation` counts now."""

    generation: int
    expires_at: Micros


class SessionRevoked(Struct, frozen=True, tag="identity.session_revoked.v1"):
    """The session has ended. `refresh_reused`: a used refresh token came back, a sign of theft."""

    reason: RevokeReason


class SessionExpired(Struct, frozen=True, tag="identity.session_expired.v1"):
    """The session has ended because its time was over."""


SessionEvent = SessionOpened | SessionRefreshed | SessionRevoked | SessionExpired

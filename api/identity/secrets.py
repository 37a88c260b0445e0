"""The secrets of a session: its cookie and its refresh tokens, all derived, none stored.

A refresh token is `wrt_<session>.<generation>.<MAC>`: whoever presents it held it, so the decider
need only compare generations. The cookie is known to the read models by its SHA-256.
"""

import hmac
import re

from infra.ids import Signer, secret_hash

_TOKEN = re.compile(r"^wrt_([0-9a-z]{26})\.(0|[1-9][0-9]{0,17})\.([0-9a-z]{52})$")


def cookie_secret(signer: Signer, session_id: str) -> str:
    """The value of the `sessionid` cookie."""
    return signer.secret("wss_", session_id)


def cookie_hash(signer: Signer, session_id: str) -> str:
    """What the log may know of the cookie."""
    return secret_hash(cookie_secret(signer, session_id))


def refresh_token(signer: Signer, session_id: str, generation: int) -> str:
    """The token that refreshes the session once, from this generation on."""
    place = f"wrt_{session_id.removeprefix('ses_')}.{generation}."
    return signer.secret(place, session_id)


def read_refresh_token(signer: Signer, token: str) -> tuple[str, int] | None:
    """The session id and generation of a token that this installation made; None for any other."""
    match = _TOKEN.match(token)
    if match is None:
        return None
    session_id, generation = f"ses_{match[1]}", int(match[2])
    expected = refresh_token(signer, session_id, generation)
    if not hmac.compare_digest(expected.encode(), token.encode()):
        return None
    return session_id, generation

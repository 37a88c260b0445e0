"""Tokens of other issuers: those whose key sets are configured, and one HS256 secret (Supabase).

A foreign token is good when its signature, `exp` (and `nbf`, `aud`) are, and it names an e-mail
address that its issuer does not call unverified; who that is with us is looked up by the address.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, OctKey
from joserfc.util import urlsafe_b64decode

from api.limits import Monotonic
from api.tokens import ISSUER, BadToken
from infra.clock import Clock
from infra.config import Settings

logger = logging.getLogger(__name__)

# Per kind of key, so that a public key is never taken for an HMAC secret.
_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("Ed25519",),
}
_REFRESH_SECONDS = 600.0
_REFETCH_SECONDS = 30.0  # at the soonest, for a key id that we don't know
_FETCH_TIMEOUT = 5.0
_LEEWAY = 30  # seconds that a foreign clock may be off


class ForeignTokens:
    """Verifies tokens of the issuers that the settings name."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        client: httpx.AsyncClient | None = None,
        now: Monotonic = time.monotonic,
    ) -> None:
        self._clock, self._now = clock, now
        self._audience = settings.jwt_audience
        secret = settings.jwt_hs256_secret
        self._secret = OctKey.import_key(secret) if secret else None
        self._sets = [_KeySet(url, client, now) for url in settings.jwks_urls]

    def may_know(self, token: str) -> bool:
        """Whether the token is another issuer's, and we have any configured."""
        if self._secret is None and not self._sets:
            return False
        return _part(token, 1).get("iss") != ISSUER

    async def verify(self, token: str) -> tuple[str, int]:
        """The e-mail address and the expiry (microseconds) of a good token. Raises BadToken."""
        header = _part(token, 0)
        algorithm = header.get("alg")
        if algorithm == "HS256":
            keys: Sequence[Key] = [self._secret] if self._secret is not None else []
            claims = _decode(token, keys, ("HS256",))
        else:
            kid = header.get("kid")
            claims = None
            for key_set in self._sets:
                for key in await key_set.keys(kid if isinstance(kid, str) else None):
                    allowed = _ALGORITHMS.get(key.key_type, ())
                    if algorithm in allowed:
                        claims = claims or _decode(token, [key], (algorithm,))
        if claims is None:
            raise BadToken("no configured issuer signed the token")
        return self._checked(claims)

    def _checked(self, claims: dict[str, Any]) -> tuple[str, int]:
        now = self._clock.now() // 1_000_000
        exp, nbf = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(exp, int) or not isinstance(nbf, int | float):
            raise BadToken("the token has no expiry")
        if exp <= now or nbf > now + _LEEWAY:
            raise BadToken("the token has expired or is not valid yet")
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if self._audience and self._audience not in named:
            raise BadToken("the token is for someone else")
        email = claims.get("email")
        if not isinstance(email, str) or not email or claims.get("email_verified") is False:
            raise BadToken("the token names no verified address")
        return email.strip().lower(), exp * 1_000_000


class _KeySet:
    """One key set, fetched when needed and kept for ten minutes."""

    def __init__(self, url: str, client: httpx.AsyncClient | None, now: Monotonic) -> None:
        self._url, self._client, self._now = url, client, now
        self._keys: list[Key] = []
        self._at = -_REFRESH_SECONDS
        self._lock = asyncio.Lock()

    async def keys(self, kid: str | None) -> list[Key]:
        """The keys that a token with this key id may be signed with."""
        age = self._now() - self._at
        unknown = kid is not None and all(key.kid != kid for key in self._keys)
        if age >= _REFRESH_SECONDS or (unknown and age >= _REFETCH_SECONDS):
            async with self._lock:
                if self._now() - self._at >= min(age, _REFETCH_SECONDS):
                    await self._fetch()
        return [key for key in self._keys if kid is None or key.kid == kid]

    async def _fetch(self) -> None:
        self._at = self._now()
        try:
            client = self._client or httpx.AsyncClient()
            try:
                response = await client.get(self._url, timeout=_FETCH_TIMEOUT)
            finally:
                if self._client is None:
                    await client.aclose()
            response.raise_for_status()
            self._keys = list(KeySet.import_key_set(response.json()).keys)
        except (httpx.HTTPError, JoseError, ValueError, KeyError, TypeError) as error:
            # The keys that we have stay good; the next token asks again.
            logger.warning("key set not fetched", extra={"url": self._url, "error": repr(error)})


def _part(token: str, index: int) -> dict[str, Any]:
    """A part of a token, unverified: good for choosing a key, never for trusting."""
    try:
        found = msgspec.json.decode(urlsafe_b64decode(token.split(".")[index].encode()))
    except (ValueError, IndexError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _decode(token: str, keys: Sequence[Key], algorithms: tuple[str, ...]) -> dict[str, Any] | None:
    for key in keys:
        try:
            return dict(jwt.decode(token, key, algorithms=list(algorithms)).claims)
        except (JoseError, ValueError):
            continue
    return None

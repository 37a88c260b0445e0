"""Access tokens of our own: JWTs signed with Ed25519, the key derived from the master secret.

Anyone can check them with `/.well-known/jwks.json`; only processes that know the master secret can
make them. What a token allows is not in it: roles are read from the user when it is used.
"""

import os
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from msgspec import Struct

from infra.clock import Clock
from infra.ids import Signer

ISSUER = "weir"
ALGORITHM = "Ed25519"
ACCESS_SECONDS = 3600


class BadToken(Exception):
    """A token that is not (or no longer) good; the message says why, without the token."""


class Claims(Struct, frozen=True, kw_only=True):
    """What a token of ours says. exp and iat are seconds since 1970; typ is what it is good for."""

    iss: str
    sub: str
    exp: int
    iat: int
    jti: str
    typ: str = "access"
    sid: str = ""
    ten: str = ""


class TokenIssuer:
    """Makes and checks our tokens."""

    def __init__(self, signer: Signer, clock: Clock) -> None:
        private = Ed25519PrivateKey.from_private_bytes(signer.jwt_key)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key = OKPKey.import_key(pem)
        self._kid = key.thumbprint()
        self._key = OKPKey.import_key(pem, {"kid": self._kid, "use": "sig", "alg": ALGORITHM})
        self._clock = clock

    def access(
        self, *, user_id: str, session_id: str, tenant: str, seconds: int = ACCESS_SECONDS
    ) -> str:
        """A bearer token for a session, good for so many seconds or until it is revoked."""
        return self.issue(sub=user_id, sid=session_id, ten=tenant, seconds=seconds)

    def issue(self, *, sub: str, seconds: int, jti: str = "", **claims: str) -> str:
        """Any token of ours: `typ`, `sid` and `ten` are what `Claims` says of them."""
        now = self._clock.now() // 1_000_000
        body: dict[str, Any] = {
            "iss": ISSUER,
            "sub": sub,
            "iat": now,
            "exp": now + seconds,
            "jti": jti or os.urandom(12).hex(),
            **claims,
        }
        header = {"alg": ALGORITHM, "kid": self._kid}
        return jwt.encode(header, body, self._key, algorithms=[ALGORITHM])

    def verify(self, token: str, typ: str = "access") -> Claims:
        """The claims of a good token of this type. Raises BadToken."""
        try:
            decoded = jwt.decode(token, self._key, algorithms=[ALGORITHM])
            claims = msgspec.convert(decoded.claims, Claims)
        except (JoseError, ValueError, msgspec.ValidationError) as error:
            raise BadToken("the token is not one of ours") from error
        if claims.iss != ISSUER or claims.typ != typ:
            raise BadToken("the token is for something else")
        if claims.exp <= self._clock.now() // 1_000_000:
            raise BadToken("the token has expired")
        return claims

    def jwks(self) -> dict[str, Any]:
        """The public key set."""
        return {"keys": [self._key.as_dict(private=False)]}

"""Other origins: what a browser is told (CORS), and what a cookie alone may not do (CSRF)."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from api.problems import Problem

RawHeaders = list[tuple[bytes, bytes]]

_EXPOSED = (
    b"X-Request-Id, X-Log-Position, Idempotency-Replayed, RateLimit-Limit, RateLimit-Remaining, "
    b"RateLimit-Reset, Retry-After"
)
_PREFLIGHT_SECONDS = b"600"


class Cors:
    """allowed: the origins whose pages may call us with a key or a token, `*` for any.

    Cookies never count there: no answer allows credentials. own: the origin we are reached at.
    """

    def __init__(self, allowed: Sequence[str], own: str) -> None:
        self._any = "*" in allowed
        self._allowed = {origin.rstrip("/").encode() for origin in allowed}
        self._own = _origin(own)

    def headers(self, origin: bytes) -> RawHeaders:
        """The headers of any response to a request from `origin`."""
        if self._any:
            return [
                (b"access-control-allow-origin", b"*"),
                (b"access-control-expose-headers", _EXPOSED),
            ]
        vary = (b"vary", b"Origin")
        if origin not in self._allowed:
            return [vary]
        return [
            vary,
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
        ]

    def preflight(self, headers: Mapping[bytes, bytes], methods: Sequence[str]) -> RawHeaders:
        """The headers of the answer to OPTIONS."""
        allow = ", ".join(methods).encode()
        found: RawHeaders = [(b"allow", allow)]
        origin = headers.get(b"origin")
        if origin is not None and (self._any or origin in self._allowed):
            found += [
                (b"access-control-allow-methods", allow),
                (
                    b"access-control-allow-headers",
                    headers.get(b"access-control-request-headers", b"*"),
                ),
                (b"access-control-max-age", _PREFLIGHT_SECONDS),
            ]
        return found

    def check_same_site(self, headers: Mapping[bytes, bytes]) -> None:
        """For a write whose credential is a cookie: raise Problem (403) unless the page is ours.

        Proof is an Origin of our own, or a header that a foreign page can't set without asking
        (`X-Requested-With`, `X-CSRF-Token`).
        """
        origin = headers.get(b"origin")
        if origin is not None and origin != b"null":
            text = origin.decode("latin-1").lower()
            host = headers.get(b"host", b"").decode("latin-1").lower()
            if text == self._own or urlsplit(text).netloc == host:
                return
            raise _forged()
        if b"x-requested-with" in headers or b"x-csrf-token" in headers:
            return
        raise _forged()


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _forged() -> Problem:
    return Problem(
        403,
        "csrf_failed",
        "A request that writes with the session cookie needs a header X-Requested-With, or an "
        "Origin of this server",
    )

"""Idempotency-Key: the same key, the same command, the same answer.

The decider does the deduplication (it is the only writer); here the key becomes a command id and
the request a fingerprint.
"""

import hashlib
import re

from api.credentials import Principal
from api.problems import Dialect, Problem
from infra.ids import command_id

HEADER = b"idempotency-key"
_KEY = re.compile(rb"^[\x20-\x7e]{1,255}$")
# Without a credential nothing but the key tells two clients apart, and the answer may hold a
# secret: it has to be one that nobody else would come up with.
_MIN_ANONYMOUS = 32


def command_of(key: bytes, principal: Principal, dialect: Dialect) -> str:
    """The command id that belongs to a client's key. Raises Problem for a key that is none."""
    if not _KEY.match(key):
        raise _bad("Give an Idempotency-Key of 1 to 255 printable ASCII characters", dialect)
    if principal.actor.kind == "anonymous" and len(key) < _MIN_ANONYMOUS:
        raise _bad(
            f"Give an Idempotency-Key of at least {_MIN_ANONYMOUS} characters here (a UUID will "
            "do): without a credential only the key says that the request is yours",
            dialect,
        )
    actor = principal.actor
    return command_id(principal.tenant, key.decode(), scope=f"{actor.kind}:{actor.id}")


def _bad(message: str, dialect: Dialect) -> Problem:
    return Problem(
        dialect.malformed,
        "validation_error",
        message,
        field="Idempotency-Key",
        where="header",
    )


def fingerprint(method: str, path: bytes, query: bytes, body: bytes) -> str:
    """SHA-256 in hex of what must be equal when a key is used again."""
    digest = hashlib.sha256(method.encode())
    for part in (path.rstrip(b"/"), query, body):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()

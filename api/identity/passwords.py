"""Passwords: argon2id in threads, a few at a time, with the same work whether or not a user exists.

argon2-cffi's defaults are the low-memory profile of RFC 9106: 64 MiB and 3 passes, about 0.1 s.
"""

import asyncio
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from api.problems import Problem

T = TypeVar("T")

MIN_CHARACTERS = 12
MAX_CHARACTERS = 1024

_THREADS = 2  # at once, 64 MiB each
_WAITING_MAX = 64  # a few seconds of work; beyond that it is kinder to say 503 than to queue


class Passwords:
    """Hashes and verifies. One per process, since its bounds are the process's."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        self._waiting = 0
        self._nobodys = nobodys_hash(self._hasher)

    async def hash(self, password: str) -> str:
        """The argon2id string to keep. Raises Problem (503) when too many are waiting."""
        return await self._in_thread(lambda: self._hasher.hash(_prepared(password)))

    async def verify(self, kept: str | None, password: str) -> bool:
        """Whether the password is the one kept; None (nobody's) takes as long and is False.

        Raises Problem (503) when too many are waiting.
        """
        return await self._in_thread(lambda: self._matches(kept, password))

    def _matches(self, kept: str | None, password: str) -> bool:
        try:
            self._hasher.verify(kept or self._nobodys, _prepared(password))
        except (VerificationError, InvalidHashError):
            return False
        return kept is not None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._waiting >= _WAITING_MAX:
            raise Problem(
                503,
                "busy",
                "Too many logins at once; try again",
                headers={"retry-after": "2"},
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def nobodys_hash(hasher: PasswordHasher) -> str:
    """A well-formed hash of no password, which costs as much to verify as a real one."""
    salt = b64encode(bytes(hasher.salt_len)).rstrip(b"=").decode()
    digest = b64encode(bytes(hasher.hash_len)).rstrip(b"=").decode()
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


def _prepared(password: str) -> bytes:
    # The same password typed on two keyboards may come in two Unicode spellings (NIST SP 800-63B).
    return unicodedata.normalize("NFKC", password).encode()

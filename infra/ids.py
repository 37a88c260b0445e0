"""Ids, run ids that certify themselves, and secrets derived from the command that makes them.

Ids are `prefix_` + 26 characters of Crockford base 32 over a UUIDv7 (RFC 9562, section 5.7): they
sort by time and are opaque. A run id carries a truncated HMAC-SHA256 bound to the tenant, so that
telemetry for a run that was never issued, or is another tenant's, is refused without a look-up.
"""

import hashlib
import hmac
import os
import threading
import time
import uuid

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_lock = threading.Lock()
_last = 0
_NAMESPACE = uuid.UUID("6f1a4c52-3a57-5f0e-9c1d-77656972d0d0")
_RUN_MAC_BYTES = 10
_RUN_ID_LENGTH = 46
_VERSION_7 = "ef"
"""The digits of an id's bits 48 to 52 that say version 7: the time ends at a digit's border."""
_PROVEN_MAX = 50_000


_random: list[int] = []  # 62 bits each, from the system's generator, hundreds in one call


def _uuid7() -> int:
    """A UUIDv7 as a number, strictly increasing within this process."""
    global _last  # noqa: PLW0603  # one counter per process is the point
    with _lock:
        # 48 bits of milliseconds and 12 of sub-millisecond counter, monotonic.
        stamp = max((time.time_ns() << 12) // 1_000_000, _last + 1)
        _last = stamp
        if not _random:
            words = memoryview(os.urandom(4096)).cast("Q")
            _random.extend(word & 0x3FFF_FFFF_FFFF_FFFF for word in words)
        random = _random.pop()
    millis, counter = stamp >> 12, stamp & 0xFFF
    return millis << 80 | 7 << 76 | counter << 64 | 2 << 62 | random


# Two digits at a time: ids are made for every event, and this halves their cost.
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


def _base32(value: int, length: int) -> str:
    digits = []
    for _ in range(length // 2):
        digits.append(_PAIRS[value & 1023])
        value >>= 10
    if length % 2:
        digits.append(_ALPHABET[value & 31])
    digits.reverse()
    return "".join(digits)


def new_id(prefix: str) -> str:
    """A fresh, time-ordered id such as `ci_06f3…`."""
    return f"{prefix}_{_base32(_uuid7(), 26)}"


def command_id(tenant: str, idempotency_key: str, scope: str = "") -> str:
    """The command id that belongs to a client's Idempotency-Key: the same key, the same id."""
    name = "\0".join((tenant, scope, idempotency_key))
    return f"cmd_{_base32(uuid.uuid5(_NAMESPACE, name).int, 26)}"


def derived_id(prefix: str, *parts: str) -> str:
    """The id that belongs to what `parts` name: the same parts, the same id. Not time-ordered."""
    name = "\0".join((prefix, *parts))
    return f"{prefix}_{_base32(uuid.uuid5(_NAMESPACE, name).int, 26)}"


def made_at(run_id: str) -> int | None:
    """When a run id was made, in milliseconds; None for one that derives from a seed or isn't ours.

    It goes by the form of the id alone: whether we issued it, `Signer.owns_run` knows.
    """
    if len(run_id) != _RUN_ID_LENGTH or run_id[14] not in _VERSION_7:
        return None
    millis = 0
    for digit in run_id[4:14]:
        value = _ALPHABET.find(digit)
        if value < 0:
            return None
        millis = millis << 5 | value
    return millis


class Signer:
    """What derives from the installation's master secret (WEIR_SECRET_KEY), all of it here.

    Each purpose has a key of its own, an HMAC-SHA256 of its name: knowing one tells nothing about
    another, and the master secret itself signs nothing.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("the master secret needs at least 32 bytes")
        self._run_key = hmac.digest(secret, b"weir/run-id/v1", "sha256")
        self._secret_key = hmac.digest(secret, b"weir/derived-secret/v1", "sha256")
        self._proven: dict[str, str] = {}
        self.jwt_key = hmac.digest(secret, b"weir/jwt/v1", "sha256")

    def run_id(self, tenant: str) -> str:
        """A new run id for a tenant: `run_` + 26 characters of time order + 16 of MAC."""
        return self._run_id(_base32(_uuid7(), 26), tenant)

    def run_id_for(self, tenant: str, seed: str) -> str:
        """The run id that belongs to a seed (an idempotency key, an external trace id)."""
        body = _base32(uuid.uuid5(_NAMESPACE, f"run\0{tenant}\0{seed}").int, 26)
        return self._run_id(body, tenant)

    def _run_id(self, body: str, tenant: str) -> str:
        mac = hmac.digest(self._run_key, f"{tenant}\0{body}".encode(), "sha256")
        return f"run_{body}{_base32(int.from_bytes(mac[:_RUN_MAC_BYTES]), 16)}"

    def owns_run(self, tenant: str, run_id: str) -> bool:
        """Whether this installation issued the run id to this tenant (80-bit MAC)."""
        owner = self._proven.get(run_id)
        if owner is not None:
            return owner == tenant
        if len(run_id) != _RUN_ID_LENGTH or not run_id.startswith("run_"):
            return False
        proven = self._run_id(run_id[4:30], tenant)
        if not hmac.compare_digest(proven.encode(), run_id.encode()):
            return False
        # A run reports many times: what is proven once need not be proven again.
        if len(self._proven) >= _PROVEN_MAX:
            self._proven.clear()
        self._proven[run_id] = tenant
        return True

    def secret(self, prefix: str, command_id: str) -> str:
        """The secret that a command creates: `prefix` + 52 characters (256 bits).

        Derived from the command's id, so that the repeat of an idempotent request can show the same
        key without anyone having stored it. A fresh command id has 122 random bits.
        """
        digest = hmac.digest(self._secret_key, f"{prefix}\0{command_id}".encode(), "sha256")
        return prefix + _base32(int.from_bytes(digest), 52)


def secret_hash(secret: str) -> str:
    """SHA-256 in hex: what is stored of a high-entropy key."""
    return hashlib.sha256(secret.encode()).hexdigest()

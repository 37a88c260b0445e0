"""Ids, run ids that certify themselves, secrets derived from the command that makes them, and the
sealing of secrets that others trust us with.

Ids are `prefix_` + 26 characters of Crockford base 32 over a UUIDv7 (RFC 9562, section 5.7): they
sort by time and are opaque. A run id carries a truncated HMAC-SHA256 bound to the tenant, so that
telemetry for a run that was never issued, or is another tenant's, is refused without a look-up. The
id of a run that is for a user also says for which person, by an HMAC of the user's id.
"""

import base64
import hashlib
import hmac
import os
import threading
import time
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_lock = threading.Lock()
_last = 0
_NAMESPACE = uuid.UUID("6f1a4c52-3a57-5f0e-9c1d-77656972d0d0")
_MAC_BYTES = 10
_MAC_DIGITS = 16
_RUN_LENGTH = 4 + 26 + _MAC_DIGITS
RUN_LENGTH_OF_PERSON = _RUN_LENGTH + _MAC_DIGITS
"""Characters of the id of a run that is for a person, whom it names from `PERSON_AT` on."""
PERSON_AT = 4 + 26
_RUN_LENGTHS = (_RUN_LENGTH, RUN_LENGTH_OF_PERSON)
_PERSON = "person_"
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
    if len(run_id) not in _RUN_LENGTHS or run_id[14] not in _VERSION_7:
        return None
    millis = 0
    for digit in run_id[4:14]:
        value = _ALPHABET.find(digit)
        if value < 0:
            return None
        millis = millis << 5 | value
    return millis


class SealBroken(ValueError):
    """What was sealed is not for this context, was changed, or was sealed under another master
    secret."""


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
        self._person_key = hmac.digest(secret, b"weir/person/v1", "sha256")
        self._webhook_key = hmac.digest(secret, b"weir/webhook/v1", "sha256")
        self._request_key = hmac.digest(secret, b"weir/request/v1", "sha256")
        self._proven: dict[str, str] = {}
        self.jwt_key = hmac.digest(secret, b"weir/jwt/v1", "sha256")
        self._seal = AESSIV(hmac.digest(secret, b"weir/seal/v1", "sha512"))

    def person(self, tenant: str, user_id: str) -> str:
        """Whom a tenant's `user_id` names: `person_` + 16 characters that don't tell it."""
        mac = hmac.digest(self._person_key, f"{tenant}\0{user_id}".encode(), "sha256")
        return _PERSON + _short(mac)

    def request(self, *parts: bytes) -> str:
        """What a request of these parts is known by among the API processes: 32 hex digits.

        A keyed hash (BLAKE2b), since it is also on the log for good and must not tell what is in
        the request to those who guess.
        """
        digest = hashlib.blake2b(key=self._request_key, digest_size=16)
        for part in parts:
            digest.update(b"%d:" % len(part))
            digest.update(part)
        return digest.hexdigest()

    def run_id(self, tenant: str, command_id: str = "", person: str = "") -> str:
        """The id of the run that a command starts: `run_` + 26 characters + 16 of MAC.

        The 26 are those of the command's id, so they sort by time as it does; new ones without it.
        The id of a run that is for a person has 16 characters more, which name the person.
        """
        body = command_id.removeprefix("cmd_") or _base32(_uuid7(), 26)
        return self._run_id(body, tenant, person)

    def run_id_for(self, tenant: str, seed: str, person: str = "") -> str:
        """The run id that belongs to a seed (an idempotency key, an external trace id)."""
        body = _base32(uuid.uuid5(_NAMESPACE, f"run\0{tenant}\0{seed}").int, 26)
        return self._run_id(body, tenant, person)

    def _run_id(self, body: str, tenant: str, person: str) -> str:
        body += person.removeprefix(_PERSON)
        mac = hmac.digest(self._run_key, f"{tenant}\0{body}".encode(), "sha256")
        return f"run_{body}{_short(mac)}"

    def owns_run(self, tenant: str, run_id: str) -> bool:
        """Whether this installation issued the run id to this tenant (80-bit MAC)."""
        owner = self._proven.get(run_id)
        if owner is not None:
            return owner == tenant
        if len(run_id) not in _RUN_LENGTHS or not run_id.startswith("run_"):
            return False
        proven = self._run_id(run_id[4:PERSON_AT], tenant, run_id[PERSON_AT:-_MAC_DIGITS])
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

    def webhook_secret(self, seed: str) -> str:
        """The secret that signs an endpoint's webhooks: `whsec_` + base64 of 32 bytes.

        Derived anew for every signature, so that nobody keeps it; the seed is no secret.
        """
        key = hmac.digest(self._webhook_key, seed.encode(), "sha256")
        return "whsec_" + base64.b64encode(key).decode()

    def seal(self, secret: str, *context: str) -> str:
        """A secret encrypted and authenticated with what it is for (AES-256-SIV, RFC 5297).

        The same secret in the same context gives the same text, so that a repeat can be told.
        """
        sealed = self._seal.encrypt(secret.encode(), [part.encode() for part in context])
        return base64.urlsafe_b64encode(sealed).decode()

    def unseal(self, sealed: str, *context: str) -> str:
        """The secret again. Raises SealBroken unless the context is the one it was sealed for."""
        try:
            data = base64.b64decode(sealed, altchars=b"-_", validate=True)
            return self._seal.decrypt(data, [part.encode() for part in context]).decode()
        except (ValueError, InvalidTag) as error:
            raise SealBroken("the seal does not hold") from error


def person_of(run_id: str) -> str:
    """The person whom a run is for, as its id says; empty if it is for none."""
    named = run_id[PERSON_AT:-_MAC_DIGITS]
    return _PERSON + named if named else ""


def _short(mac: bytes) -> str:
    """80 bits of a MAC, as 16 characters."""
    return _base32(int.from_bytes(mac[:_MAC_BYTES]), _MAC_DIGITS)


def secret_hash(secret: str) -> str:
    """SHA-256 in hex: what is stored of a high-entropy key."""
    return hashlib.sha256(secret.encode()).hexdigest()

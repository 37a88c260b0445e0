"""Read an uploaded evaluation key while it streams by, without ever holding all of it.

`KeyReader` is fed chunks and refuses at the first byte that cannot belong to a relinearisation or
rotation key of one of our parameter sets: wrong lengths, other parameters, residues that are not
below their prime, trailing bytes, and first of all a secret key. What it accepts, SEAL loads (a
differential test holds this), so the engine's C++ parser never sees bytes nobody has looked at.
"""

from collections.abc import Generator
from hashlib import sha256

import numpy as np
from msgspec import Struct

from schemas.fhe import seal
from schemas.fhe.parameters import (
    CIPHERTEXT_HEAD_BYTES,
    KEY_BYTES_MAX,
    SEAL_SETS,
    SETS_BY_KEY_PARMS_ID,
    SealParameters,
)

RELIN = "relin"
ROTATE = "rotate"

_GENERATOR = 3  # SEAL's generator of the rotation group


class KeyRefused(Exception):
    """An upload that is not an evaluation key. `reason` is stable, `message` is for people.

    Reasons: secret_key_refused, truncated, malformed, compressed, unsupported_version,
    wrong_length, wrong_parameters, not_an_evaluation_key, residue_out_of_range, too_large.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class KeyPart(Struct, frozen=True):
    """One accepted part of a key. `rotations` are slot steps to the left, for `kind` rotate."""

    kind: str
    params_id: str
    sha256: str
    size_bytes: int
    rotations: tuple[int, ...] = ()


_Grammar = Generator[int, bytes, tuple[str, SealParameters, tuple[int, ...]]]


class KeyReader:
    """Feed it the bytes of one part; `finish` returns what the part is. Refuses as it goes."""

    def __init__(self) -> None:
        self._digest = sha256()
        self._pending = bytearray()
        self._grammar = _key_part()
        self._wanted = next(self._grammar)
        self._found: tuple[str, SealParameters, tuple[int, ...]] | None = None
        self.size_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the part; raises `KeyRefused` as soon as they cannot be a key."""
        self.size_bytes += len(chunk)
        if self.size_bytes > KEY_BYTES_MAX:
            raise KeyRefused("too_large", f"a part may have {KEY_BYTES_MAX} bytes at most")
        self._digest.update(chunk)
        self._pending += chunk
        position = 0
        while self._found is None and len(self._pending) - position >= self._wanted:
            piece = bytes(self._pending[position : position + self._wanted])
            position += self._wanted
            try:
                self._wanted = self._grammar.send(piece)
            except StopIteration as end:
                self._found = end.value
            except seal.Malformed as error:
                raise KeyRefused(error.reason, error.message) from None
        del self._pending[:position]
        if self._found is not None and self._pending:
            raise KeyRefused("wrong_length", "there are bytes after the end of the key")

    def finish(self) -> KeyPart:
        """What the bytes fed so far are; raises `KeyRefused` when they stop short of a key."""
        if self._found is None:
            raise KeyRefused("truncated", f"the key ends early, after {self.size_bytes} bytes")
        kind, params, rotations = self._found
        return KeyPart(kind, params.params_id, self._digest.hexdigest(), self.size_bytes, rotations)


def read_key_part(data: bytes) -> KeyPart:
    """The same in one go, for bytes that are already in memory."""
    reader = KeyReader()
    reader.feed(data)
    return reader.finish()


def _key_part() -> _Grammar:
    head = yield seal.PLAINTEXT_HEAD_BYTES
    # Before anything else, so that whatever is wrong besides, a secret is called a secret.
    if seal.looks_like_plaintext(head):
        raise KeyRefused("secret_key_refused", "a secret key must never leave its owner")
    total = seal.read_head(head)
    params = SETS_BY_KEY_PARMS_ID.get(head[16:48])
    if params is None:
        raise KeyRefused("wrong_parameters", _whose(head[16:48]))
    (slots,) = seal.COUNT.unpack_from(head, 48)
    switching_bytes = params.switching_key_bytes
    if slots == 1:
        kind, key_count = RELIN, 1
    elif slots == params.ring_degree and total > params.rotate_key_bytes(0):
        kind = ROTATE
        key_count = (total - params.rotate_key_bytes(0)) // switching_bytes
    else:
        raise KeyRefused("not_an_evaluation_key", "neither a relinearisation nor a rotation key")
    expected = params.relin_key_bytes if kind == RELIN else params.rotate_key_bytes(key_count)
    if total != expected:
        raise KeyRefused("wrong_length", f"the key declares {total} bytes instead of {expected}")
    if total > KEY_BYTES_MAX:
        raise KeyRefused("too_large", f"a part may have {KEY_BYTES_MAX} bytes at most")
    # The head was read as long as a secret key's; what lies past this envelope begins the body.
    source = _Replay(head[56:])
    elements: list[int] = []
    for slot in range(slots):
        count_bytes = yield from source.take(8)
        (count,) = seal.COUNT.unpack(count_bytes)
        if count == 0:
            continue
        if count != len(params.primes) - 1:
            raise KeyRefused("malformed", "a switching key has the wrong number of parts")
        elements.append(2 * slot + 1)
        if len(elements) > key_count:
            raise KeyRefused("wrong_length", "the key holds more keys than it has room for")
        for _ in range(count):
            yield from _switching_part(source, params)
    if len(elements) != key_count:
        raise KeyRefused("wrong_length", "the key holds fewer keys than it has room for")
    return kind, params, _steps(elements, params) if kind == ROTATE else ()


def _switching_part(source: "_Replay", params: SealParameters) -> Generator[int, bytes, None]:
    head = yield from source.take(CIPHERTEXT_HEAD_BYTES)
    fields = seal.read_ciphertext_head(head)
    expected = seal.CiphertextFields(
        parms_id=params.key_parms_id,
        is_ntt=True,
        parts=2,
        ring_degree=params.ring_degree,
        primes=len(params.primes),
        scale=1.0,
        correction=1,
    )
    if fields != expected:
        raise KeyRefused("malformed", "a part of the key contradicts the key's parameters")
    for _ in range(2):
        for prime in params.primes:
            residues = yield from source.take(params.ring_degree * 8)
            if int(np.frombuffer(residues, dtype="<u8").max()) >= prime:
                raise KeyRefused("residue_out_of_range", "a coefficient is not below its prime")


class _Replay:
    """Hands out bytes that were read too far ahead before it asks for new ones."""

    def __init__(self, ahead: bytes) -> None:
        self._ahead = ahead

    def take(self, count: int) -> Generator[int, bytes, bytes]:
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        if len(taken) < count:
            taken += yield count - len(taken)
        return taken


def _steps(elements: list[int], params: SealParameters) -> tuple[int, ...]:
    """Slot steps of Galois elements; the conjugation (2n-1) is no step and is left out."""
    modulus, slots = 2 * params.ring_degree, params.slots
    wanted, element = set(elements), 1
    steps: list[int] = []
    for step in range(1, slots):
        element = element * _GENERATOR % modulus
        if element in wanted:
            steps.append(step if step <= slots // 2 else step - slots)
    return tuple(sorted(steps))


def _whose(parms_id: bytes) -> str:
    if any(parms_id in params.levels_by_parms_id for params in SEAL_SETS.values()):
        return "this is a ciphertext or a key for one, not an evaluation key"
    return "the key belongs to no parameter set of ours: " + ", ".join(SEAL_SETS)

"""The byte layout of tfhe-rs 1.8 boolean objects (bincode, fixed width, little-endian).

All lengths follow from the parameter set, and whatever is no number of the cryptography itself is
the same in every object of a set: so a key or a ciphertext is recognised by its length and its
fixed bytes. Every value of the other bytes is allowed, so that what passes here, tfhe-rs loads (a
differential test holds this).
"""

import struct
from functools import cache
from typing import Final

import numpy as np
from msgspec import Struct

from schemas.fhe.parameters import TFHE_132, TfheParameters

_HEAD_BYTES: Final = 88
_SEED_BYTES: Final = 16
_COUNT = struct.Struct("<Q")
# The modulus 2^32, as its own two words and the number of its bits.
_MODULUS = struct.pack("<QQQ", 0, 0, 32)
# What stands before a seed and behind it; then comes the modulus.
_SEED_KIND, _SEED_REST = bytes(4), bytes(24)
# The order of a gate: key switch after bootstrap.
_BOOTSTRAP_FIRST = 1
# The kind of a ciphertext that hides its value, and where its mask begins.
_ENCRYPTED, _MASK_AT = 0, 12
# Larger than the dimension of any secret key that is in use.
_DIMENSION_MAX = 1 << 16


class Piece(Struct, frozen=True):
    """A run of bytes. `fixed`: what it must be, where it may not be anything."""

    size: int
    fixed: bytes = b""


def _fixed(data: bytes) -> Piece:
    return Piece(len(data), data)


def server_key_form(params: TfheParameters) -> list[Piece]:
    """A compressed server key, piece by piece: bootstrapping key, then key-switching key."""
    glwe_size = params.glwe_dimension + 1
    bootstrap = _bootstrap_words(params)
    switch = params.glwe_dimension * params.polynomial_size * params.ks_level
    after_seed = _SEED_REST + _MODULUS
    return [
        _fixed(_COUNT.pack(bootstrap)),
        Piece(4 * bootstrap),
        _fixed(
            struct.pack(
                "<QQQQ", glwe_size, params.polynomial_size, params.pbs_base_log, params.pbs_level
            )
            + _SEED_KIND
        ),
        Piece(_SEED_BYTES),
        _fixed(after_seed + _COUNT.pack(switch)),
        Piece(4 * switch),
        _fixed(
            struct.pack("<QQQ", params.ks_base_log, params.ks_level, params.lwe_dimension + 1)
            + _SEED_KIND
        ),
        Piece(_SEED_BYTES),
        _fixed(after_seed + struct.pack("<I", _BOOTSTRAP_FIRST)),
    ]


def _bootstrap_words(params: TfheParameters) -> int:
    """Numbers in a bootstrapping key, whose masks are left to its seed."""
    glwe_size = params.glwe_dimension + 1
    return params.lwe_dimension * params.pbs_level * glwe_size * params.polynomial_size


def server_key_bytes(params: TfheParameters) -> int:
    """Exact length in bytes of a serialised compressed server key."""
    return sum(piece.size for piece in server_key_form(params))


def server_key_of(head: bytes) -> TfheParameters | None:
    """The set whose server key begins with `head`, if any."""
    is_one = head.startswith(_COUNT.pack(_bootstrap_words(TFHE_132)))
    return TFHE_132 if is_one else None


def looks_like_secret_key(head: bytes) -> bool:
    """Whether the first 88 bytes are those of a client key: a dimension, then words of 0 or 1."""
    if len(head) < _HEAD_BYTES:
        return False
    (dimension,) = _COUNT.unpack_from(head)
    words = np.frombuffer(head, dtype="<u4", offset=_COUNT.size)
    return bool(0 < dimension <= _DIMENSION_MAX and (words <= 1).all())


@cache
def fresh_form(params: TfheParameters) -> "Form":
    """A ciphertext as a client makes it: its body, and the seed of its mask."""
    return Form(
        Piece(4),
        _fixed(_COUNT.pack(params.lwe_dimension + 1) + _SEED_KIND),
        Piece(_SEED_BYTES),
        _fixed(_SEED_REST + _MODULUS),
    )


@cache
def computed_form(params: TfheParameters) -> "Form":
    """A ciphertext as a gate makes it: its mask, and its body."""
    return Form(
        _fixed(struct.pack("<IQ", _ENCRYPTED, params.lwe_dimension + 1)),
        Piece(4 * (params.lwe_dimension + 1)),
        _fixed(_MODULUS),
    )


class Form:
    """What every ciphertext of a kind looks like."""

    def __init__(self, *pieces: Piece) -> None:
        self.pieces = pieces
        self.size = sum(piece.size for piece in pieces)
        pattern = b"".join(piece.fixed or bytes(piece.size) for piece in pieces)
        mask = b"".join((b"\1" if piece.fixed else b"\0") * piece.size for piece in pieces)
        self._places = np.flatnonzero(np.frombuffer(mask, dtype=np.uint8))
        self._pattern = np.frombuffer(pattern, dtype=np.uint8)[self._places]

    def matches(self, data: bytes) -> bool:
        """Whether `data` is a list of them."""
        if not data or len(data) % self.size:
            return False
        rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, self.size)
        return bool((rows[:, self._places] == self._pattern).all())


def split_ciphertexts(data: bytes, params: TfheParameters) -> list[bytes]:
    """The ciphertexts in `data`, all fresh or all computed, one after another.

    Raises ValueError, with a sentence for people, when that is not what `data` holds.
    """
    for form in (computed_form(params), fresh_form(params)):
        if form.matches(data):
            found = [data[at : at + form.size] for at in range(0, len(data), form.size)]
            break
    else:
        raise ValueError(f"{len(data)} bytes are no ciphertexts of {params.params_id}")
    masked = slice(_MASK_AT, _MASK_AT + 4 * params.lwe_dimension)
    if len(found[0]) == computed_form(params).size and not all(any(one[masked]) for one in found):
        raise ValueError("a ciphertext does not hide its value")
    return found

"""Hostile variants of honest bytes, drawn from a seed: the corpus of the refusal tests."""

import random
import struct
import zlib
from collections.abc import Callable

_BOMBS = {size: zlib.compress(bytes(size), 9) for size in (1 << 20, 1 << 25)}
_FOREIGN = (b'\x01{"PlaintextMetaData":{}}', b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"{" * 64)
_LENGTHS = (0, 1, 2, 2**31, 2**32, 2**40, 2**63, 2**64 - 1)


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([1, 15, 16, 17, 100, 4096]))


def _head_bit(data: bytes, rng: random.Random) -> bytes:
    return _flip(data, rng.randrange(min(180, len(data))), rng)


def _body_bit(data: bytes, rng: random.Random) -> bytes:
    return _flip(data, rng.randrange(len(data)), rng)


def _length_field(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(min(200, len(data) - 8))
    return data[:at] + struct.pack("<Q", rng.choice(_LENGTHS)) + data[at + 8 :]


def _extended(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice([1, 8, 64]))


def _spliced(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(8) + data[at:]


def _huge_residue(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(200, len(data) - 8)
    return data[:at] + b"\xff" * 8 + data[at + 8 :]


def _zip_bomb(data: bytes, rng: random.Random) -> bytes:
    """A small object that says it is compressed, and would be large."""
    packed = _BOMBS[rng.choice(list(_BOMBS))]
    head = bytearray(data[:16])
    head[5] = rng.choice([1, 2])
    head[8:16] = struct.pack("<Q", 16 + len(packed))
    return bytes(head) + packed


def _foreign(data: bytes, rng: random.Random) -> bytes:
    """The right length, but another library's object, or an image, or text."""
    start = rng.choice(_FOREIGN)
    return (start + data[len(start) :])[: len(data)]


def _flip(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _truncated,
    _noise,
    _head_bit,
    _body_bit,
    _length_field,
    _extended,
    _spliced,
    _huge_residue,
    _zip_bomb,
    _foreign,
)

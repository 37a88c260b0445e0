"""The byte layout of Microsoft SEAL 4.1 objects, as much of it as the gateway must recognise.

Every object begins with the same 16 bytes: magic, header size, version, compression, total length.
Objects nest: a key holds ciphertexts, a ciphertext holds an array, and each has its own header.
"""

import struct
from typing import Final

from msgspec import Struct

MAGIC: Final = 0xA15E
HEAD: Final = struct.Struct("<HBBBBHQ")
CIPHERTEXT_BODY: Final = struct.Struct("<?QQQdQ")
COUNT: Final = struct.Struct("<Q")
HEAD_BYTES: Final = HEAD.size
ARRAY_HEAD_BYTES: Final = HEAD_BYTES + COUNT.size
VERSION: Final = (4, 1)
PLAINTEXT_HEAD_BYTES: Final = 88


class Malformed(Exception):
    """Bytes that are not the object they should be. `reason` is stable, the text is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CiphertextFields(Struct, frozen=True):
    """What the head of a SEAL ciphertext says; a product has 3 `parts` until relinearised."""

    parms_id: bytes
    is_ntt: bool
    parts: int
    ring_degree: int
    primes: int
    scale: float
    correction: int


def read_head(data: bytes | memoryview) -> int:
    """The total length in bytes that a SEAL header declares; `Malformed` when it is no header."""
    if len(data) < HEAD_BYTES:
        raise Malformed("truncated", "the bytes end within a SEAL header")
    magic, size, major, minor, compression, reserved, total = HEAD.unpack_from(data)
    if magic != MAGIC or size != HEAD_BYTES or reserved != 0:
        raise Malformed("malformed", "the bytes do not begin with a SEAL header")
    if (major, minor) != VERSION:
        raise Malformed("unsupported_version", f"SEAL {major}.{minor} is not {VERSION[0]}.x data")
    if compression != 0:
        raise Malformed("compressed", "serialise without compression (compr_mode='none')")
    return int(total)


def read_ciphertext_head(data: bytes | memoryview) -> CiphertextFields:
    """The head (113 bytes) of an uncompressed ciphertext whose declared lengths agree.

    Raises `Malformed` on any disagreement; looks at no more than the first 113 bytes.
    """
    if len(data) < 113:
        raise Malformed("truncated", "the bytes end before the head of the ciphertext does")
    total = read_head(data)
    parms_id = bytes(data[HEAD_BYTES:48])
    # A bool in SEAL is a byte: any value but 0 and 1 would be read as true.
    if data[48] > 1:
        raise Malformed("malformed", "a flag of the ciphertext is neither 0 nor 1")
    is_ntt, parts, degree, primes, scale, correction = CIPHERTEXT_BODY.unpack_from(data, 48)
    coefficients = parts * degree * primes
    array_bytes = read_head(data[89:])
    (count,) = COUNT.unpack_from(data, 105)
    if count != coefficients or array_bytes != ARRAY_HEAD_BYTES + 8 * coefficients:
        raise Malformed("wrong_length", "the ciphertext is not as long as its shape demands")
    if total != 89 + array_bytes:
        raise Malformed("wrong_length", "the ciphertext's declared length is not its own")
    return CiphertextFields(parms_id, bool(is_ntt), parts, degree, primes, scale, correction)


def looks_like_plaintext(data: bytes | memoryview) -> bool:
    """Whether the first 88 bytes are the head of a SEAL plaintext; a secret key is one."""
    if len(data) < PLAINTEXT_HEAD_BYTES:
        return False
    (magic,) = struct.unpack_from("<H", data)
    (count,) = COUNT.unpack_from(data, 48)
    (inner_magic,) = struct.unpack_from("<H", data, 64)
    (inner_bytes,) = COUNT.unpack_from(data, 72)
    (inner_count,) = COUNT.unpack_from(data, 80)
    return bool(
        magic == MAGIC
        and inner_magic == MAGIC
        and inner_count == count
        and inner_bytes == ARRAY_HEAD_BYTES + 8 * count
    )

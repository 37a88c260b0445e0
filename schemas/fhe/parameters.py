"""Parameter sets by id: the only source of encryption parameters in the product.

A context is always made from one of these ids, never from a client's blob, because a blob may
claim a security level it does not have. The primes are written out so that the gateway can
recognise a key or a ciphertext (SEAL names its parameters by a hash of the primes) without
loading any cryptography; a test recomputes them with the engine.
"""

import struct
from functools import cached_property
from hashlib import blake2b

from msgspec import Struct

MEGABYTE = 1_000_000
KEY_BYTES_MAX = 40 * MEGABYTE
CIPHERTEXT_BYTES_MAX = 2 * MEGABYTE

# A value and a plaintext operand must stay below this, or the last level cannot hold it.
VALUE_MAGNITUDE_MAX = 2.0**18
# What one operation adds to the error of values in [-1, 1]; tests hold it.
ERROR_BOUND = 1e-6

PARMS_ID_BYTES = 32
CIPHERTEXT_HEAD_BYTES = 113
RELIN_HEAD_BYTES = 64  # SEAL header, parms_id, outer and inner count

# What computes, as `ParameterSet.engine`.
PYFHEL, TFHE_RS, LATTIGO = "pyfhel", "tfhe-rs", "lattigo"
CKKS = "ckks"

_SEAL_SCHEME_NUMBER = {CKKS: 2}


class ParameterSet(Struct, frozen=True, dict=True):
    """What every set has, whatever computes with it.

    engine: which library computes. error_bound: what one operation adds at most to the error of
    values in [-1, 1], 0 for exact schemes.
    """

    params_id: str
    scheme: str
    engine: str
    security_bits: int
    error_bound: float

    @property
    def depth(self) -> int | None:
        """How many multiplications one after another a fresh ciphertext allows; None: any."""
        raise NotImplementedError


class SealParameters(ParameterSet, frozen=True, dict=True):
    """A set of SEAL's. `primes` is the whole chain; the last one is special and never in a
    ciphertext.

    `level` counts the data primes already dropped: 0 is fresh, `depth` allows no multiplication.
    """

    ring_degree: int
    prime_bits: tuple[int, ...]
    primes: tuple[int, ...]
    scale_bits: int

    @property
    def depth(self) -> int:
        """How many multiplications one after another a fresh ciphertext allows."""
        return len(self.primes) - 2

    @property
    def slots(self) -> int:
        """Values per ciphertext."""
        return self.ring_degree // 2

    @property
    def scale(self) -> float:
        """The scale of a fresh ciphertext."""
        return float(2**self.scale_bits)

    def data_primes(self, level: int) -> tuple[int, ...]:
        """The primes of a ciphertext at `level`."""
        return self.primes[: len(self.primes) - 1 - level]

    def ciphertext_bytes(self, level: int) -> int:
        """Exact length in bytes of a two-part ciphertext at `level`."""
        return CIPHERTEXT_HEAD_BYTES + 2 * len(self.data_primes(level)) * self.ring_degree * 8

    @property
    def switching_key_bytes(self) -> int:
        """Exact length in bytes of one relinearisation or rotation key, without its envelope."""
        count = len(self.primes)
        return (count - 1) * (CIPHERTEXT_HEAD_BYTES + 2 * count * self.ring_degree * 8)

    @property
    def relin_key_bytes(self) -> int:
        """Exact length in bytes of a serialised relinearisation key."""
        return RELIN_HEAD_BYTES + self.switching_key_bytes

    def rotate_key_bytes(self, count: int) -> int:
        """Exact length in bytes of `count` serialised rotation keys."""
        return 56 + 8 * self.ring_degree + count * self.switching_key_bytes

    @cached_property
    def key_parms_id(self) -> bytes:
        """SEAL's name for the parameters of keys (the whole chain)."""
        return self._parms_id(self.primes)

    @cached_property
    def levels_by_parms_id(self) -> dict[bytes, int]:
        """SEAL's name for the parameters of a ciphertext, per level."""
        return {
            self._parms_id(self.data_primes(level)): level for level in range(len(self.primes) - 1)
        }

    def _parms_id(self, primes: tuple[int, ...]) -> bytes:
        words = (_SEAL_SCHEME_NUMBER[self.scheme], self.ring_degree, *primes, 0)
        packed = struct.pack(f"<{len(words)}Q", *words)
        return blake2b(packed, digest_size=PARMS_ID_BYTES).digest()


def _ckks(params_id: str, ring_degree: int, primes: tuple[int, ...]) -> SealParameters:
    return SealParameters(
        params_id=params_id,
        scheme=CKKS,
        engine=PYFHEL,
        security_bits=128,
        error_bound=ERROR_BOUND,
        ring_degree=ring_degree,
        prime_bits=tuple(prime.bit_length() for prime in primes),
        primes=primes,
        scale_bits=40,
    )


CKKS_N13 = _ckks(
    "ckks-n13",
    8192,
    (1152921504606748673, 1099510890497, 1099511480321, 1152921504606830593),
)
CKKS_N14 = _ckks(
    "ckks-n14",
    16384,
    (
        1152921504606683137,
        1099507695617,
        1099508121601,
        1099510054913,
        1152921504606748673,
    ),
)
CKKS_N14D5 = _ckks(
    "ckks-n14d5",
    16384,
    (
        1152921504606683137,
        1099506352129,
        1099506515969,
        1099507695617,
        1099508121601,
        1099510054913,
        1152921504606748673,
    ),
)

SEAL_SETS: dict[str, SealParameters] = {
    params.params_id: params for params in (CKKS_N13, CKKS_N14, CKKS_N14D5)
}
SETS_BY_KEY_PARMS_ID: dict[bytes, SealParameters] = {
    params.key_parms_id: params for params in SEAL_SETS.values()
}
PARAMETER_SETS: dict[str, ParameterSet] = {**SEAL_SETS}

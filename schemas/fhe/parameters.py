"""Parameter sets by id: the only source of encryption parameters in the product.

A context is always made from one of these ids, never from a client's blob, because a blob may
claim a security level it does not have. The primes are written out so that the gateway can
recognise a key or a ciphertext (SEAL names its parameters by a hash of the primes) without
loading any cryptography; a test recomputes them with the engine.
"""

import struct
from functools import cached_property
from hashlib import blake2b
from math import inf, prod

from msgspec import Struct

MEGABYTE = 1_000_000
KEY_BYTES_MAX = 40 * MEGABYTE
CIPHERTEXT_BYTES_MAX = 2 * MEGABYTE

# A value and a plaintext operand must stay below this, or the last level cannot hold it.
VALUE_MAGNITUDE_MAX = 2.0**18
# What one operation adds to the error of values in [-1, 1]; tests hold it.
ERROR_BOUND = 1e-6
# What a rotation adds in SEAL's sets, before anything is divided by a prime, and bootstrapping.
ROTATION_ERROR, BOOTSTRAP_ERROR = 2e-6, 1e-4
# Bootstrapping computes a function that is only right near zero.
BOOTSTRAP_MAGNITUDE_MAX = 1.0

PARMS_ID_BYTES = 32
CIPHERTEXT_HEAD_BYTES = 113
RELIN_HEAD_BYTES = 64  # SEAL header, parms_id, outer and inner count

# What a computed ciphertext of tfhe-rs holds besides its numbers.
TFHE_HEAD_BYTES = 36

# What computes, as `ParameterSet.engine`.
PYFHEL, TFHE_RS, LATTIGO = "pyfhel", "tfhe-rs", "lattigo"
CKKS, BGV, TFHE, CKKS_BOOT = "ckks", "bgv", "tfhe", "ckks-boot"

_SEAL_SCHEME_NUMBER = {CKKS: 2, BGV: 3}


class ParameterSet(Struct, frozen=True, dict=True):
    """What every set has, whatever computes with it.

    engine: which library computes. error_bound: what one operation adds at most to the error of
    values in [-1, 1], 0 for exact schemes; ten times what encryption does. depth: at which level no
    multiplication is left, None when any number may follow one another.
    """

    params_id: str
    scheme: str
    engine: str
    security_bits: int
    error_bound: float
    depth: int | None

    def magnitude_max(self, level: int) -> float:
        """The largest absolute value that a ciphertext at `level` can hold."""
        return inf


class SealParameters(ParameterSet, frozen=True, dict=True):
    """A set of SEAL's. `primes` is the whole chain; the last one is special and never in a
    ciphertext.

    Where a method takes a level, it is the number of data primes already dropped.
    """

    depth: int
    ring_degree: int
    prime_bits: tuple[int, ...]
    primes: tuple[int, ...]
    # What values are counted by; 0 in a scheme that approximates.
    plain_modulus: int

    @property
    def slots(self) -> int:
        """Values per ciphertext."""
        return self.ring_degree // 2

    @property
    def scale(self) -> float:
        """The scale of a fresh ciphertext."""
        return 1.0

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
        words = (
            _SEAL_SCHEME_NUMBER[self.scheme],
            self.ring_degree,
            *primes,
            self.plain_modulus,
        )
        packed = struct.pack(f"<{len(words)}Q", *words)
        return blake2b(packed, digest_size=PARMS_ID_BYTES).digest()


class CkksParameters(SealParameters, frozen=True, dict=True):
    """A set for arithmetic on reals.

    `level` counts the data primes already dropped: 0 is fresh, `depth` allows no multiplication.
    """

    scale_bits: int

    @property
    def scale(self) -> float:
        """The scale of a fresh ciphertext."""
        return float(2**self.scale_bits)

    def magnitude_max(self, level: int) -> float:
        """See `ParameterSet`; a third of the modulus, since half of it is for negative values."""
        return float(prod(self.data_primes(level)) / self.scale / 3)


class LattigoParameters(ParameterSet, frozen=True, dict=True):
    """A set of Lattigo's, whose ciphertexts can be refreshed, and are no others' ciphertexts.

    `level` counts the multiplications that are done, as everywhere here. prime_bits: of the primes
    of a fresh ciphertext, the last of which goes first. ciphertext_lengths: in bytes, by level.
    part_bytes: the parts of an evaluation key, all of which are needed, and their lengths.
    """

    scale_bits: int
    prime_bits: tuple[int, ...]
    slots: int
    ciphertext_lengths: tuple[int, ...]
    part_bytes: dict[str, int]

    @property
    def scale(self) -> float:
        """The scale of a fresh ciphertext."""
        return float(2**self.scale_bits)

    def magnitude_max(self, level: int) -> float:
        """See `ParameterSet`."""
        left = sum(self.prime_bits[: len(self.prime_bits) - level])
        return float(2 ** (left - self.scale_bits) / 3)


class BgvParameters(SealParameters, frozen=True, dict=True):
    """A set for gates on many bits at once, one in each slot. No data prime is ever dropped.

    Noise multiplies when ciphertexts do, so a product's level is the sum of its factors' and one
    more: it counts the multiplications behind it, all of them, and not the longest chain. Of
    `depth` it may have so many; measured, one more is always garbage.
    """

    @property
    def slots(self) -> int:
        """Bits per ciphertext."""
        return self.ring_degree

    @property
    def ciphertexts_max(self) -> int:
        """How many ciphertexts one operand or result may hold."""
        return CIPHERTEXT_BYTES_MAX // self.ciphertext_bytes(0)


class TfheParameters(ParameterSet, frozen=True, dict=True):
    """A set of tfhe-rs for gates on single bits; each gate bootstraps, so any depth will do.

    Names as there: the small LWE dimension, the GLWE dimension and polynomial size of the
    bootstrapping key, and the decompositions of the bootstrap (pbs) and of the key switch (ks).
    """

    lwe_dimension: int
    glwe_dimension: int
    polynomial_size: int
    pbs_base_log: int
    pbs_level: int
    ks_base_log: int
    ks_level: int

    @property
    def ciphertexts_max(self) -> int:
        """How many ciphertexts one operand or result may hold, as a gate writes them."""
        return CIPHERTEXT_BYTES_MAX // (TFHE_HEAD_BYTES + 4 * (self.lwe_dimension + 1))


GateParameters = BgvParameters | TfheParameters


def _ckks(params_id: str, ring_degree: int, primes: tuple[int, ...]) -> CkksParameters:
    return CkksParameters(
        params_id=params_id,
        scheme=CKKS,
        engine=PYFHEL,
        security_bits=128,
        error_bound=ERROR_BOUND,
        # Neither the special prime nor the last one can be dropped.
        depth=len(primes) - 2,
        ring_degree=ring_degree,
        prime_bits=tuple(prime.bit_length() for prime in primes),
        primes=primes,
        plain_modulus=0,
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

BGV_N13 = BgvParameters(
    params_id="bgv-n13",
    scheme=BGV,
    engine=PYFHEL,
    security_bits=128,
    error_bound=0.0,
    depth=4,
    ring_degree=8192,
    prime_bits=(43, 43, 44, 44, 44),
    primes=(8796092858369, 8796092792833, 17592186028033, 17592185438209, 17592184717313),
    plain_modulus=114689,
)
# tfhe-rs calls it DEFAULT_PARAMETERS: a gate is wrong with probability 2^-64.
TFHE_132 = TfheParameters(
    params_id="tfhe-132",
    scheme=TFHE,
    engine=TFHE_RS,
    security_bits=132,
    error_bound=0.0,
    depth=None,
    lwe_dimension=805,
    glwe_dimension=3,
    polynomial_size=512,
    pbs_base_log=10,
    pbs_level=2,
    ks_base_log=3,
    ks_level=5,
)

# Lattigo calls it N15QP880H16384H32, here for 16 values; its parts are seeds and halves of keys.
_BOOT_GALOIS_ELEMENTS = (
    5,
    25,
    125,
    625,
    3125,
    7937,
    12589,
    15625,
    15873,
    16873,
    19025,
    28609,
    31745,
    32769,
    49153,
    57345,
    60833,
    61313,
    61441,
    62945,
    63489,
    65535,
)
CKKS_BOOT_N15 = LattigoParameters(
    params_id="ckks-boot-n15",
    scheme=CKKS_BOOT,
    engine=LATTIGO,
    security_bits=128,
    error_bound=2e-5,
    depth=2,
    scale_bits=31,
    prime_bits=(40, 31, 31),
    slots=16,
    ciphertext_lengths=(1_573_214, 1_048_910, 524_606),
    part_bytes={
        "rlk": 37_750_192,
        "d2s": 1_048_672,
        "s2d": 37_750_192,
        **{f"gal{element}": 37_750_208 for element in _BOOT_GALOIS_ELEMENTS},
    },
)

CKKS_SETS: dict[str, CkksParameters] = {
    params.params_id: params for params in (CKKS_N13, CKKS_N14, CKKS_N14D5)
}
SEAL_SETS: dict[str, SealParameters] = {**CKKS_SETS, BGV_N13.params_id: BGV_N13}
SETS_BY_KEY_PARMS_ID: dict[bytes, SealParameters] = {
    params.key_parms_id: params for params in SEAL_SETS.values()
}
PARAMETER_SETS: dict[str, ParameterSet] = {
    **SEAL_SETS,
    TFHE_132.params_id: TFHE_132,
    CKKS_BOOT_N15.params_id: CKKS_BOOT_N15,
}

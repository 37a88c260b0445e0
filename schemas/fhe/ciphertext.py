"""Recognise a ciphertext: which parameter set, which level, which scale, and whether it is sound.

The check is complete: what passes here, SEAL loads (a differential test holds this), so the
engine's C++ parser never sees bytes that it would have to refuse.
"""

import numpy as np
from msgspec import Struct

from schemas.fhe import seal
from schemas.fhe.parameters import CIPHERTEXT_HEAD_BYTES, SEAL_SETS, SealParameters

# Rescaling divides by a prime near 2^40 instead of by 2^40, so an honest scale drifts by up to
# 4e-5 over five levels. Anything further away was not made by a chain of our operations.
SCALE_TOLERANCE = 1e-4


class CiphertextInvalid(Exception):
    """Not a ciphertext that can be computed with. `reason` is stable, `message` is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CiphertextShape(Struct, frozen=True):
    """What a sound ciphertext is. `size_bytes` is its exact serialised length."""

    params_id: str
    level: int
    scale: float
    size_bytes: int


def read_ciphertext(data: bytes, params: SealParameters) -> CiphertextShape:
    """The shape of the serialised ciphertext `data` of the set `params`, every residue checked.

    Raises `CiphertextInvalid` with one of the reasons truncated, malformed, compressed,
    unsupported_version, wrong_length, wrong_parameters, not_relinearised, scale_not_nominal,
    residue_out_of_range, transparent.
    """
    shape = read_shape(data, params)
    _check_residues(data, params, params.data_primes(shape.level))
    return shape


def read_shape(data: bytes, params: SealParameters) -> CiphertextShape:
    """The same from the head and the length alone, for whoever leaves the residues to the engine.

    Raises `CiphertextInvalid` as `read_ciphertext` does, but for the last two reasons.
    """
    try:
        fields = seal.read_ciphertext_head(data)
    except seal.Malformed as error:
        raise CiphertextInvalid(error.reason, error.message) from None
    level = params.levels_by_parms_id.get(fields.parms_id)
    if level is None:
        raise CiphertextInvalid("wrong_parameters", _whose(fields.parms_id, params))
    if fields.parts != 2:
        raise CiphertextInvalid(
            "not_relinearised", f"the ciphertext has {fields.parts} parts instead of 2"
        )
    primes = params.data_primes(level)
    expected = (params.ring_degree, len(primes), True, 1)
    found = (fields.ring_degree, fields.primes, fields.is_ntt, fields.correction)
    if found != expected:
        raise CiphertextInvalid("malformed", "the head contradicts the parameter set it names")
    if len(data) != params.ciphertext_bytes(level):
        raise CiphertextInvalid(
            "wrong_length",
            f"{len(data)} bytes instead of {params.ciphertext_bytes(level)} at level {level}",
        )
    if not abs(fields.scale / params.scale - 1.0) <= SCALE_TOLERANCE:
        raise CiphertextInvalid(
            "scale_not_nominal",
            f"the scale is {fields.scale!r}; encode at 2^{params.scale_bits}",
        )
    return CiphertextShape(params.params_id, level, fields.scale, len(data))


def _check_residues(data: bytes, params: SealParameters, primes: tuple[int, ...]) -> None:
    words = np.frombuffer(data, dtype="<u8", offset=CIPHERTEXT_HEAD_BYTES)
    residues = words.reshape(2, len(primes), params.ring_degree)
    if (residues.max(axis=2) >= np.array(primes, dtype=np.uint64)).any():
        raise CiphertextInvalid("residue_out_of_range", "a coefficient is not below its prime")
    if not residues[1].any():
        raise CiphertextInvalid("transparent", "the ciphertext does not hide its value")


def _whose(parms_id: bytes, wanted: SealParameters) -> str:
    for params in SEAL_SETS.values():
        if parms_id in params.levels_by_parms_id:
            return f"the ciphertext belongs to {params.params_id}, not to {wanted.params_id}"
    return f"the ciphertext belongs to no parameter set of ours, hence not to {wanted.params_id}"

"""Keys and ciphertexts of Lattigo's sets, as much as the gateway recognises.

The lengths, the names of a key's parts and the description that leads a ciphertext are looked at
here. Whether the rest has the right form, the helper says that computes with them, byte by byte,
before its library sees any of it (fhe_workers/native/bootstrap/shapes.go).
"""

import json
from typing import Any

from schemas.fhe.ciphertext import CiphertextInvalid, CiphertextShape
from schemas.fhe.key_material import KeyRefused
from schemas.fhe.parameters import LattigoParameters

# Scales drift from the nominal one by as much as 31-bit primes differ from 2^31.
SCALE_TOLERANCE = 1e-2
# One byte that says that a description follows, and the description.
_HEAD_BYTES = 278


def read_lattigo_ciphertext(data: bytes, params: LattigoParameters) -> CiphertextShape:
    """The level and scale of the serialised ciphertext `data` of the set `params`.

    Raises `CiphertextInvalid`: wrong_length, malformed, scale_not_nominal.
    """
    if len(data) not in params.ciphertext_lengths:
        raise CiphertextInvalid(
            "wrong_length", f"no ciphertext of {params.params_id} has {len(data)} bytes"
        )
    scale = _scale_of(data[:_HEAD_BYTES])
    if not abs(scale / params.scale - 1.0) <= SCALE_TOLERANCE:
        raise CiphertextInvalid(
            "scale_not_nominal", f"the scale is {scale!r}; encode at 2^{params.scale_bits}"
        )
    level = params.ciphertext_lengths.index(len(data))
    return CiphertextShape(params.params_id, level, scale, len(data))


def check_part(kind: str, size_bytes: int, params: LattigoParameters) -> None:
    """Whether a key of `params` has a part of this kind and length. Raises `KeyRefused`."""
    wanted = params.part_bytes.get(kind)
    if wanted is None:
        raise KeyRefused("not_an_evaluation_key", f"{params.params_id} has no part {kind}")
    if size_bytes != wanted:
        raise KeyRefused("wrong_length", f"{kind} has {size_bytes} bytes instead of {wanted}")


def _scale_of(head: bytes) -> float:
    try:
        described: Any = json.loads(head[1:])
        plaintext = described["PlaintextMetaData"]
        known = head[0] == 1 and (plaintext["IsBatched"], plaintext["LogDimensions"]) == (
            "0x01",
            ["0x00", "0x04"],
        )
        return float(plaintext["Scale"]["Value"]) if known else _foreign()
    except (ValueError, KeyError, TypeError):
        _foreign()
        raise


def _foreign() -> float:
    raise CiphertextInvalid("malformed", "the ciphertext has no description of this set's form")

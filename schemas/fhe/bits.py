"""Recognise what a gate takes: ciphertexts of one parameter set, one after another.

A ciphertext holds one bit (tfhe-rs) or a bit in each slot (BGV); which bits and how many is the
client's business. The check is complete, as that of `schemas.fhe.ciphertext`.
"""

from msgspec import Struct

from schemas.fhe import tfhe
from schemas.fhe.ciphertext import CiphertextInvalid, read_ciphertext, read_shape
from schemas.fhe.parameters import BgvParameters, GateParameters


class BitsShape(Struct, frozen=True):
    """What sound operands of gates are. count: ciphertexts in them."""

    count: int
    size_bytes: int


def read_bits(data: bytes, params: GateParameters) -> BitsShape:
    """The shape of the ciphertexts in `data`. Raises `CiphertextInvalid`, see `read_ciphertext`."""
    pieces = split_bits(data, params)
    if isinstance(params, BgvParameters):
        for piece in pieces:
            read_ciphertext(piece, params)
    return BitsShape(len(pieces), len(data))


def split_bits(data: bytes, params: GateParameters) -> list[bytes]:
    """The ciphertexts in `data`; of BGV's the residues are left to the engine.

    Raises `CiphertextInvalid`.
    """
    if not isinstance(params, BgvParameters):
        try:
            return tfhe.split_ciphertexts(data, params)
        except ValueError as error:
            raise CiphertextInvalid("malformed", str(error)) from None
    size = params.ciphertext_bytes(0)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if not pieces:
        raise CiphertextInvalid("truncated", "there is no ciphertext")
    for piece in pieces:
        if read_shape(piece, params).level:
            raise CiphertextInvalid("wrong_parameters", "a prime of the ciphertext was dropped")
    return pieces

"""A client as our users have one: it holds the secret key, and gives bytes away."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from Pyfhel import PyCtxt, Pyfhel

from schemas.fhe.parameters import CKKS_N13, SealParameters

Vector = NDArray[np.float64]


class Client:
    """Keys of one parameter set; `relin` and `rotate` are what a client uploads."""

    def __init__(self, params: SealParameters = CKKS_N13, rotations: tuple[int, ...] = ()) -> None:
        self.params = params
        self.engine: Any = Pyfhel()
        self.engine.contextGen(
            "ckks",
            n=params.ring_degree,
            scale=params.scale,
            qi_sizes=list(params.prime_bits),
            sec=params.security_bits,
        )
        self.engine.keyGen()
        self.engine.relinKeyGen()
        self.relin: bytes = self.engine.to_bytes_relin_key("none")
        self.rotate = b""
        if rotations:
            self.engine.rotateKeyGen(list(rotations))
            self.rotate = self.engine.to_bytes_rotate_key("none")

    @property
    def secret(self) -> bytes:
        """The secret key as a careless client would upload it."""
        return bytes(self.engine.to_bytes_secret_key("none"))

    def encrypt(self, values: Vector, level: int = 0) -> bytes:
        """A ciphertext of `values` at `level`."""
        ciphertext = self.engine.encryptFrac(np.ascontiguousarray(values, dtype=np.float64))
        for _ in range(level):
            self.engine.mod_switch_to_next(ciphertext)
        return bytes(ciphertext.to_bytes())

    def decrypt(self, data: bytes) -> Vector:
        """All slots of a ciphertext."""
        ciphertext = PyCtxt(pyfhel=self.engine, bytestring=data)
        return np.asarray(self.engine.decryptFrac(ciphertext))

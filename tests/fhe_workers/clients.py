"""A client as our users have one: it holds the secret key, and gives bytes away."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from Pyfhel import PyCtxt

from infra.keyholder import RELIN, ROTATE, SECRET, Keyholder
from schemas.fhe.parameters import CKKS_N13, SealParameters

Vector = NDArray[np.float64]


class Client:
    """Keys of one parameter set; `relin` and `rotate` are what a client uploads."""

    def __init__(self, params: SealParameters = CKKS_N13, rotations: tuple[int, ...] = ()) -> None:
        self.params = params
        holder = Keyholder.generated(params, rotations)
        self.engine: Any = holder.engine
        self.relin, self.rotate = holder.parts[RELIN], holder.parts.get(ROTATE, b"")
        self.secret = holder.parts[SECRET]

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

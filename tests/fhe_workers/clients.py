"""A client as our users have one: it holds the secret key, and gives bytes away."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import weir_tfhe
from numpy.typing import NDArray
from Pyfhel import PyCtxt, Pyfhel

from infra.keyholder import RELIN, ROTATE, SECRET, Keyholder
from schemas.fhe import tfhe
from schemas.fhe.parameters import BGV_N13, CKKS_N13, TFHE_132, SealParameters

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


class BitsClient:
    """Keys of bgv-n13: a bit in each slot."""

    def __init__(self) -> None:
        self.engine: Any = Pyfhel()
        self.engine.contextGen(
            "bgv",
            n=BGV_N13.ring_degree,
            t_bits=BGV_N13.plain_modulus.bit_length(),
            qi_sizes=list(BGV_N13.prime_bits),
            sec=BGV_N13.security_bits,
        )
        self.engine.keyGen()
        self.engine.relinKeyGen()
        self.relin: bytes = self.engine.to_bytes_relin_key("none")

    def encrypt(self, bits: NDArray[np.int64]) -> bytes:
        """One ciphertext of as many bits as there are slots, or fewer."""
        values = np.ascontiguousarray(bits, dtype=np.int64)
        return bytes(self.engine.encryptBGV(values).to_bytes("none"))

    def decrypt(self, data: bytes) -> NDArray[np.int64]:
        """All slots of a ciphertext."""
        ciphertext = PyCtxt(pyfhel=self.engine, bytestring=data)
        return np.asarray(self.engine.decryptBGV(ciphertext))[: BGV_N13.slots]


class GateClient:
    """Keys of tfhe-132: one ciphertext for each bit."""

    def __init__(self) -> None:
        self._client = weir_tfhe.Client("tfhe-132")
        self.server_key, self.secret = self._client.server_key(), self._client.secret()

    def encrypt(self, bits: Sequence[int]) -> bytes:
        """Fresh ciphertexts, one after another."""
        return self._client.encrypt([bool(bit) for bit in bits])

    def decrypt(self, data: bytes) -> list[int]:
        """The bits in computed ciphertexts."""
        bits = tfhe.split_ciphertexts(data, TFHE_132)
        return [int(self._client.decrypt(bit)) for bit in bits]

"""Who holds a secret key: makes it, encrypts and decrypts. Client-side: a server that computes has
none of this.

The engine is imported when a key is made: it takes a sixth of a second.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from schemas.fhe.parameters import SealParameters

SECRET, PUBLIC, RELIN, ROTATE = "secret", "public", "relin", "rotate"
_ABOUT = "parameters.json"


class NoKeyholder(Exception):
    """The folder holds no keys of ours; one line for a person."""


class Keyholder:
    """The keys of one parameter set. Make it by `generated` or `read`."""

    def __init__(self, params: SealParameters) -> None:
        from Pyfhel import PyCtxt, Pyfhel

        self.params, self._ciphertext = params, PyCtxt
        self.engine: Any = Pyfhel()
        self.engine.contextGen(
            params.scheme,
            n=params.ring_degree,
            scale=params.scale,
            qi_sizes=list(params.prime_bits),
            sec=params.security_bits,
        )
        self.parts: dict[str, bytes] = {}

    @classmethod
    def generated(cls, params: SealParameters, rotations: Sequence[int] = ()) -> "Keyholder":
        """Fresh keys. rotations: the slot steps that the evaluation key allows."""
        holder = cls(params)
        engine = holder.engine
        engine.keyGen()
        engine.relinKeyGen()
        holder.parts = {
            SECRET: bytes(engine.to_bytes_secret_key("none")),
            PUBLIC: bytes(engine.to_bytes_public_key("none")),
            RELIN: bytes(engine.to_bytes_relin_key("none")),
        }
        if rotations:
            engine.rotateKeyGen(list(rotations))
            holder.parts[ROTATE] = bytes(engine.to_bytes_rotate_key("none"))
        return holder

    @property
    def evaluation_key(self) -> Mapping[str, bytes]:
        """What the server needs for computing; it decrypts nothing."""
        return {kind: self.parts[kind] for kind in (RELIN, ROTATE) if kind in self.parts}

    def encrypt(self, values: Sequence[float]) -> bytes:
        """A ciphertext that only this holder can read."""
        from numpy import array

        ciphertext = self.engine.encryptFrac(array(values, dtype="float64"))
        return bytes(ciphertext.to_bytes("none"))

    def decrypt(self, data: bytes, count: int) -> list[float]:
        """The first values of a ciphertext. Raises ValueError or RuntimeError when it is none."""
        ciphertext = self._ciphertext(pyfhel=self.engine, bytestring=data)
        return [float(value) for value in self.engine.decryptFrac(ciphertext)[:count]]

    def write(self, folder: Path) -> None:
        """Keep the keys in a new folder that only its owner reads. Raises FileExistsError."""
        folder.mkdir(parents=True, mode=0o700)
        about = {"params_id": self.params.params_id}
        (folder / _ABOUT).write_bytes(msgspec.json.encode(about) + b"\n")
        for kind, data in self.parts.items():
            path = folder / f"{kind}.key"
            path.touch(mode=0o600)
            path.write_bytes(data)

    @classmethod
    def read(cls, folder: Path, params: Mapping[str, SealParameters]) -> "Keyholder":
        """The keys that `write` has kept, of one of these sets. Raises NoKeyholder."""
        try:
            about = msgspec.json.decode((folder / _ABOUT).read_bytes(), type=dict[str, str])
            holder = cls(params[about["params_id"]])
            holder.parts = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.key"))}
            holder.engine.from_bytes_secret_key(holder.parts[SECRET])
            holder.engine.from_bytes_public_key(holder.parts[PUBLIC])
        except (OSError, KeyError, msgspec.DecodeError, ValueError, RuntimeError) as error:
            raise NoKeyholder(f"{folder} holds no keys: {error}") from error
        return holder

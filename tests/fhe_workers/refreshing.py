"""A client of the bootstrapping sets: the helper's own other side."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import msgspec

from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.parameters import CKKS_BOOT_N15, LattigoParameters

# The same code over a ring that is 16 times smaller and keeps no secret: keys of a gigabyte, and
# the seconds that they take, are for the bench. The product knows no set of this name.
INSECURE = "insecure-n11"


class RefreshingClient:
    """Keys in a folder; `parts` and `part` are what a client uploads."""

    def __init__(self, program: Path, folder: Path, set_name: str = INSECURE) -> None:
        self.program, self._folder, self._set = program, folder, set_name
        self._run("keygen", str(folder))
        self.parts = [
            StoredPart(
                kind=path.name,
                object=f"{folder.name}/{path.name}",
                sha256=sha256(path.read_bytes()).hexdigest(),
                size_bytes=path.stat().st_size,
            )
            for path in sorted((folder / "parts").iterdir())
        ]

    @property
    def params(self) -> LattigoParameters:
        """What the product would know of the set, if it knew it."""
        lengths = {part.kind: part.size_bytes for part in self.parts}
        return msgspec.structs.replace(CKKS_BOOT_N15, params_id=self._set, part_bytes=lengths)

    async def part(self, part: StoredPart) -> bytes:
        """The bytes of one part of the evaluation key."""
        return self.bytes_of(part.kind)

    def bytes_of(self, kind: str) -> bytes:
        """The same by its name."""
        return (self._folder / "parts" / kind).read_bytes()

    def encrypt(self, values: list[float], level: int = 0) -> bytes:
        """A ciphertext of at most 16 values."""
        return self._run("encrypt", str(self._folder), str(2 - level), data=json.dumps(values))

    def decrypt(self, data: bytes) -> list[float]:
        """All 16 values of a ciphertext."""
        return list(json.loads(self._run("decrypt", str(self._folder), data=data)))

    def _run(self, command: str, *arguments: str, data: bytes | str = b"") -> bytes:
        given = data.encode() if isinstance(data, str) else data
        line = [str(self.program), command, self._set, *arguments]
        return subprocess.run(line, input=given, capture_output=True, check=True).stdout

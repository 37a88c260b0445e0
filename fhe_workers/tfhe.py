"""The engine tfhe-rs: bootstrapped gates on single bits, by the extension `weir_tfhe`.

The extension releases the GIL, knows `Server(params_id, key).gate(name, a, b, c)` and nothing else
of ours, so another library with bootstrapped gates can take its place.
"""

from collections.abc import Sequence

import weir_tfhe
from msgspec import Struct

from fhe_workers import gates
from fhe_workers.engines import Outcome
from fhe_workers.messages import Work
from fhe_workers.refusals import JobRefused
from schemas.fhe.key_material import SERVER, KeyRefused, read_key_part
from schemas.fhe.parameters import TfheParameters

# Measured: 126 MB for a key of 13 MB, whose Fourier transform is kept.
_EXPANDED_PER_BYTE = 10


class TfheServer(Struct, frozen=True):
    """A client's key, expanded."""

    params: TfheParameters
    server: weir_tfhe.Server
    resident_bytes: int


def load(params: TfheParameters, parts: list[bytes]) -> TfheServer:
    """See `Engine.load`."""
    try:
        [data] = parts
        part = read_key_part(data)
        if (part.kind, part.params_id) != (SERVER, params.params_id):
            raise ValueError(f"this is a {part.kind} key of {part.params_id}")
        server = weir_tfhe.Server(params.params_id, data)
    except (KeyRefused, ValueError) as error:
        raise JobRefused("key_invalid", f"the engine refused the key: {error}"[:200]) from None
    return TfheServer(params, server, _EXPANDED_PER_BYTE * len(data))


def compute(work: Work, loaded: TfheServer, operands: list[bytes]) -> Outcome:
    """See `Engine.compute`."""
    try:
        return gates.compute(work, _TfheGates(loaded.server), operands, loaded.params)
    except ValueError as error:
        raise JobRefused("ciphertext_invalid", str(error)[:200]) from None


class _TfheGates:
    """Wires are serialised ciphertexts: to read one takes a thousandth of a gate."""

    def __init__(self, server: weir_tfhe.Server) -> None:
        self._server = server

    def read(self, data: bytes) -> bytes:
        return data

    def write(self, wire: bytes) -> bytes:
        return wire

    def gate(self, name: str, wires: Sequence[bytes]) -> bytes:
        return self._server.gate(name, *wires)

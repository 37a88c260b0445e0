"""Gates on packed bits: values 0 and 1 in every slot, one multiplication for each gate but NOT.

The server cannot see the noise, so levels are counted where the job is decided
(`schemas.fhe.circuit.level_of`); what arrives here has room.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from Pyfhel import PyCtxt

from fhe_workers.contexts import Context
from fhe_workers.keys import require_relin_key
from fhe_workers.refusals import JobRefused


class BgvGates:
    """The gates under one context. Raises what the engine raises: see `ckks.refusal_of`."""

    def __init__(self, context: Context) -> None:
        self._context, self._engine = context, context.engine
        ones = np.ones(context.params.slots, dtype=np.int64)
        self._one = self._engine.encodeBGV(ones)

    def read(self, data: bytes) -> Any:
        """A ciphertext whose head was checked; the engine checks its residues."""
        return PyCtxt(pyfhel=self._engine, bytestring=data)

    def write(self, wire: Any) -> bytes:
        """The serialised ciphertext, never compressed."""
        return bytes(wire.to_bytes("none"))

    def gate(self, name: str, wires: Sequence[Any]) -> Any:
        """The gate's output; the wires stay as they are. Raises JobRefused.

        No sum is of wires alone: of one and its opposite it would hide nothing, and be refused.
        """
        engine = self._engine
        match (name, *wires):
            case ("not", a):
                return self._not(a)
            case ("and", a, b):
                return self._and(a, b)
            case ("nand", a, b):
                return self._not(self._and(a, b))
            case ("or", a, b):
                return engine.add(engine.sub(a, self._and(a, b), True), b, False)
            case ("xor", a, b):
                both = self._and(a, b)
                return engine.add(engine.sub(a, engine.add(both, both, True), True), b, False)
            case ("mux", a, b, c):
                return self._mux(a, b, c)
        raise JobRefused("unsupported_operation", f"no gate {name} of {len(wires)}")

    def _and(self, a: Any, b: Any) -> Any:
        require_relin_key(self._context)
        product = self._engine.multiply(a, b, True)
        self._engine.relinearize(product)
        return product

    def _not(self, a: Any) -> Any:
        return self._engine.add_plain(self._engine.negate(a, True), self._one, False)

    def _mux(self, a: Any, b: Any, c: Any) -> Any:
        """a ? b : c, as c + a(b - c)."""
        try:
            difference = self._engine.sub(b, c, True)
        except RuntimeError as error:
            if "transparent" not in str(error):
                raise
            # They are the same ciphertext: there is nothing to choose.
            return PyCtxt(copy_ctxt=c)
        return self._engine.add(self._and(a, difference), c, False)

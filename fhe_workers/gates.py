"""Gates and circuits over any engine that knows a single gate: which wires, in which order."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from fhe_workers.engines import PROGRESS, Outcome
from fhe_workers.messages import Work
from fhe_workers.refusals import JobRefused
from schemas.fhe.bits import split_bits
from schemas.fhe.ciphertext import CiphertextInvalid
from schemas.fhe.circuit import Circuit, read_circuit
from schemas.fhe.parameters import GateParameters

CIRCUIT = "circuit"

W = TypeVar("W")


class GateEngine(Protocol[W]):
    """One ciphertext at a time; `W` is a ciphertext as the engine holds it."""

    def read(self, data: bytes) -> W:
        """The ciphertext in `data`. Raises JobRefused (ciphertext_invalid)."""
        ...

    def gate(self, name: str, wires: Sequence[W]) -> W:
        """The gate's output. Raises JobRefused."""
        ...

    def write(self, wire: W) -> bytes:
        """The serialised ciphertext."""
        ...


def compute(
    work: Work, engine: GateEngine[W], operands: Sequence[bytes], params: GateParameters
) -> Outcome:
    """A gate place by place, or a circuit. Raises JobRefused.

    Tells `PROGRESS` after each gate.
    """
    try:
        pieces = [split_bits(data, params) for data in operands]
    except CiphertextInvalid as error:
        raise JobRefused("ciphertext_invalid", error.message) from None
    if work.operation == CIRCUIT:
        results = _circuit(work, engine, pieces)
    else:
        results = _one_gate(work, engine, pieces)
    return Outcome(b"".join(results), work.level, count=len(results))


def _one_gate(
    work: Work, engine: GateEngine[W], operands: Sequence[Sequence[bytes]]
) -> list[bytes]:
    tell, total = PROGRESS.get(), len(operands[0])
    if any(len(pieces) != total for pieces in operands):
        raise JobRefused("ciphertext_invalid", "the operands hold different numbers of ciphertexts")
    results = []
    for place, row in enumerate(zip(*operands, strict=True)):
        wires = [engine.read(data) for data in row]
        results.append(engine.write(engine.gate(work.operation, wires)))
        tell(place + 1, total)
    return results


def _circuit(work: Work, engine: GateEngine[W], operands: Sequence[Sequence[bytes]]) -> list[bytes]:
    tell = PROGRESS.get()
    try:
        circuit = read_circuit(work.arguments)
        given = [operands[source.operand][source.place] for source in circuit.sources]
    except (ValueError, IndexError):
        raise JobRefused("unsupported_operation", "the circuit does not fit its inputs") from None
    wires: dict[int, W] = {at: engine.read(data) for at, data in enumerate(given)}
    done_with = _last_uses(circuit)
    for number, step in enumerate(circuit.steps):
        wire = len(given) + number
        wires[wire] = engine.gate(step.gate, [wires[taken] for taken in step.wires])
        # A wire may take half a megabyte: only what is still needed is kept.
        for taken in {*step.wires, wire}:
            if done_with.get(taken, wire) == wire:
                del wires[taken]
        tell(number + 1, len(circuit.steps))
    return [engine.write(wires[output]) for output in circuit.outputs]


def _last_uses(circuit: Circuit) -> dict[int, int]:
    """Of each wire that is used, the gate that needs it last; outputs are needed for ever."""
    last: dict[int, int] = {}
    for number, step in enumerate(circuit.steps):
        last |= dict.fromkeys(step.wires, len(circuit.sources) + number)
    return last | dict.fromkeys(circuit.outputs, -1)

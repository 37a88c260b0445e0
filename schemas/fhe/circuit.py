"""Circuits of gates: read from what a client wrote, put in an order that can be computed.

Wires are numbered: first the inputs that are used, then each gate's output. A compiled circuit is
data (`arguments` of a job), so the decider and the workers read it without knowing any names.
"""

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.types import Count, Json

GATES_MAX = 1_024
DEPTH_MAX = 512
OUTPUTS_MAX = 256
# How many bits each gate takes.
ARITY: Mapping[str, int] = {"and": 2, "mux": 3, "nand": 2, "not": 1, "or": 2, "xor": 2}
# Above every set's depth: how far levels are counted.
_LEVEL_CEILING = 1 << 20

_WIRE = re.compile(r"([^\[\]]+)(?:\[(0|[1-9][0-9]{0,3})\])?")


class CircuitInvalid(Exception):
    """Not a circuit. `place`: where the fault is, as a path into the request's body."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.message = message


class Gate(Struct, frozen=True):
    """A gate as a client writes it: its own name, what it does, and the wires it takes."""

    id: str
    gate: str
    inputs: list[str]


class Step(Struct, frozen=True, array_like=True):
    """A gate and the numbers of its wires."""

    gate: str
    wires: list[int]


class Source(Struct, frozen=True, array_like=True):
    """The input wire that is ciphertext `place` of operand `operand`, both from 0."""

    operand: Count
    place: Count


class Circuit(Struct, frozen=True):
    """A compiled circuit: each step comes after those whose outputs it takes."""

    sources: Annotated[list[Source], Meta(min_length=1)]
    steps: Annotated[list[Step], Meta(min_length=1, max_length=GATES_MAX)]
    outputs: Annotated[list[int], Meta(min_length=1, max_length=OUTPUTS_MAX)]


def compile_circuit(
    inputs: Sequence[str], gates: Sequence[Gate], outputs: Sequence[str]
) -> Circuit:
    """The circuit over operands called `inputs`, in that order.

    A wire is a gate's id, an input's name, or `name[3]` for the fourth ciphertext of an input.
    Raises `CircuitInvalid`: a name twice or not known, a wrong number of wires, a cycle, or more
    gates, levels or outputs than there may be.
    """
    if not 0 < len(gates) <= GATES_MAX:
        raise CircuitInvalid("gates", f"a circuit has 1 to {GATES_MAX} gates")
    if not 0 < len(outputs) <= OUTPUTS_MAX:
        raise CircuitInvalid("outputs", f"a circuit has 1 to {OUTPUTS_MAX} outputs")
    names = _Names(inputs, gates)
    taken = [names.wires_of(at, gate) for at, gate in enumerate(gates)]
    given = [names.find(name, f"outputs[{at}]") for at, name in enumerate(outputs)]
    order = _order(gates, taken)
    if not names.sources:
        raise CircuitInvalid("gates", "no gate takes an input")
    position = {gate: len(names.sources) + at for at, gate in enumerate(order)}

    def number(wire: Source | int) -> int:
        return names.sources[wire] if isinstance(wire, Source) else position[wire]

    return Circuit(
        sources=list(names.sources),
        steps=[Step(gates[at].gate, [number(wire) for wire in taken[at]]) for at in order],
        outputs=[number(wire) for wire in given],
    )


def read_circuit(arguments: Json) -> Circuit:
    """The circuit in a job's arguments. Raises ValueError when it is not one in order."""
    circuit = msgspec.json.decode(arguments, type=Circuit)
    known = len(circuit.sources)
    for step in circuit.steps:
        if len(step.wires) != ARITY.get(step.gate) or not _within(step.wires, known):
            raise ValueError("a gate is unknown or takes a wire that comes after it")
        known += 1
    if not _within(circuit.outputs, known):
        raise ValueError("an output is no wire")
    return circuit


def level_of(gate: str, levels: Sequence[int]) -> int:
    """The level of a gate's result: all the multiplications behind it (see BgvParameters)."""
    if gate == "not":
        return levels[0]
    # MUX multiplies its first with the difference of the others.
    return min(levels[0] + max(levels[1:]) + 1, _LEVEL_CEILING)


def output_level(circuit: Circuit, levels: Sequence[int]) -> int:
    """The highest level within the circuit, whose operands have these levels."""
    wires = [levels[source.operand] for source in circuit.sources]
    for step in circuit.steps:
        wires.append(level_of(step.gate, [wires[wire] for wire in step.wires]))
    return max(wires)


class _Names:
    """What a client's names mean: the place of a gate in its list, or a source."""

    def __init__(self, inputs: Sequence[str], gates: Sequence[Gate]) -> None:
        self._inputs = {name: at for at, name in enumerate(inputs)}
        self._gates: dict[str, int] = {}
        # The sources that are used, and the number of their wires.
        self.sources: dict[Source, int] = {}
        for at, gate in enumerate(gates):
            if gate.id in self._gates or gate.id in self._inputs:
                raise CircuitInvalid(f"gates[{at}].id", f"{gate.id!r} is a wire already")
            self._gates[gate.id] = at

    def wires_of(self, at: int, gate: Gate) -> list[Source | int]:
        place, arity = f"gates[{at}]", ARITY.get(gate.gate)
        if arity is None:
            raise CircuitInvalid(f"{place}.gate", f"no gate {gate.gate!r}: {', '.join(ARITY)}")
        if len(gate.inputs) != arity:
            message = f"{gate.gate} takes {arity} wires, not {len(gate.inputs)}"
            raise CircuitInvalid(f"{place}.inputs", message)
        wires = enumerate(gate.inputs)
        return [self.find(name, f"{place}.inputs[{number}]") for number, name in wires]

    def find(self, name: str, place: str) -> Source | int:
        if name in self._gates:
            return self._gates[name]
        parsed = _WIRE.fullmatch(name)
        operand = self._inputs.get(parsed[1]) if parsed else None
        if parsed is None or operand is None:
            raise CircuitInvalid(place, f"there is no wire {name!r}")
        source = Source(operand, int(parsed[2] or 0))
        self.sources.setdefault(source, len(self.sources))
        return source


def _order(gates: Sequence[Gate], taken: Sequence[Sequence[Source | int]]) -> list[int]:
    """The gates in an order in which each comes after those that it takes from."""
    takers: list[list[int]] = [[] for _ in gates]
    missing = [0] * len(gates)
    for at, wires in enumerate(taken):
        for wire in {wire for wire in wires if isinstance(wire, int)}:
            takers[wire].append(at)
            missing[at] += 1
    depth = [1] * len(gates)
    ready = deque(at for at, count in enumerate(missing) if not count)
    order: list[int] = []
    while ready:
        at = ready.popleft()
        order.append(at)
        if depth[at] > DEPTH_MAX:
            raise CircuitInvalid(f"gates[{at}]", f"more than {DEPTH_MAX} gates in a row")
        for taker in takers[at]:
            depth[taker] = max(depth[taker], depth[at] + 1)
            missing[taker] -= 1
            if not missing[taker]:
                ready.append(taker)
    if len(order) < len(gates):
        raise _cycle(gates, taken, missing)
    return order


def _cycle(
    gates: Sequence[Gate], taken: Sequence[Sequence[Source | int]], missing: Sequence[int]
) -> CircuitInvalid:
    """What to say of gates that wait for each other: each of these waits for another of them."""
    at = next(at for at, count in enumerate(missing) if count)
    walked: list[int] = []
    while at not in walked:
        walked.append(at)
        at = next(wire for wire in taken[at] if isinstance(wire, int) and missing[wire])
    cycle = [*walked[walked.index(at) :], at]
    shown = " <- ".join(gates[gate].id for gate in cycle[:8])
    return CircuitInvalid(f"gates[{at}].inputs", f"a gate takes its own output: {shown}")


def _within(wires: Sequence[int], count: int) -> bool:
    return all(0 <= wire < count for wire in wires)

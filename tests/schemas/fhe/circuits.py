"""Circuits as clients write them: the arithmetic of little-endian numbers, gate by gate."""

from collections.abc import Sequence

from schemas.fhe.circuit import Circuit, Gate

TRUTH = {
    "and": lambda a, b: a & b,
    "mux": lambda a, b, c: b if a else c,
    "nand": lambda a, b: 1 - (a & b),
    "not": lambda a: 1 - a,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


def adder(bits: int) -> tuple[list[Gate], list[str]]:
    """a + b, with one bit more: gates, and the wires of the sum."""
    gates = [Gate("s0", "xor", ["a[0]", "b[0]"]), Gate("c0", "and", ["a[0]", "b[0]"])]
    for i in range(1, bits):
        gates += [
            Gate(f"p{i}", "xor", [f"a[{i}]", f"b[{i}]"]),
            Gate(f"s{i}", "xor", [f"p{i}", f"c{i - 1}"]),
            # The carry: of the two bits when they are equal, else the one that comes in.
            Gate(f"c{i}", "mux", [f"p{i}", f"c{i - 1}", f"a[{i}]"]),
        ]
    return gates, [*(f"s{i}" for i in range(bits)), f"c{bits - 1}"]


def comparator(bits: int) -> tuple[list[Gate], list[str]]:
    """Whether a > b."""
    gates = [Gate("n0", "not", ["b[0]"]), Gate("g0", "and", ["a[0]", "n0"])]
    for i in range(1, bits):
        gates += [
            Gate(f"d{i}", "xor", [f"a[{i}]", f"b[{i}]"]),
            # The highest bit in which they differ decides.
            Gate(f"g{i}", "mux", [f"d{i}", f"a[{i}]", f"g{i - 1}"]),
        ]
    return gates, [f"g{bits - 1}"]


def evaluated(circuit: Circuit, operands: Sequence[Sequence[int]]) -> list[int]:
    """The circuit's outputs over bits in the clear."""
    wires = [operands[source.operand][source.place] for source in circuit.sources]
    for step in circuit.steps:
        wires.append(TRUTH[step.gate](*(wires[wire] for wire in step.wires)))
    return [wires[output] for output in circuit.outputs]


def bits_of(number: int, count: int) -> list[int]:
    """The lowest bits of a number, lowest first."""
    return [number >> place & 1 for place in range(count)]


def number_of(bits: Sequence[int]) -> int:
    """The number that these bits are, lowest first."""
    return sum(bit << place for place, bit in enumerate(bits))

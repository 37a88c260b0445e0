"""What a client wrote becomes an order that can be computed, or a fault with its place."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.fhe.circuit import (
    ARITY,
    DEPTH_MAX,
    GATES_MAX,
    OUTPUTS_MAX,
    Circuit,
    CircuitInvalid,
    Gate,
    compile_circuit,
    level_of,
    output_level,
    read_circuit,
)
from tests.schemas.fhe.circuits import adder, bits_of, comparator, evaluated, number_of

NUMBERS = st.integers(0, 255)


@settings(max_examples=50)
@given(NUMBERS, NUMBERS, st.randoms(use_true_random=False))
def test_adders_and_comparators_are_right_in_any_order_of_gates(
    a: int, b: int, rng: random.Random
) -> None:
    for (gates, outputs), expected in ((adder(8), a + b), (comparator(8), int(a > b))):
        shuffled = rng.sample(gates, len(gates))
        circuit = compile_circuit(["a", "b"], shuffled, outputs)
        assert read_circuit(msgspec.json.encode(circuit).decode()) == circuit
        assert number_of(evaluated(circuit, [bits_of(a, 8), bits_of(b, 8)])) == expected


def test_an_input_may_be_an_output_and_a_bare_name_is_its_first_place() -> None:
    circuit = compile_circuit(["a"], [Gate("x", "not", ["a"])], ["a[0]", "x", "a"])
    assert evaluated(circuit, [[1]]) == [1, 0, 1]


X, Y = Gate("x", "and", ["a", "y"]), Gate("y", "and", ["a", "x"])
FAULTS = [
    ([X, Y], ["x"], "gates[0].inputs", "its own output: x <- y <- x"),
    ([Gate("x", "not", ["x"])], ["x"], "gates[0].inputs", "its own output: x <- x"),
    # One that only hangs on a cycle is not part of it.
    ([Gate("z", "not", ["x"]), X, Y], ["z"], "gates[1].inputs", "x <- y <- x"),
    ([Gate("x", "and", ["a", "q"])], ["x"], "gates[0].inputs[1]", "no wire 'q'"),
    ([Gate("x", "not", ["q[0]"])], ["x"], "gates[0].inputs[0]", r"no wire 'q\[0\]'"),
    ([Gate("x", "not", ["a[-1]"])], ["x"], "gates[0].inputs[0]", "no wire"),
    ([Gate("x", "not", ["a[01]"])], ["x"], "gates[0].inputs[0]", "no wire"),
    ([Gate("x", "not", ["a"]), Gate("y", "not", ["x[0]"])], ["y"], "gates[1].inputs[0]", "no wire"),
    ([Gate("x", "not", ["a"])], ["x", "q"], "outputs[1]", "no wire 'q'"),
    ([Gate("x", "and", ["a"])], ["x"], "gates[0].inputs", "and takes 2 wires, not 1"),
    ([Gate("x", "nor", ["a", "a"])], ["x"], "gates[0].gate", "no gate 'nor'"),
    ([Gate("x", "not", ["a"])] * 2, ["x"], "gates[1].id", "'x' is a wire already"),
    ([Gate("a", "not", ["a"])], ["a"], "gates[0].id", "'a' is a wire already"),
    ([], ["a"], "gates", "1 to"),
    ([Gate("x", "not", ["a"])], [], "outputs", "1 to"),
    ([Gate("x", "not", ["a"])], ["x"] * (OUTPUTS_MAX + 1), "outputs", "1 to"),
    ([Gate(f"x{i}", "not", ["a"]) for i in range(GATES_MAX + 1)], ["x0"], "gates", "1 to"),
]


@pytest.mark.parametrize(("gates", "outputs", "place", "message"), FAULTS)
def test_a_fault_is_told_with_its_place(
    gates: list[Gate], outputs: list[str], place: str, message: str
) -> None:
    with pytest.raises(CircuitInvalid, match=message) as fault:
        compile_circuit(["a"], gates, outputs)
    assert fault.value.place == place


def test_the_longest_chain_is_bounded() -> None:
    def chain(length: int) -> Circuit:
        wires = ["a", *(f"x{i}" for i in range(length))]
        gates = [Gate(wires[i + 1], "not", [wires[i]]) for i in range(length)]
        return compile_circuit(["a"], gates, [wires[-1]])

    assert len(chain(DEPTH_MAX).steps) == DEPTH_MAX
    with pytest.raises(CircuitInvalid, match=f"more than {DEPTH_MAX} gates in a row"):
        chain(DEPTH_MAX + 1)


@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        "[",
        '{"sources":[[0,0]],"steps":[["and",[0,1]]],"outputs":[1]}',
        '{"sources":[[0,0]],"steps":[["not",[0,0]]],"outputs":[1]}',
        '{"sources":[[0,0]],"steps":[["nor",[0,0]]],"outputs":[1]}',
        '{"sources":[[0,0]],"steps":[["not",[-1]]],"outputs":[1]}',
        '{"sources":[[0,-1]],"steps":[["not",[0]]],"outputs":[1]}',
        '{"sources":[[-1,0]],"steps":[["not",[0]]],"outputs":[1]}',
        '{"sources":[[0,0]],"steps":[["not",[0]]],"outputs":[2]}',
        '{"sources":[[0,0]],"steps":[],"outputs":[0]}',
    ],
)
def test_arguments_that_are_no_circuit_in_order_are_refused(arguments: str) -> None:
    with pytest.raises(ValueError):  # msgspec's or our own, both are told
        read_circuit(arguments)


def test_levels_count_every_multiplication_behind_a_result() -> None:
    assert level_of("not", [3]) == 3
    assert [level_of(gate, [1, 2]) for gate in ("and", "nand", "or", "xor")] == [4] * 4
    assert level_of("mux", [1, 0, 2]) == 4
    assert set(ARITY) == {"and", "mux", "nand", "not", "or", "xor"}
    chain = [Gate("x", "and", ["a", "b"]), Gate("y", "and", ["x", "b"]), Gate("z", "not", ["y"])]
    assert output_level(compile_circuit(["a", "b"], chain, ["z"]), [0, 1]) == 4
    tree = [*chain[:2], Gate("z", "xor", ["y", "y"])]
    assert output_level(compile_circuit(["a", "b"], tree, ["z"]), [0, 0]) == 5


def test_levels_of_long_chains_stay_numbers_of_a_sensible_size() -> None:
    gates = [Gate(f"x{i}", "and", [f"x{i - 1}" if i else "a"] * 2) for i in range(DEPTH_MAX)]
    circuit = compile_circuit(["a"], gates, [f"x{DEPTH_MAX - 1}"])
    assert output_level(circuit, [0]) < 2**21

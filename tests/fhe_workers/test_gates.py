"""Circuits over an engine that only knows a single gate: order, memory and progress."""

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from fhe_workers import gates
from fhe_workers.engines import PROGRESS
from fhe_workers.messages import CIPHER, Work
from fhe_workers.refusals import JobRefused
from schemas.fhe import tfhe
from schemas.fhe.circuit import Gate, compile_circuit
from schemas.fhe.parameters import TFHE_132
from tests.schemas.fhe.circuits import TRUTH, adder, bits_of, number_of

# What looks like a fresh ciphertext, with the bit in its body: the double's encryption.
_REST = b"".join(piece.fixed or b"\1" * piece.size for piece in tfhe.fresh_form(TFHE_132).pieces)[
    4:
]


def sealed(bits: Sequence[int]) -> bytes:
    return b"".join(bytes([bit, 0, 0, 0]) + _REST for bit in bits)


class Clear:
    """An engine whose ciphertexts hide nothing; counts the wires that are alive."""

    def __init__(self) -> None:
        self.alive = self.most_alive = 0

    def read(self, data: bytes) -> "Wire":
        return Wire(self, data[0])

    def gate(self, name: str, wires: Sequence["Wire"]) -> "Wire":
        return Wire(self, TRUTH[name](*(wire.bit for wire in wires)))

    def write(self, wire: "Wire") -> bytes:
        return bytes([wire.bit])


class Wire:
    def __init__(self, engine: Clear, bit: int) -> None:
        self.engine, self.bit = engine, bit
        engine.alive += 1
        engine.most_alive = max(engine.most_alive, engine.alive)

    def __del__(self) -> None:
        self.engine.alive -= 1


@pytest.fixture
def told() -> Iterator[list[tuple[int, int]]]:
    heard: list[tuple[int, int]] = []
    token = PROGRESS.set(lambda done, total: heard.append((done, total)))
    yield heard
    PROGRESS.reset(token)


def work(operation: str, arguments: str = "{}") -> Work:
    return Work("job-1", operation, "tfhe-132", "key-1", (CIPHER,), 60, True, arguments)


def test_a_gate_works_place_by_place(told: list[tuple[int, int]]) -> None:
    operands = [sealed([0, 0, 1, 1]), sealed([0, 1, 0, 1])]
    for name in ("and", "nand", "or", "xor"):
        outcome = gates.compute(work(name), Clear(), operands, TFHE_132)
        expected = [TRUTH[name](a, b) for a in (0, 1) for b in (0, 1)]
        assert (list(outcome.data), outcome.count) == (expected, 4)
    assert told[:4] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_circuit_keeps_no_wire_longer_than_it_is_needed(told: list[tuple[int, int]]) -> None:
    wired, outputs = adder(64)
    # The sum alone: all other wires can go.
    circuit = compile_circuit(["a", "b"], wired, outputs[-1:])
    engine = Clear()
    operands = [sealed(bits_of(2**64 - 1, 64)), sealed(bits_of(1, 64))]
    outcome = gates.compute(
        work("circuit", msgspec.json.encode(circuit).decode()), engine, operands, TFHE_132
    )
    assert list(outcome.data) == [1]
    assert len(circuit.steps) == 191 and engine.most_alive < 128 + 70 and not engine.alive
    assert told[-1] == (191, 191)


def test_an_output_lives_to_the_end_and_may_come_twice() -> None:
    chain = [Gate("x", "not", ["a"]), Gate("y", "not", ["x"]), Gate("z", "not", ["y"])]
    circuit = compile_circuit(["a"], chain, ["x", "z", "x", "a"])
    arguments = msgspec.json.encode(circuit).decode()
    outcome = gates.compute(work("circuit", arguments), Clear(), [sealed([1])], TFHE_132)
    assert number_of(list(outcome.data)) == 0b1000


def test_what_does_not_fit_is_refused_and_not_computed() -> None:
    circuit = compile_circuit(["a"], [Gate("x", "not", ["a[1]"])], ["x"])
    arguments = msgspec.json.encode(circuit).decode()
    refused = [
        (work("circuit", arguments), [sealed([1])], "unsupported_operation"),
        (work("circuit", "{}"), [sealed([1])], "unsupported_operation"),
        (work("and"), [sealed([1]), sealed([1, 0])], "ciphertext_invalid"),
        (work("and"), [sealed([1]), b"\0" * 80], "ciphertext_invalid"),
    ]
    for job, operands, reason in refused:
        with pytest.raises(JobRefused) as error:
            gates.compute(job, Clear(), operands, TFHE_132)
        assert error.value.reason == reason

"""Packed gates on Pyfhel BGV: right over random bits as far as levels go, and no trap left open."""

import random

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from Pyfhel import PyCtxt

from fhe_workers import jobs, pyfhel
from fhe_workers.bgv import BgvGates
from fhe_workers.contexts import ContextCache
from fhe_workers.messages import CIPHER, Work
from fhe_workers.refusals import JobRefused
from schemas.fhe.bits import read_bits
from schemas.fhe.ciphertext import CiphertextInvalid
from schemas.fhe.circuit import ARITY, compile_circuit, level_of
from schemas.fhe.parameters import BGV_N13, CIPHERTEXT_BYTES_MAX
from tests.fhe_workers.clients import BitsClient
from tests.fhe_workers.mutations import MUTATIONS
from tests.schemas.fhe.circuits import comparator

Bits = NDArray[np.int64]
DATA_BYTES = BGV_N13.ciphertext_bytes(0)


def truth(name: str, wires: list[Bits]) -> Bits:
    a, *rest = wires
    match name:
        case "not":
            return 1 - a
        case "mux":
            return np.where(a == 1, rest[0], rest[1])
    [b] = rest
    return {"and": a & b, "nand": 1 - (a & b), "or": a | b, "xor": a ^ b}[name]


def work(operation: str, arguments: str = "{}") -> Work:
    kinds = (CIPHER,) * ARITY.get(operation, 2)
    return Work("job-1", operation, "bgv-n13", "key-1", kinds, 60, True, arguments)


def test_random_gates_are_right_at_every_level_and_garbage_beyond(carol: BitsClient) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    engine = BgvGates(pyfhel.load(BGV_N13, [carol.relin]))
    fresh = [noise.integers(0, 2, BGV_N13.slots, dtype=np.int64) for _ in range(4)]
    wires = [(bits, engine.read(carol.encrypt(bits)), 0) for bits in fresh]
    seen: set[tuple[str, int]] = set()
    while len({level for _, level in seen}) < BGV_N13.depth + 1 or len(seen) < 16:
        name = rng.choice(list(ARITY))
        taken = rng.sample(wires, ARITY[name])
        level = level_of(name, [level for *_, level in taken])
        if level > BGV_N13.depth:
            continue
        bits = truth(name, [bits for bits, *_ in taken])
        wire = engine.gate(name, [wire for _, wire, _ in taken])
        assert np.array_equal(carol.decrypt(engine.write(wire)), bits), (name, level)
        wires.append((bits, wire, level))
        seen.add((name, level))
    # One level more is what the decider refuses, and it is right to.
    [deep, *_] = [wire for *_, wire, level in wires if level == BGV_N13.depth]
    beyond = engine.gate("and", [deep, wires[0][1]])
    assert not np.isin(carol.decrypt(engine.write(beyond)), (0, 1)).all()


def test_lists_and_circuits_of_packed_bits(carol: BitsClient) -> None:
    context = jobs.learn_key(work("and"), [carol.relin], ContextCache(10**9))
    noise = np.random.default_rng(7)
    a, b = noise.integers(0, 2, (2, 2, BGV_N13.slots), dtype=np.int64)
    operands = [b"".join(map(carol.encrypt, bits)) for bits in (a, b)]
    outcome = jobs.compute(work("xor"), context, operands)
    assert outcome.count == 2 and len(outcome.data) == 2 * DATA_BYTES
    for place in (0, 1):
        piece = outcome.data[place * DATA_BYTES :][:DATA_BYTES]
        assert np.array_equal(carol.decrypt(piece), a[place] ^ b[place])
    gates, outputs = comparator(2)
    arguments = msgspec.json.encode(compile_circuit(["a", "b"], gates, outputs)).decode()
    greater = jobs.compute(work("circuit", arguments), context, operands)
    assert np.array_equal(carol.decrypt(greater.data), a[0] + 2 * a[1] > b[0] + 2 * b[1])


def test_three_ciphertexts_are_the_most_that_a_result_holds() -> None:
    assert BGV_N13.ciphertexts_max == 3
    assert 3 * DATA_BYTES <= CIPHERTEXT_BYTES_MAX < 4 * DATA_BYTES


def test_a_choice_between_one_ciphertext_and_itself_is_that_ciphertext(carol: BitsClient) -> None:
    """Their difference would be zero, which the engine refuses to multiply with."""
    context = jobs.learn_key(work("mux"), [carol.relin], ContextCache(10**9))
    bits = np.arange(BGV_N13.slots) % 2
    one = carol.encrypt(bits)
    outcome = jobs.compute(work("mux"), context, [carol.encrypt(1 - bits), one, one])
    assert np.array_equal(carol.decrypt(outcome.data), bits)


def test_gates_of_a_bit_and_its_opposite(carol: BitsClient) -> None:
    """Their sum is a constant, which the engine does not let pass for a ciphertext."""
    engine = BgvGates(pyfhel.load(BGV_N13, [carol.relin]))
    bits = np.arange(BGV_N13.slots) % 2
    wire = engine.read(carol.encrypt(bits))
    opposite = engine.gate("not", [wire])
    for name in set(ARITY) - {"not"}:
        taken, clear = [wire, opposite, wire], [bits, 1 - bits, bits]
        found = engine.gate(name, taken[: ARITY[name]])
        expected = truth(name, clear[: ARITY[name]])
        assert np.array_equal(carol.decrypt(engine.write(found)), expected), name


def test_without_a_key_no_gate_multiplies(carol: BitsClient) -> None:
    """Without this the engine would invent a key and return garbage."""
    engine = BgvGates(pyfhel.load(BGV_N13, []))
    wire = engine.read(carol.encrypt(np.ones(BGV_N13.slots, dtype=np.int64)))
    opposite = engine.gate("not", [wire])
    for name in set(ARITY) - {"not"}:
        with pytest.raises(JobRefused) as refused:
            engine.gate(name, [wire, opposite, wire][: ARITY[name]])
        assert refused.value.reason == "key_missing_relin"
    assert not carol.decrypt(engine.write(opposite)).any()


def test_hostile_operands_are_refused_or_computed_with(carol: BitsClient) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    context = jobs.learn_key(work("and"), [carol.relin], ContextCache(10**9))
    honest = carol.encrypt(np.ones(BGV_N13.slots, dtype=np.int64))
    for number in range(64):
        data = MUTATIONS[number % len(MUTATIONS)](honest, rng)
        try:
            read_bits(data, BGV_N13)
        except CiphertextInvalid:
            is_sound = False
        else:
            is_sound = True
        try:
            jobs.compute(work("not"), context, [data])
        except JobRefused as error:
            assert error.reason == "ciphertext_invalid" and not is_sound
        else:
            assert is_sound


def test_a_ciphertext_with_a_prime_less_is_refused(carol: BitsClient) -> None:
    lower = PyCtxt(pyfhel=carol.engine, bytestring=carol.encrypt(np.ones(8, dtype=np.int64)))
    carol.engine.mod_switch_to_next(lower)
    with pytest.raises(CiphertextInvalid):
        read_bits(bytes(lower.to_bytes("none")), BGV_N13)

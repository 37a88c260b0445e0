"""Bootstrapped gates of tfhe-rs: right at any depth, and no byte reaches the library unseen."""

import random
import threading
import time

import msgspec
import pytest
import weir_tfhe

from fhe_workers import jobs, tfhe
from fhe_workers.messages import CIPHER, Work
from fhe_workers.refusals import JobRefused
from schemas.fhe.bits import read_bits
from schemas.fhe.ciphertext import CiphertextInvalid
from schemas.fhe.circuit import ARITY, compile_circuit
from schemas.fhe.key_material import SERVER, KeyReader, KeyRefused, read_key_part
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX, KEY_BYTES_MAX, TFHE_132
from schemas.fhe.tfhe import server_key_bytes, server_key_form
from tests.fhe_workers.clients import GateClient
from tests.fhe_workers.mutations import MUTATIONS
from tests.schemas.fhe.circuits import TRUTH, adder, bits_of, comparator, number_of

FRESH_BYTES, COMPUTED_BYTES = 80, 3_260


def work(operation: str, arguments: str = "{}") -> Work:
    kinds = (CIPHER,) * ARITY.get(operation, 2)
    return Work("job-1", operation, "tfhe-132", "key-1", kinds, 60, True, arguments)


@pytest.fixture(scope="module")
def server(dora: GateClient) -> tfhe.TfheServer:
    return tfhe.load(TFHE_132, [dora.server_key])


def test_sizes_are_those_of_the_documents(dora: GateClient, server: tfhe.TfheServer) -> None:
    assert len(dora.server_key) == server_key_bytes(TFHE_132) == 13_220_052 < KEY_BYTES_MAX
    fresh = dora.encrypt([1, 0])
    assert len(fresh) == 2 * FRESH_BYTES
    outcome = jobs.compute(work("and"), server, [fresh, fresh])
    assert len(outcome.data) == 2 * COMPUTED_BYTES
    assert TFHE_132.ciphertexts_max == CIPHERTEXT_BYTES_MAX // COMPUTED_BYTES


def test_every_gate_is_right_and_results_are_operands(
    dora: GateClient, server: tfhe.TfheServer
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for name, arity in ARITY.items():
        rows = [[rng.randrange(2) for _ in range(4)] for _ in range(arity)]
        first = jobs.compute(work(name), server, [dora.encrypt(row) for row in rows])
        expected = [TRUTH[name](*bits) for bits in zip(*rows, strict=True)]
        assert dora.decrypt(first.data) == expected
        again = jobs.compute(work("xor"), server, [first.data, dora.encrypt(rows[0])])
        assert dora.decrypt(again.data) == [a ^ b for a, b in zip(expected, rows[0], strict=True)]


def test_circuits_are_right(dora: GateClient, server: tfhe.TfheServer) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    a, b = rng.randrange(16), rng.randrange(16)
    operands = [dora.encrypt(bits_of(number, 4)) for number in (a, b)]
    for (gates, outputs), expected in ((adder(4), a + b), (comparator(4), int(a > b))):
        circuit = compile_circuit(["a", "b"], rng.sample(gates, len(gates)), outputs)
        arguments = msgspec.json.encode(circuit).decode()
        outcome = jobs.compute(work("circuit", arguments), server, operands)
        assert (number_of(dora.decrypt(outcome.data)), outcome.level) == (expected, 0)


def test_a_chain_has_no_end(dora: GateClient, server: tfhe.TfheServer) -> None:
    bit, one = 1, dora.encrypt([1])
    wire = one
    for _ in range(30):
        wire, bit = server.server.gate("nand", wire, one), 1 - bit
    assert dora.decrypt(wire) == [bit]


def test_others_run_while_a_gate_is_computed(dora: GateClient, server: tfhe.TfheServer) -> None:
    one, ticks, stop = dora.encrypt([1]), 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    began = time.monotonic()
    for _ in range(10):
        server.server.gate("mux", one, one, one)
    stop.set()
    thread.join()
    # Were the lock held, there would be a tick or two between the gates: ten to twenty.
    assert ticks > 40 * min(1.0, time.monotonic() - began), ticks


def test_a_server_key_is_recognised_whatever_the_chunks(dora: GateClient) -> None:
    for size in (1 << 20, 99_991):
        reader = KeyReader()
        for at in range(0, len(dora.server_key), size):
            reader.feed(dora.server_key[at : at + size])
            # It passes through: what is held is less than a piece and a chunk.
            assert len(reader._pending) < 64 * 1024 + size
        part = reader.finish()
    assert (part.kind, part.params_id) == (SERVER, "tfhe-132")


def test_a_secret_key_is_refused_by_its_first_bytes(dora: GateClient) -> None:
    with pytest.raises(KeyRefused) as refused:
        KeyReader().feed(dora.secret[:88])
    assert refused.value.reason == "secret_key_refused"


def test_every_fixed_byte_of_a_key_is_looked_at(dora: GateClient) -> None:
    at, reasons = 0, set()
    for piece in server_key_form(TFHE_132):
        for place in (at, at + piece.size - 1):
            data = bytearray(dora.server_key)
            data[place] ^= 1
            if not piece.fixed:
                read_key_part(bytes(data))
                continue
            with pytest.raises(KeyRefused) as refused:
                read_key_part(bytes(data))
            reasons.add(refused.value.reason)
        at += piece.size
    assert at == len(dora.server_key) and "malformed" in reasons
    for wrong in (dora.server_key[:-1], dora.server_key + b"\0", dora.server_key[:9]):
        with pytest.raises(KeyRefused):
            read_key_part(wrong)


def test_what_the_reader_accepts_the_library_loads(dora: GateClient) -> None:
    """Noise where anything is allowed, and seeds of zeros, are keys as good as any."""
    pieces = server_key_form(TFHE_132)
    noise = random.Random(1).randbytes(1 << 16)
    data = b"".join(
        piece.fixed or (noise * (piece.size // len(noise) + 1))[: piece.size] for piece in pieces
    )
    assert read_key_part(data).kind == SERVER
    loaded = tfhe.load(TFHE_132, [data])
    outcome = jobs.compute(work("and"), loaded, [dora.encrypt([1]), dora.encrypt([1])])
    assert len(outcome.data) == COMPUTED_BYTES


def test_keys_that_are_none_are_refused(dora: GateClient) -> None:
    for parts in ([], [dora.secret], [dora.server_key[:-1]], [dora.server_key] * 2, [b""]):
        with pytest.raises(JobRefused) as refused:
            tfhe.load(TFHE_132, parts)
        assert refused.value.reason == "key_invalid"
    # The library alone, as if the reader had let them pass.
    for data in (b"", dora.secret, dora.server_key[:-1], dora.server_key + b"\0", b"\xff" * 99):
        with pytest.raises(ValueError):  # its own sentences
            weir_tfhe.Server("tfhe-132", data)


def test_hostile_operands_are_refused_or_computed_with(
    dora: GateClient, server: tfhe.TfheServer
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    fresh = dora.encrypt([1])
    computed = server.server.gate("not", fresh)
    for number in range(400):
        mutate = MUTATIONS[number % (len(MUTATIONS) - 1)]  # the last needs longer ones than these
        data = mutate(rng.choice([computed, fresh * 4, computed * 2]), rng)
        try:
            shape = read_bits(data, TFHE_132)
        except CiphertextInvalid:
            with pytest.raises(JobRefused, match="ciphertext"):
                jobs.compute(work("not"), server, [data])
        else:
            assert jobs.compute(work("not"), server, [data]).count == shape.count


def test_a_ciphertext_that_hides_nothing_is_refused(
    dora: GateClient, server: tfhe.TfheServer
) -> None:
    computed = server.server.gate("not", dora.encrypt([1]))
    bare = computed[:12] + bytes(4 * TFHE_132.lwe_dimension) + computed[-28:]
    with pytest.raises(CiphertextInvalid, match="does not hide"):
        read_bits(bare, TFHE_132)
    # Trivial ones have another kind in their head.
    with pytest.raises(CiphertextInvalid):
        read_bits(b"\1\0\0\0" + computed[4:], TFHE_132)
    with pytest.raises(CiphertextInvalid):
        read_bits(dora.encrypt([1]) + computed, TFHE_132)


def test_gates_that_there_are_not(dora: GateClient, server: tfhe.TfheServer) -> None:
    one = dora.encrypt([1])
    for name, operands in (("nor", [one, one]), ("and", [one]), ("not", [one, one])):
        with pytest.raises(ValueError, match="no gate"):
            server.server.gate(name, *operands)
    with pytest.raises(ValueError, match="no parameter set"):
        weir_tfhe.Server("tfhe-80", b"")

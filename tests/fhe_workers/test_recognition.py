"""The gateway's own readers agree with the engine on what a key and a ciphertext is."""

import random

import numpy as np
import pytest
from Pyfhel import PyCtxt, Pyfhel

from schemas.fhe.ciphertext import CiphertextInvalid, read_ciphertext
from schemas.fhe.key_material import KeyPart, KeyReader, KeyRefused, read_key_part
from schemas.fhe.parameters import (
    CIPHERTEXT_BYTES_MAX,
    CKKS_N13,
    CKKS_N14,
    KEY_BYTES_MAX,
    SEAL_SETS,
    SealParameters,
)
from tests.fhe_workers.clients import Client
from tests.fhe_workers.mutations import MUTATIONS

ALL_SETS = list(SEAL_SETS.values())


def _engine(params: SealParameters) -> Pyfhel:
    engine = Pyfhel()
    status = engine.contextGen(
        "ckks",
        n=params.ring_degree,
        scale=params.scale,
        qi_sizes=list(params.prime_bits),
        sec=params.security_bits,
    )
    assert status == "success: valid"
    return engine


@pytest.mark.parametrize("params", ALL_SETS, ids=lambda params: params.params_id)
def test_the_engine_makes_the_very_parameters_we_wrote_down(params: SealParameters) -> None:
    engine = _engine(params)
    assert tuple(engine.qi) == params.primes
    engine.keyGen()
    assert engine.to_bytes_public_key("none")[16:48] == params.key_parms_id
    ciphertext = engine.encryptFrac(np.array([1.0]))
    for level in range(params.depth + 1):
        data = ciphertext.to_bytes()
        assert params.levels_by_parms_id[data[16:48]] == level
        assert len(data) == params.ciphertext_bytes(level)
        if level < params.depth:
            engine.mod_switch_to_next(ciphertext)


@pytest.mark.parametrize("params", ALL_SETS, ids=lambda params: params.params_id)
def test_every_set_is_secure_and_within_the_limits(params: SealParameters) -> None:
    # Bounds of the Homomorphic Encryption Standard for 128 bits and a ternary secret.
    total_bits = sum(prime.bit_length() for prime in params.primes)
    assert total_bits <= {8192: 218, 16384: 438}[params.ring_degree]
    assert params.ciphertext_bytes(0) <= CIPHERTEXT_BYTES_MAX
    assert params.relin_key_bytes + params.rotate_key_bytes(2) <= KEY_BYTES_MAX


def test_a_relinearisation_key_is_recognised_whatever_the_chunks(alice: Client) -> None:
    for size in (1 << 20, 65_536, 4_099):
        reader = KeyReader()
        for at in range(0, len(alice.relin), size):
            reader.feed(alice.relin[at : at + size])
        assert reader.finish() == read_key_part(alice.relin)
    part = read_key_part(alice.relin)
    assert (part.kind, part.params_id, part.size_bytes) == ("relin", "ckks-n13", len(alice.relin))
    assert len(alice.relin) == CKKS_N13.relin_key_bytes


def test_a_rotation_key_tells_its_steps(alice: Client) -> None:
    part = read_key_part(alice.rotate)
    assert (part.kind, part.rotations) == ("rotate", (-4, 1, 8))
    assert len(alice.rotate) == CKKS_N13.rotate_key_bytes(3)


@pytest.mark.parametrize("params", ALL_SETS, ids=lambda params: params.params_id)
def test_a_secret_key_is_refused_before_anything_else(params: SealParameters) -> None:
    engine = _engine(params)
    engine.keyGen()
    secret = engine.to_bytes_secret_key("none")
    # The first 88 bytes are enough, so nothing of a secret is ever written anywhere.
    reader = KeyReader()
    with pytest.raises(KeyRefused) as refused:
        reader.feed(secret[:88])
    assert refused.value.reason == "secret_key_refused"


def test_a_secret_key_of_foreign_parameters_is_still_called_a_secret() -> None:
    engine = Pyfhel()
    engine.contextGen("ckks", n=4096, scale=2**20, qi_sizes=[30, 20, 30], sec=128)
    engine.keyGen()
    with pytest.raises(KeyRefused) as refused:
        read_key_part(engine.to_bytes_secret_key("none"))
    assert refused.value.reason == "secret_key_refused"


def test_what_is_not_an_evaluation_key_is_refused_by_its_name(alice: Client) -> None:
    foreign = Pyfhel()
    foreign.contextGen("ckks", n=4096, scale=2**20, qi_sizes=[30, 20, 30], sec=128)
    foreign.keyGen()
    foreign.relinKeyGen()
    expected = {
        alice.engine.to_bytes_public_key("none"): "not_an_evaluation_key",
        alice.engine.to_bytes_context("none"): "malformed",
        alice.encrypt(np.ones(4)): "wrong_parameters",
        foreign.to_bytes_relin_key("none"): "wrong_parameters",
        alice.relin[:5] + b"\x02" + alice.relin[6:]: "compressed",
        alice.relin[:3] + b"\x03" + alice.relin[4:]: "unsupported_version",
        alice.relin[:-1]: "truncated",
        alice.relin + b"\x00": "wrong_length",
        b"": "truncated",
        b"PK\x03\x04" + bytes(200): "malformed",
    }
    for data, reason in expected.items():
        with pytest.raises(KeyRefused) as refused:
            read_key_part(data)
        assert refused.value.reason == reason


def test_too_many_rotation_keys_are_refused_by_their_declared_length() -> None:
    params = SEAL_SETS["ckks-n14d5"]
    head = Client(params, rotations=(1,)).rotate[:88]
    total = params.rotate_key_bytes(4)
    assert total > KEY_BYTES_MAX
    with pytest.raises(KeyRefused) as refused:
        KeyReader().feed(head[:8] + total.to_bytes(8, "little") + head[16:])
    assert refused.value.reason == "too_large"


def test_a_ciphertext_tells_its_level_and_scale(alice: Client) -> None:
    for level in range(CKKS_N13.depth + 1):
        shape = read_ciphertext(alice.encrypt(np.ones(4), level), CKKS_N13)
        assert (shape.level, shape.scale) == (level, 2.0**40)


def test_unsound_ciphertexts_are_refused_by_name(alice: Client) -> None:
    honest = alice.encrypt(np.ones(4))
    engine = alice.engine
    loaded = PyCtxt(pyfhel=engine, bytestring=honest)
    unrelinearised = engine.multiply(loaded, loaded, True).to_bytes()
    rescaled_twice = PyCtxt(pyfhel=engine, bytestring=honest)
    rescaled_twice.set_scale(2.0**30)
    expected = {
        honest[:-1]: "wrong_length",
        honest[:50]: "truncated",
        unrelinearised: "not_relinearised",
        rescaled_twice.to_bytes(): "scale_not_nominal",
        honest[:113] + b"\xff" * 8 + honest[121:]: "residue_out_of_range",
        honest[: 113 + 3 * 8192 * 8] + bytes(3 * 8192 * 8): "transparent",
        alice.relin: "malformed",
    }
    for data, reason in expected.items():
        with pytest.raises(CiphertextInvalid) as invalid:
            read_ciphertext(data, CKKS_N13)
        assert invalid.value.reason == reason
    with pytest.raises(CiphertextInvalid) as invalid:
        read_ciphertext(honest, CKKS_N14)
    assert invalid.value.reason == "wrong_parameters"
    assert "ckks-n13" in invalid.value.message


def _accepted_key(data: bytes) -> KeyPart | None:
    try:
        return read_key_part(data)
    except KeyRefused:
        return None


@pytest.mark.parametrize("kind", ["relin", "rotate"])
def test_a_key_that_we_accept_is_never_refused_by_the_engine(alice: Client, kind: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    engine = _engine(CKKS_N13)
    load = engine.from_bytes_relin_key if kind == "relin" else engine.from_bytes_rotate_key
    honest = alice.relin if kind == "relin" else alice.rotate
    for round_number in range(240):
        data = MUTATIONS[round_number % len(MUTATIONS)](honest, rng)
        if _accepted_key(data) is not None:
            load(data)


def test_a_ciphertext_that_we_accept_is_never_refused_by_the_engine(alice: Client) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    honest = alice.encrypt(np.ones(4))
    accepted = 0
    for round_number in range(400):
        data = MUTATIONS[round_number % len(MUTATIONS)](honest, rng)
        try:
            read_ciphertext(data, CKKS_N13)
        except CiphertextInvalid:
            continue
        accepted += 1
        loaded = PyCtxt(pyfhel=alice.engine, bytestring=data)
        alice.engine.add(loaded, loaded, True)
    assert accepted > 0  # a flipped residue bit is a valid, meaningless ciphertext

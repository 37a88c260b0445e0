"""Matrix products on ciphertexts equal those in the clear, whatever the size, level and matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fhe_workers import ckks, keys, linear
from fhe_workers.contexts import Context, PlaintextCache
from fhe_workers.refusals import JobRefused
from schemas.fhe.ciphertext import read_ciphertext
from schemas.fhe.linear import giant_step, padded_size
from schemas.fhe.parameters import CKKS_N14
from tests.fhe_workers.clients import Client

Matrix = NDArray[np.float64]


def context_of(client: Client) -> Context:
    return keys.load_keys(client.params, [client.relin, client.rotate])


def repeated(client: Client, values: Matrix) -> Matrix:
    return np.tile(values.ravel(), client.params.slots // values.size)


def encrypted(context: Context, client: Client, values: Matrix, level: int = 0) -> ckks.Ciphertext:
    return ckks.load(context, client.encrypt(repeated(client, values), level))


def error(client: Client, result: ckks.Ciphertext, expected: Matrix) -> float:
    data = ckks.dump(result)
    # The head, which is all that the gateway and the next job see, says the same.
    assert read_ciphertext(data, client.params).level == result.level
    return float(np.abs(client.decrypt(data) - repeated(client, expected)).max())


@pytest.fixture(scope="session")
def mathematician() -> Client:
    """Rotations for products of vectors up to any size, and of 8 x 8 matrices."""
    return Client(CKKS_N14, rotations=(1, 8, -8))


@settings(max_examples=8, deadline=None)
@given(
    exponent=st.integers(0, 6),
    level=st.integers(0, 1),
    density=st.sampled_from([0.05, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_matrix_in_the_clear_times_an_encrypted_vector(
    alice: Client, exponent: int, level: int, density: float, seed: int
) -> None:
    rng, size = np.random.default_rng(seed), 2**exponent
    matrix = rng.uniform(-1, 1, (size, size)) * (rng.random((size, size)) < density)
    matrix[rng.integers(size), rng.integers(size)] = 1.0
    vector, context = rng.uniform(-1, 1, size), context_of(alice)
    result = linear.matvec(context, matrix, encrypted(context, alice, vector, level))
    assert result.level == level + 1
    assert error(alice, result, matrix @ vector) < 1e-6 * size


def test_every_step_gives_the_same_product(mathematician: Client) -> None:
    rng = np.random.default_rng(7)
    matrix, vector = rng.uniform(-1, 1, (16, 16)), rng.uniform(-1, 1, 16)
    context = context_of(mathematician)
    x = encrypted(context, mathematician, vector)
    for rotations in ({1}, {1, 8}):
        context.rotations = frozenset(rotations)
        result = linear.matvec(context, matrix, x)
        assert error(mathematician, result, matrix @ vector) < 1e-5


@pytest.mark.parametrize("size", [1, 8])
def test_an_encrypted_matrix_times_another(mathematician: Client, size: int) -> None:
    rng, context = np.random.default_rng(size), context_of(mathematician)
    left, right = rng.uniform(-1, 1, (size, size)), rng.uniform(-1, 1, (size, size))
    result = linear.matmul(
        context,
        encrypted(context, mathematician, left),
        encrypted(context, mathematician, right),
        size,
    )
    assert result.level == 3
    assert error(mathematician, result, left @ right) < 1e-6 * size


def test_a_diagonal_is_encoded_once(mathematician: Client) -> None:
    context, rng = context_of(mathematician), np.random.default_rng(1)
    matrix, vector = rng.uniform(-1, 1, (8, 8)), rng.uniform(-1, 1, 8)
    x = encrypted(context, mathematician, vector)
    once = ckks.dump(linear.matvec(context, matrix, x))
    kept = context.plaintexts.resident_bytes
    assert kept == 8 * 8 * CKKS_N14.ring_degree * 4
    assert ckks.dump(linear.matvec(context, matrix, x)) == once
    assert context.plaintexts.resident_bytes == kept
    # Another matrix is another entry, and both count as memory of the context.
    before = context.resident_bytes
    linear.matvec(context, matrix + 1, x)
    assert context.resident_bytes == before + kept


def test_the_plaintext_cache_keeps_within_its_bytes() -> None:
    cache = PlaintextCache(limit_bytes=100)
    for diagonal in range(20):
        assert cache.get("first", (diagonal, 0), 10, lambda: "new") == "new"
    assert cache.resident_bytes == 100
    assert cache.get("first", (9, 0), 10, lambda: "again") == "new"
    assert cache.get("first", (10, 0), 10, lambda: "again") == "again"
    # The older matrix makes room for the newer.
    assert cache.get("second", (0, 0), 10, lambda: "other") == "other"
    assert cache.resident_bytes == 10
    assert cache.get("first", (0, 0), 10, lambda: "again") == "again"


def test_what_a_product_needs_and_does_not_get_is_refused(alice: Client, bob: Client) -> None:
    context, keyless = context_of(alice), keys.load_keys(bob.params, [bob.relin])
    ones = np.ones((16, 16))
    x = encrypted(context, alice, np.ones(16))
    bottom = encrypted(context, alice, np.ones(16), level=2)
    square = encrypted(context, alice, ones)

    def reason(product: object, *arguments: object) -> str:
        with pytest.raises(JobRefused) as refused:
            product(*arguments)  # type: ignore[operator]
        return refused.value.reason

    assert reason(linear.matvec, keyless, ones, x) == "key_missing_rotation"
    assert reason(linear.matvec, context, ones, bottom) == "level_exhausted"
    assert reason(linear.matvec, context, 0 * ones, x) == "transparent_result"
    assert reason(linear.matvec, context, np.inf * ones, x) == "plaintext_invalid"
    assert reason(linear.matmul, context, square, square, 16) == "key_missing_rotation"
    only_rotations = keys.load_keys(alice.params, [alice.rotate])
    assert reason(linear.matmul, only_rotations, square, square, 8) == "key_missing_relin"
    context.rotations = frozenset({1, 16, -16})
    # Three levels are more than ckks-n13 has.
    assert reason(linear.matmul, context, square, square, 16) == "level_exhausted"


def test_the_step_that_takes_the_fewest_rotations() -> None:
    assert giant_step({1, 8, -4}, 64) == 8
    assert giant_step({1, 8, 16}, 256) == 16
    assert giant_step({1, 8}, 4) == 1
    assert giant_step(set(), 64) == 1
    assert [padded_size(count) for count in (1, 2, 3, 10, 64, 65)] == [1, 2, 4, 16, 64, 128]

"""The engine computes what the plaintext says, within the bounds that we publish."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fhe_workers import ckks, jobs, keys
from fhe_workers.contexts import Context, ContextCache
from fhe_workers.messages import CIPHER, PLAIN, Work
from fhe_workers.refusals import JobRefused
from schemas.fhe.ciphertext import read_ciphertext
from schemas.fhe.parameters import CKKS_N13, ERROR_BOUND, SealParameters
from tests.fhe_workers.clients import Client

Vector = NDArray[np.float64]


def _context(client: Client) -> Context:
    return keys.load_keys(client.params, [client.relin])


def _vectors(params: SealParameters, count: int) -> list[Vector]:
    rng = np.random.default_rng(20240601)
    return [rng.uniform(-1.0, 1.0, params.slots) for _ in range(count)]


def _error(client: Client, result: ckks.Ciphertext, expected: Vector) -> float:
    return float(np.abs(client.decrypt(ckks.dump(result)) - expected).max())


@pytest.fixture(params=["alice", "alice_n14", "alice_n14d5"])
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.getfixturevalue(request.param)
    return found


def test_a_sum_of_fresh_ciphertexts(client: Client) -> None:
    context, (x, y) = _context(client), _vectors(client.params, 2)
    left, right = (ckks.load(context, client.encrypt(values)) for values in (x, y))
    result = ckks.add(context, left, right)
    assert result.level == 0
    assert _error(client, result, x + y) < ERROR_BOUND


def test_products_all_the_way_down_the_chain(client: Client) -> None:
    context, (x, y) = _context(client), _vectors(client.params, 2)
    product, factor = (ckks.load(context, client.encrypt(values)) for values in (x, y))
    expected = x
    for level in range(1, client.params.depth + 1):
        product = ckks.multiply(context, product, factor)
        expected = expected * y
        assert product.level == level
        assert _error(client, product, expected) < level * ERROR_BOUND
        # The head, which is all that the gateway and the next job see, says the same.
        shape = read_ciphertext(ckks.dump(product), client.params)
        assert (shape.level, shape.scale) == (level, product.scale)
        assert len(ckks.dump(product)) == client.params.ciphertext_bytes(level)
    with pytest.raises(JobRefused) as refused:
        ckks.multiply(context, product, factor)
    assert refused.value.reason == "level_exhausted"


def test_operands_of_different_levels_and_scales_add_up(client: Client) -> None:
    context, (x, y, z) = _context(client), _vectors(client.params, 3)
    a, b, c = (ckks.load(context, client.encrypt(values)) for values in (x, y, z))
    product = ckks.multiply(context, ckks.multiply(context, a, b), b)
    assert product.scale != c.scale
    for result in (ckks.add(context, product, c), ckks.add(context, c, product)):
        assert (result.level, result.scale) == (2, product.scale)
        assert _error(client, result, x * y * y + z) < 3 * ERROR_BOUND


def test_a_ciphertext_that_its_client_has_lowered_adds_up(client: Client) -> None:
    context, (x, y, z) = _context(client), _vectors(client.params, 3)
    a, b = (ckks.load(context, client.encrypt(values)) for values in (x, y))
    lowered = ckks.load(context, client.encrypt(z, level=1))
    product = ckks.multiply(context, a, b)
    assert product.level == lowered.level and product.scale != lowered.scale
    # Here the scales' difference (about 1.5e-6) is an error; the result says the first's scale.
    assert _error(client, ckks.add(context, product, lowered), x * y + z) < 4 * ERROR_BOUND


def test_plain_operands(client: Client) -> None:
    context, (x, y) = _context(client), _vectors(client.params, 2)
    left = ckks.load(context, client.encrypt(x))
    total = ckks.add_plain(context, left, y)
    assert (total.level, total.scale) == (0, left.scale)
    assert _error(client, total, x + y) < ERROR_BOUND
    product = ckks.multiply_plain(context, left, y)
    assert (product.level, product.scale) == (1, left.scale)
    assert _error(client, product, x * y) < ERROR_BOUND
    again = ckks.add_plain(context, product, y[:3])
    expected = x * y
    expected[:3] += y[:3]
    assert _error(client, again, expected) < 2 * ERROR_BOUND


def test_the_operands_are_left_as_they_were(alice: Client) -> None:
    context, (x, y) = _context(alice), _vectors(CKKS_N13, 2)
    fresh = ckks.load(context, alice.encrypt(x))
    lowered = ckks.load(context, alice.encrypt(y, level=1))
    before = ckks.dump(fresh), ckks.dump(lowered)
    ckks.add(context, fresh, lowered)
    ckks.multiply(context, fresh, lowered)
    ckks.multiply_plain(context, fresh, y)
    assert (ckks.dump(fresh), ckks.dump(lowered)) == before


def _refusal(work: Work, context: Context, operands: list[bytes]) -> str:
    with pytest.raises(JobRefused) as refused:
        jobs.compute(work, context, operands)
    return refused.value.reason


def _work(operation: str, *kinds: str) -> Work:
    needs_key = operation == "multiply" and PLAIN not in kinds
    return Work("job-1", operation, "ckks-n13", "key-1", kinds, 10, needs_key)


def test_each_trap_of_the_engine_is_a_refusal(alice: Client, alice_n14: Client) -> None:
    context = _context(alice)
    x = alice.encrypt(np.ones(8))
    negative = alice.encrypt(-np.ones(8))
    both, mixed = (CIPHER, CIPHER), (CIPHER, PLAIN)
    doubles = lambda *values: np.array(values, dtype="<f8").tobytes()  # noqa: E731
    multiply, add = _work("multiply", *both), _work("add", *both)
    scaled, shifted = _work("multiply", *mixed), _work("add", *mixed)

    # Without a key the engine would invent one and return garbage.
    assert _refusal(multiply, Context(CKKS_N13), [x, x]) == "key_missing_relin"
    # A rotation key alone is no relinearisation key.
    rotation_only = keys.load_keys(CKKS_N13, [alice.rotate])
    assert _refusal(multiply, rotation_only, [x, x]) == "key_missing_relin"
    assert _refusal(add, context, [x, alice_n14.encrypt(np.ones(8))]) == "ciphertext_invalid"
    assert _refusal(scaled, context, [x, doubles(0.0, 0.0)]) == "transparent_result"
    assert _refusal(scaled, context, [x, doubles(1e-300)]) == "transparent_result"
    assert _refusal(shifted, context, [x, doubles(float("nan"))]) == "plaintext_invalid"
    assert _refusal(shifted, context, [x, doubles(float("inf"))]) == "plaintext_invalid"
    assert _refusal(shifted, context, [x, doubles(1e30)]) == "plaintext_invalid"
    assert _refusal(shifted, context, [x, doubles(*[1.0] * 4097)]) == "plaintext_invalid"
    assert _refusal(shifted, context, [x, b"1234567"]) == "plaintext_invalid"
    assert _refusal(add, context, [x]) == "unsupported_operation"
    assert _refusal(_work("divide", *both), context, [x, x]) == "unsupported_operation"
    lowest = alice.encrypt(np.ones(8), level=2)
    assert _refusal(multiply, context, [x, lowest]) == "level_exhausted"
    assert _refusal(scaled, context, [lowest, doubles(2.0)]) == "level_exhausted"
    mirrored = _mirror(x)
    assert _refusal(add, context, [x, mirrored]) == "transparent_result"
    # And the honest neighbour of that case is none.
    jobs.compute(add, context, [x, negative])


def _mirror(data: bytes) -> bytes:
    """The ciphertext -c, made by hand: the sum c + (-c) would be transparent."""
    primes = np.array(CKKS_N13.data_primes(0), dtype=np.uint64)[None, :, None]
    residues = np.frombuffer(data, "<u8", offset=113).reshape(2, len(primes[0]), -1)
    negated = np.where(residues == 0, residues, primes - residues)
    return data[:113] + negated.astype("<u8").tobytes()


def test_a_key_of_other_parameters_or_broken_in_store_is_refused(
    alice: Client, alice_n14: Client
) -> None:
    for parts in ([alice_n14.relin], [alice.relin[:-8]], [alice.secret], [b""]):
        with pytest.raises(JobRefused) as refused:
            jobs.learn_key(_work("multiply", CIPHER, CIPHER), parts, ContextCache(10**9))
        assert refused.value.reason == "key_invalid"


def test_a_foreign_key_gives_garbage_and_no_error(alice: Client, bob: Client) -> None:
    """Why a job binds its ciphertexts to its key: the engine cannot tell."""
    context = _context(bob)
    x = ckks.load(context, alice.encrypt(np.full(CKKS_N13.slots, 0.5)))
    product = ckks.multiply(context, x, x)
    assert np.abs(alice.decrypt(ckks.dump(product)) - 0.25).max() > 1.0


def test_the_cache_keeps_the_most_recently_used_within_its_bytes(alice: Client) -> None:
    one = _context(alice)
    cache = ContextCache(limit_bytes=2 * one.resident_bytes)
    cache.put("a", one)
    cache.put("b", _context(alice))
    assert cache.get("a") is one
    cache.put("c", _context(alice))
    assert cache.get("b") is None
    assert cache.get("a") is one
    small = ContextCache(limit_bytes=1)
    small.put("a", one)
    assert small.get("a") is one and len(small) == 1

"""The pitfalls of the engines, as they were found when these were chosen, and what shows each.

`SHOWN_BY` lists those that other tests show. Here are the rest: mostly what an engine does when it
is used as its manual says, so that a newer one that does it otherwise is noticed.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from Pyfhel import PyCtxt

from fhe_workers import ckks, keys
from fhe_workers.child_process import PoolLimits
from fhe_workers.contexts import Context, ContextUnsound
from fhe_workers.pool import Pool
from infra.sandbox import child_environment
from schemas.fhe.parameters import (
    BGV_N13,
    CIPHERTEXT_BYTES_MAX,
    CKKS_BOOT_N15,
    CKKS_N13,
    CKKS_N14,
    CKKS_N14D5,
    PARAMETER_SETS,
    SEAL_SETS,
    TFHE_132,
)
from tests.fhe_workers.clients import Client

ROOT = Path(__file__).resolve().parents[2]
_HERE, _API = "tests/fhe_workers/", "tests/api/fhe/"

SHOWN_BY = {
    "relinearised without a key: garbage under a key of its own": (
        f"{_HERE}test_ckks.py::test_each_trap_of_the_engine_is_a_refusal"
    ),
    "rotated without a key: the same": (
        f"{_HERE}test_linear.py::test_what_a_product_needs_and_does_not_get_is_refused"
    ),
    "packed gates without a key: the same": (
        f"{_HERE}test_bgv.py::test_without_a_key_no_gate_multiplies"
    ),
    "a ciphertext of another client's key: garbage, no error": (
        f"{_HERE}test_ckks.py::test_a_foreign_key_gives_garbage_and_no_error"
    ),
    "so a ciphertext is bound to its key": (
        f"{_API}test_compute.py::test_a_handle_of_another_key_is_refused"
    ),
    "scales drift apart with each rescale": (
        f"{_HERE}test_ckks.py::test_operands_of_different_levels_and_scales_add_up"
    ),
    "plaintexts not encoded at the prime that is dropped lose precision": (
        f"{_HERE}test_ckks.py::test_products_all_the_way_down_the_chain"
    ),
    "a - a, or a product with zeros, is transparent": (
        f"{_HERE}test_linear.py::test_what_a_product_needs_and_does_not_get_is_refused"
    ),
    "what is no number is encoded without a word": (
        f"{_HERE}test_ckks.py::test_each_trap_of_the_engine_is_a_refusal"
    ),
    "trailing bytes are accepted": (
        f"{_HERE}test_recognition.py::test_unsound_ciphertexts_are_refused_by_name"
    ),
    "flipped residues are accepted, so stored bytes have a hash": (
        f"{_HERE}test_execution.py::test_altered_bytes_are_not_computed_with"
    ),
    "all powers of two as rotations are 136 MB": (
        f"{_HERE}test_recognition.py::test_too_many_rotation_keys_are_refused_by_their_declared_length"
    ),
    "a secret key is as easily serialised as another": (
        f"{_HERE}test_recognition.py::test_a_secret_key_is_refused_before_anything_else"
    ),
    "a huge length prefix is a bad allocation": (
        f"{_HERE}test_pool.py::test_a_job_over_its_memory_fails_and_the_parent_lives"
    ),
    "hostile bytes end an engine's process": (
        f"{_HERE}test_pool.py::test_hostile_bytes_never_cost_a_child"
    ),
    "the engine's pool never shrinks: contexts are bounded": (
        f"{_HERE}test_ckks.py::test_the_cache_keeps_the_most_recently_used_within_its_bytes"
    ),
    "and a child is recycled": f"{_HERE}test_pool.py::test_a_child_that_has_grown_is_replaced",
    "tfhe-rs releases the GIL": f"{_HERE}test_tfhe.py::test_others_run_while_a_gate_is_computed",
    "BGV's noise cannot be seen: beyond its depth is garbage": (
        f"{_HERE}test_bgv.py::test_random_gates_are_right_at_every_level_and_garbage_beyond"
    ),
    "the bootstrapping literal inherits neither LogN, LogP nor Xs: 1012 bits": (
        f"{_HERE}test_bootstrapping.py::test_the_parameters_are_what_the_gateway_knows_them_by"
    ),
    "Lattigo's parser overflows its stack: ciphertexts": (
        f"{_HERE}test_bootstrapping.py::test_hostile_operands_are_refused_and_the_helper_lives"
    ),
    "keys": f"{_HERE}test_bootstrapping.py::test_hostile_keys_are_refused_and_the_helper_lives",
    "parts of keys, when they are uploaded": (
        f"{_HERE}test_bootstrapping.py::test_an_uploaded_part_is_loaded_alone_by_a_helper_that_may_die_of_it"
    ),
    "a bootstrap takes seconds, and the consumer group does not wait for it": (
        f"{_HERE}test_worker.py::test_long_jobs_wait_for_each_other_and_hold_up_nobody"
    ),
    "a secret key made here could stay": (
        f"{_API}test_generation.py::test_what_was_generated_computes_and_its_secret_is_nowhere_else"
    ),
}


def test_every_pitfall_names_a_test_that_exists() -> None:
    for pitfall, name in SHOWN_BY.items():
        path, _, test = name.partition("::")
        functions = ast.walk(ast.parse((ROOT / path).read_text()))
        names = [getattr(one, "name", "") for one in functions]
        assert test in names, (pitfall, name)


def test_a_loaded_ciphertext_has_lost_its_level_and_we_restore_it(alice: Client) -> None:
    data, context = alice.encrypt(np.full(8, 0.5), level=1), keys.load_keys(CKKS_N13, [alice.relin])
    bare = PyCtxt(pyfhel=context.engine, bytestring=data)
    assert bare.mod_level == 0
    ones = context.engine.encodeFrac(np.ones(8), scale=CKKS_N13.scale)
    with pytest.raises(ValueError, match="parameter mismatch"):
        context.engine.add_plain(bare, ones, True)
    assert ckks.load(context, data).body.mod_level == 1
    total = ckks.add_plain(context, ckks.load(context, data), np.ones(8))
    assert np.abs(alice.decrypt(ckks.dump(total))[:8] - 1.5).max() < 1e-6


def test_a_rescaled_scale_is_not_the_nominal_one(alice: Client) -> None:
    context = keys.load_keys(CKKS_N13, [alice.relin])
    x = ckks.load(context, alice.encrypt(np.full(8, 0.5)))
    product = ckks.multiply(context, x, x)
    assert product.scale != CKKS_N13.scale
    assert abs(product.scale / CKKS_N13.scale - 1) < 1e-4
    lowered = ckks.load(context, alice.encrypt(np.full(8, 0.5), level=1))
    with pytest.raises(ValueError, match="scale mismatch"):
        context.engine.add(product.body, lowered.body, True)
    total = ckks.add(context, product, lowered)
    assert np.abs(alice.decrypt(ckks.dump(total))[:8] - 0.75).max() < 1e-4


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("encrypted1 and encrypted2 parameter mismatch", "engine_refused"),
        ("scale mismatch", "scale_mismatch"),
        ("scale out of bounds", "level_exhausted"),
        ("end of modulus switching chain reached", "level_exhausted"),
        ("Galois key not present", "engine_refused"),
        ("encrypted size must be 2", "engine_refused"),
        ("result ciphertext is transparent", "transparent_result"),
        ("ciphertext data is invalid", "ciphertext_invalid"),
    ],
)
def test_whatever_the_engine_says_is_a_refusal_of_ours(said: str, reason: str) -> None:
    for error in (ValueError(said), RuntimeError(said)):
        assert ckks.refusal_of(error).reason == reason


def test_the_context_of_a_client_is_never_loaded() -> None:
    """It may claim any security. What makes ours compares the primes that it got."""
    folders = ("schemas", "commands", "projections", "streams", "api", "fhe_workers", "infra")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in sources if "from_bytes_context" in path.read_text()]
    other = msgspec.structs.replace(CKKS_N13, primes=(*CKKS_N13.primes[:-1], 97))
    with pytest.raises(ContextUnsound):
        Context(other)
    weak = msgspec.structs.replace(CKKS_N13, ring_degree=4096)
    with pytest.raises(ContextUnsound):
        Context(weak)


def test_no_set_is_of_a_scheme_that_ignores_the_primes_it_is_given() -> None:
    assert {params.scheme for params in SEAL_SETS.values()} == {"ckks", "bgv"}


def test_results_say_that_they_are_not_compressed(alice: Client) -> None:
    """Built without zlib and zstd, the engine means none whatever it is asked for."""
    context = keys.load_keys(CKKS_N13, [alice.relin])
    data = ckks.dump(ckks.load(context, alice.encrypt(np.ones(8))))
    assert (data[5], len(data)) == (0, CKKS_N13.ciphertext_bytes(0))


def test_eight_data_primes_of_the_larger_ring_are_113_bytes_over_two_mebibytes() -> None:
    assert len(CKKS_N14D5.primes) - 1 == 6
    larger = msgspec.structs.replace(CKKS_N14D5, primes=(*CKKS_N14D5.primes, 1, 1))
    assert larger.ciphertext_bytes(0) == 2 * 1024**2 + 113
    assert larger.ciphertext_bytes(0) > CIPHERTEXT_BYTES_MAX >= CKKS_N14D5.ciphertext_bytes(0)


def test_a_refreshed_ciphertext_is_lowered_until_it_may_be_sent() -> None:
    """The circuit ends at level 4, whose ciphertext has 2.6 MB."""
    one_prime = 2 * 2**15 * 8
    lengths = CKKS_BOOT_N15.ciphertext_lengths
    assert [round(size / one_prime) for size in lengths] == [3, 2, 1]
    assert max(lengths) < CIPHERTEXT_BYTES_MAX < 5 * one_prime


def test_the_key_to_the_sparse_secret_is_at_the_lowest_level_alone() -> None:
    """The sparse secret is too weak for a larger modulus: one data prime and a special one."""
    assert 0 < CKKS_BOOT_N15.part_bytes["d2s"] - 2 * 2 * 2**15 * 8 < 200


def test_the_plain_modulus_has_a_slot_for_each_bit() -> None:
    """There is no batching modulo 2: a prime is wanted that is 1 modulo twice the degree."""
    assert BGV_N13.plain_modulus % (2 * BGV_N13.ring_degree) == 1
    assert all(BGV_N13.plain_modulus % divisor for divisor in range(2, 340))


def test_every_set_has_128_bits_and_the_weaker_ones_of_the_library_are_unknown() -> None:
    assert all(params.security_bits >= 128 for params in PARAMETER_SETS.values())
    source = (ROOT / "fhe_workers/native/tfhe/src/lib.rs").read_text()
    assert TFHE_132.params_id in source and "TFHE_LIB" not in source
    assert CKKS_N14.prime_bits == (60, 40, 40, 40, 60)


def test_the_version_of_lattigo_is_pinned() -> None:
    """Its proxy lists no versions: the latest one cannot be asked for."""
    pinned = (ROOT / "fhe_workers/native/bootstrap/go.mod").read_text()
    assert re.search(r"tuneinsight/lattigo/v6 v6\.2\.0$", pinned, re.MULTILINE)


async def test_a_child_is_a_fresh_process_of_one_thread_and_the_parent_has_no_engine() -> None:
    """Pyfhel holds the GIL in every call, so it computes in processes of its own, never forked."""
    assert child_environment()["OMP_NUM_THREADS"] == "1"
    async with Pool(PoolLimits(children=1)) as pool:
        line = psutil.Process(pool.pids[0]).cmdline()
    assert line[1:3] == ["-m", "fhe_workers.child"]
    parent = "import fhe_workers.worker, fhe_workers.__main__, sys; print('Pyfhel' in sys.modules)"
    said = subprocess.run(  # noqa: ASYNC221
        [sys.executable, "-c", parent], capture_output=True, check=True, cwd=ROOT, env=os.environ
    )
    assert said.stdout.strip() == b"False"

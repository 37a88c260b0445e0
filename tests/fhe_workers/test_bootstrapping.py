"""Refreshing ciphertexts: right results, hostile bytes refused, a helper that may die."""

import asyncio
import json
import random
import subprocess
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from fhe_workers import lattigo
from fhe_workers.bootstrapping import Bootstrapper, HelperLimits
from fhe_workers.messages import CIPHER, PLAIN, Work
from fhe_workers.pool import EngineFailed
from fhe_workers.refusals import JobRefused
from infra.sandbox import Sandbox
from schemas.fhe.ciphertext import CiphertextInvalid
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.key_material import KeyRefused
from schemas.fhe.key_work import CheckKey, KeyVerdict
from schemas.fhe.lattigo import check_part, read_lattigo_ciphertext
from schemas.fhe.parameters import BOOTSTRAP_ERROR, CKKS_BOOT_N15
from tests.fhe_workers.mutations import MUTATIONS
from tests.fhe_workers.refreshing import INSECURE, RefreshingClient

X = [0.5, -0.25, 1.0, -1.0, *(0.0625 * number for number in range(12))]
Y = [0.5, 0.5, -1.0, 0.75, *(1.0 - 0.0625 * number for number in range(12))]
LIMITS = HelperLimits(keys=1, address_space_bytes=4 * 1024**3, wall_seconds_max=60)


@pytest.fixture
def alice(erin: RefreshingClient) -> RefreshingClient:
    return erin


@pytest.fixture
async def helper(program: Path) -> AsyncIterator[Bootstrapper]:
    async with Bootstrapper(program, LIMITS, set_name=INSECURE) as running:
        yield running


def work(operation: str, *kinds: str, key: str = "alice") -> Work:
    return Work("job-1", operation, "ckks-boot-n15", key, kinds, cpu_seconds_max=60)


def doubles(*values: float) -> bytes:
    return np.array(values, dtype="<f8").tobytes()


async def test_a_ciphertext_without_a_level_left_is_refreshed_and_goes_on(
    helper: Bootstrapper, alice: RefreshingClient
) -> None:
    data, expected = alice.encrypt(X), np.array(X)
    other = alice.encrypt(Y)
    for level in (1, 2):
        result = await helper.run(
            work("multiply", CIPHER, CIPHER), [data, other], alice.parts, alice.part
        )
        data, expected = result.data, expected * Y
        assert result.computed.level == level
        assert np.abs(np.array(alice.decrypt(data)) - expected).max() < 1e-4
    with pytest.raises(JobRefused) as refused:
        await helper.run(work("multiply", CIPHER, CIPHER), [data, other], alice.parts, alice.part)
    assert refused.value.reason == "level_exhausted"

    refreshed = await helper.run(work("bootstrap", CIPHER), [data], alice.parts, alice.part)
    assert (refreshed.computed.level, refreshed.computed.key_was_loaded) == (0, True)
    # The scale has drifted by two products of ciphertexts, which must not cost precision.
    assert np.abs(np.array(alice.decrypt(refreshed.data)) - expected).max() < BOOTSTRAP_ERROR
    again = await helper.run(
        work("multiply", CIPHER, PLAIN), [refreshed.data, doubles(*Y)], alice.parts, alice.part
    )
    assert (again.computed.level, again.computed.scale) == (1, refreshed.computed.scale)
    total = await helper.run(
        work("add", CIPHER, CIPHER), [again.data, other], alice.parts, alice.part
    )
    assert total.computed.level == 1
    assert (
        np.abs(np.array(alice.decrypt(total.data)) - (expected * Y + Y)).max() < 2 * BOOTSTRAP_ERROR
    )


async def test_hostile_operands_are_refused_and_the_helper_lives(
    helper: Bootstrapper, alice: RefreshingClient
) -> None:
    honest, rng = alice.encrypt(X), random.Random(7)
    add = work("add", CIPHER, PLAIN)
    await helper.run(add, [honest, doubles(1.0)], alice.parts, alice.part)
    pid = helper.pid
    refused = 0
    for number in range(200):
        hostile = MUTATIONS[number % len(MUTATIONS)](honest, rng)
        try:
            await helper.run(add, [hostile, doubles(1.0)], alice.parts, alice.part)
        except JobRefused as error:
            assert error.reason in ("ciphertext_invalid", "transparent_result")
            refused += 1
    # A flipped bit of a coefficient may be another ciphertext; all else is seen.
    assert refused >= 150
    assert helper.pid == pid
    assert pid is not None and psutil.Process(pid).memory_info().rss < 1024**3
    for values in (doubles(float("nan")), doubles(1e30), b"1234567", doubles(*[1.0] * 17)):
        with pytest.raises(JobRefused) as error:
            await helper.run(add, [honest, values], alice.parts, alice.part)
        assert error.value.reason == "plaintext_invalid"


async def test_hostile_keys_are_refused_and_the_helper_lives(
    helper: Bootstrapper, alice: RefreshingClient
) -> None:
    data, rng = alice.encrypt(X), random.Random(8)
    add = work("add", CIPHER, PLAIN)
    operands = [data, doubles(1.0)]
    pids = set()
    for number in range(24):
        victim = alice.parts[number % len(alice.parts)]
        hostile = MUTATIONS[number % 3](await alice.part(victim), rng)
        forged = StoredPart(victim.kind, "x", sha256(hostile).hexdigest(), len(hostile))

        async def fetch(part: StoredPart, hostile: bytes = hostile) -> bytes:
            return hostile if part.object == "x" else await alice.part(part)

        with pytest.raises(JobRefused) as refused:
            await helper.run(add, operands, [forged], fetch)
        assert refused.value.reason == "key_invalid"
        pids.add(helper.pid)
    assert len(pids) == 1
    # A key that lacks a part, or has one under another's name.
    by_hash = {part.sha256: part for part in alice.parts}

    async def of_hash(part: StoredPart) -> bytes:
        return await alice.part(by_hash[part.sha256])

    first, second = alice.parts[:2]
    swapped = [first, msgspec.structs.replace(second, kind=alice.parts[2].kind)]
    unknown = [msgspec.structs.replace(first, kind="gal7")]
    for parts in ([], alice.parts[:-1], swapped, unknown):
        with pytest.raises(JobRefused) as refused:
            await helper.run(add, operands, parts, of_hash)
        assert refused.value.reason == "key_invalid"
    await helper.run(add, operands, alice.parts, alice.part)


def test_an_uploaded_part_is_loaded_alone_by_a_helper_that_may_die_of_it(
    alice: RefreshingClient, program: Path
) -> None:
    rng, rotation = random.Random(9), alice.bytes_of(alice.parts[2].kind)
    for kind in ("rlk", "d2s", "s2d", alice.parts[1].kind):
        honest = alice.bytes_of(kind)
        lattigo.check_part(program, alice.params, kind, honest)
        middle = len(honest) // 2
        for hostile in (
            (rotation * 2)[: len(honest)],
            honest[:middle] + b"\xff" * 16 + honest[middle + 16 :],
            bytes([honest[0] ^ 1]) + honest[1:],
            rng.randbytes(len(honest)),
            honest[:-1],
        ):
            with pytest.raises(JobRefused) as refused:
                lattigo.check_part(program, alice.params, kind, hostile)
            assert refused.value.reason in ("key_invalid", "wrong_length")
    for dying in ("/bin/false", "/bin/cat"):
        with pytest.raises(JobRefused, match="ended the process"):
            lattigo.check_part(Path(dying), alice.params, "rlk", alice.bytes_of("rlk"))


async def test_the_process_that_looks_at_uploads_starts_the_helper_within_its_own_limits(
    program: Path,
) -> None:
    size = CKKS_BOOT_N15.part_bytes["d2s"]

    async def zeros() -> AsyncIterator[bytes]:
        yield bytes(size)

    work = CheckKey(CKKS_BOOT_N15.params_id, ["d2s"], [size], str(program))
    answer = await Sandbox("fhe_workers.key_child").ask(work, zeros())
    verdict = msgspec.json.decode(answer, type=KeyVerdict)
    # Which only the helper knows: the true set's, in 2 GiB of addresses.
    assert verdict == KeyVerdict("key_invalid", "the part d2s has not the form of ckks-boot-n15")


async def test_two_keys_are_never_mixed_up_and_the_least_used_goes(
    helper: Bootstrapper, alice: RefreshingClient, program: Path, tmp_path: Path
) -> None:
    bob = RefreshingClient(program, tmp_path / "bob")
    multiply = (CIPHER, CIPHER)
    loaded = []
    for client, name in ((alice, "alice"), (bob, "bob"), (bob, "bob"), (alice, "alice")):
        data = client.encrypt(X)
        result = await helper.run(
            work("multiply", *multiply, key=name), [data, data], client.parts, client.part
        )
        assert np.abs(np.array(client.decrypt(result.data)) - np.square(X)).max() < 1e-4
        loaded.append(result.computed.key_was_loaded)
    assert loaded == [False, False, True, False]


async def test_a_helper_that_dies_is_replaced_and_a_job_tried_twice(
    alice: RefreshingClient, program: Path
) -> None:
    data = alice.encrypt(X)
    add = work("add", CIPHER, PLAIN)
    async with Bootstrapper(program, LIMITS, set_name=INSECURE) as helper:
        deaths = 1

        async def fetch(part: StoredPart) -> bytes:
            nonlocal deaths
            if deaths:
                deaths -= 1
                assert helper.pid is not None
                psutil.Process(helper.pid).kill()
            return await alice.part(part)

        result = await helper.run(add, [data, doubles(1.0)], alice.parts, fetch)
        assert result.tries == 2
        deaths = 2
        with pytest.raises(EngineFailed, match="died twice"):
            await helper.run(
                msgspec.structs.replace(add, key_name="b"), [data, doubles(1.0)], alice.parts, fetch
            )
        # One that its client gave up does not answer the next one's question.
        slow = asyncio.Event()

        async def never(part: StoredPart) -> bytes:
            await slow.wait()
            return b""

        abandoned = asyncio.ensure_future(helper.run(add, [data, doubles(1.0)], alice.parts, never))
        await asyncio.sleep(0)
        abandoned.cancel()
        await asyncio.gather(abandoned, return_exceptions=True)
        done = await helper.run(add, [data, doubles(1.0)], alice.parts, alice.part)
        assert np.abs(np.array(alice.decrypt(done.data)) - (np.array(X) + 1)[:1]).min() < 1e-4


async def test_without_the_helper_its_jobs_say_what_is_missing() -> None:
    async def fetch(part: StoredPart) -> bytes:
        raise AssertionError("no part is needed")

    async with Bootstrapper(None) as missing:
        with pytest.raises(JobRefused, match="takes go and make install") as refused:
            await missing.run(work("bootstrap", CIPHER), [b""], [], fetch)
    assert refused.value.reason == "engine_unavailable"


def test_the_parameters_are_what_the_gateway_knows_them_by(program: Path) -> None:
    said = subprocess.run([program, "parts", "ckks-boot-n15"], capture_output=True, check=True)
    known = json.loads(said.stdout)
    assert known["parts"] == CKKS_BOOT_N15.part_bytes
    assert tuple(known["ciphertext_bytes"]) == CKKS_BOOT_N15.ciphertext_lengths
    # The limit for 128 bits at this ring degree; the bootstrapping literal alone would exceed it.
    assert (known["log_n"], known["log_qp"] <= 881) == (15, True)
    assert all(size < 40_000_000 for size in known["parts"].values())


def test_the_gateway_knows_ciphertexts_and_parts_by_length_and_head(
    alice: RefreshingClient,
) -> None:
    # Of the small ring, but with the same head.
    small = alice.encrypt(X)
    honest = small + bytes(CKKS_BOOT_N15.ciphertext_lengths[0] - len(small))
    shape = read_lattigo_ciphertext(honest, CKKS_BOOT_N15)
    assert (shape.level, shape.scale) == (0, 2.0**31)
    for hostile in (
        small,
        b"",
        b"\0" + honest[1:],
        honest[:10] + b"\xff" + honest[11:],
        honest.replace(b'"0x04"', b'"0x05"'),
        honest.replace(b"e+09", b"e+10"),
        honest.replace(b"e+09", b"e+9x"),
        bytes(len(honest)),
    ):
        with pytest.raises(CiphertextInvalid):
            read_lattigo_ciphertext(hostile, CKKS_BOOT_N15)
    check_part("rlk", 37_750_192, CKKS_BOOT_N15)
    for kind, size in (("rlk", 1), ("gal7", 37_750_208), ("secret", 524_000)):
        with pytest.raises(KeyRefused):
            check_part(kind, size, CKKS_BOOT_N15)

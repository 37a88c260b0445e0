"""Gates in children: long jobs tell how far they are, hostile bytes and kills cost no parent."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator

import pytest

from fhe_workers.child_process import PoolLimits
from fhe_workers.messages import CIPHER, PROGRESS_MAX, Work
from fhe_workers.pool import Pool
from fhe_workers.refusals import JobRefused
from tests.fhe_workers.clients import GateClient
from tests.fhe_workers.mutations import MUTATIONS

# More than a second of gates on any machine, less than two on an idle one.
LONG = 80


def work(operation: str = "and", key: str = "key-1") -> Work:
    kinds = (CIPHER,) * (1 if operation == "not" else 2)
    return Work("job-1", operation, "tfhe-132", key, kinds, 60, True)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(PoolLimits(children=1)) as pool:
        yield pool


async def test_a_long_job_tells_how_far_it_is(pool: Pool, dora: GateClient) -> None:
    heard: list[tuple[int, int]] = []

    async def key() -> list[bytes]:
        return [dora.server_key]

    bits = [place % 2 for place in range(LONG)]
    data = dora.encrypt(bits)
    result = await pool.run(work(), [data, data], key, lambda *told: heard.append(told))
    assert dora.decrypt(result.data) == bits
    assert result.computed.count == LONG
    assert 0 < len(heard) <= PROGRESS_MAX and heard == sorted(set(heard))
    assert all(0 < done < total == LONG for done, total in heard)


async def test_a_child_killed_among_its_gates_is_replaced(pool: Pool, dora: GateClient) -> None:
    async def key() -> list[bytes]:
        return [dora.server_key]

    killed: list[int] = []

    def kill_once(done: int, total: int) -> None:
        if not killed:
            killed.extend(pool.pids)
            os.kill(killed[0], signal.SIGKILL)

    data = dora.encrypt([1] * LONG)
    result = await pool.run(work(), [data, data], key, kill_once)
    assert dora.decrypt(result.data) == [1] * LONG
    assert result.tries == 2 and pool.pids != killed


async def test_hostile_bytes_never_cost_a_child(pool: Pool, dora: GateClient) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    before = pool.pids
    honest = dora.encrypt([1, 0, 1, 1])
    keys = [mutate(dora.server_key, rng) for mutate in MUTATIONS]
    keys += [dora.secret, b"", dora.server_key + b"\0"]
    operands = [MUTATIONS[number % 7](honest, rng) for number in range(120)]
    given = [(f"key-{number}", data, honest) for number, data in enumerate(keys)]
    given += [("honest", dora.server_key, operand) for operand in operands]
    for name, key, operand in given:

        async def source(part: bytes = key) -> list[bytes]:
            return [part]

        try:
            async with asyncio.timeout(60):
                await pool.run(work("not", name), [operand], source)
        except JobRefused as error:
            assert error.reason in {"ciphertext_invalid", "key_invalid"}
    assert pool.pids == before

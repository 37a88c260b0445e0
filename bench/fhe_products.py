"""Matrix products, keys, handles and bootstrapping: `python -m bench.fhe_products [seconds]`.

A 64 x 64 matrix in the clear times an encrypted vector: raw Pyfhel by the same rotations, each
diagonal encoded when it is used, against ours, which keeps them. The first job of a key against the
next one, through a child. The answer to work that was done before, over HTTP and deciders in memory
(no broker, no database), against the same work new. Bootstrapping with the true parameters: keys of
a gigabyte, made once in a temporary folder; only where the helper is built.
"""

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from Pyfhel import PyCtxt

from bench.figure import Figure
from fhe_workers import ckks, keys, linear
from fhe_workers.bootstrapping import Bootstrapper, HelperLimits
from fhe_workers.child_process import PoolLimits
from fhe_workers.messages import CIPHER, Work
from fhe_workers.pool import Pool
from fhe_workers.refusals import JobRefused
from infra.build.bootstrap import cached_helper
from schemas.fhe.ciphertext import CiphertextInvalid, read_ciphertext
from schemas.fhe.parameters import CKKS_BOOT_N15, CKKS_N13, CKKS_N14
from tests.api.fhe.requests import cipher, compute, upload_key
from tests.api.fhe.world import World
from tests.fhe_workers.clients import Client
from tests.fhe_workers.mutations import MUTATIONS
from tests.fhe_workers.refreshing import RefreshingClient

SIZE, STEP = 64, 8
HOSTILE = 10_000


def cpu_ms(call: Callable[[], Any], seconds: float) -> float:
    """The median processor time of a call, in milliseconds."""
    took: list[float] = []
    until = time.monotonic() + seconds
    while len(took) < 3 or time.monotonic() < until:
        began = time.process_time()
        call()
        took.append((time.process_time() - began) * 1e3)
    return median(took)


def raw_matvec(engine: Any, matrix: Any, vector: Any) -> Any:
    """The same product with nothing of ours: Horner's rule, two rotation keys."""
    index, slots = np.arange(SIZE), engine.n // 2
    scale = float(engine.qi[len(engine.qi) - 2])
    near = [vector]
    for _ in range(STEP - 1):
        near.append(engine.rotate(near[-1], 1, True))
    total = None
    for begin in range(SIZE - STEP, -1, -STEP):
        if total is not None:
            total = engine.rotate(total, STEP, True)
        for offset in range(begin, begin + STEP):
            diagonal = np.roll(matrix[index, (index + offset) % SIZE], begin)
            plain = engine.encodeFrac(np.tile(diagonal, slots // SIZE), scale=scale)
            term = engine.multiply_plain(near[offset - begin], plain, True)
            total = term if total is None else engine.add(total, term, False)
    engine.rescale_to_next(total)
    return total


def products(seconds: float) -> list[Figure]:
    """One line for each set."""
    found = []
    for params in (CKKS_N13, CKKS_N14):
        client, rng = Client(params, rotations=(1, STEP)), np.random.default_rng(1)
        context = keys.load_keys(params, [client.relin, client.rotate])
        matrix = rng.uniform(-1, 1, (SIZE, SIZE))
        data = client.encrypt(np.tile(rng.uniform(-1, 1, SIZE), params.slots // SIZE))
        body = PyCtxt(pyfhel=context.engine, bytestring=data)
        vector = ckks.load(context, data)
        bare = cpu_ms(lambda e=context.engine, m=matrix, v=body: raw_matvec(e, m, v), seconds)
        linear.matvec(context, matrix, vector)
        ours = cpu_ms(lambda c=context, m=matrix, v=vector: linear.matvec(c, m, v), seconds)
        name = f"64 x 64 matrix times an encrypted vector, {params.params_id}, processor time"
        figure = Figure(name, f"{bare:.0f} ms", f"{ours:.0f} ms", bare / ours, at_least=1.0)
        found.append(figure)
    return found


async def keys_and_handles(seconds: float) -> list[Figure]:
    """A key that is loaded against one that is not; work that is done against work that is not."""
    client = Client(CKKS_N14)
    data = client.encrypt(np.ones(4))

    async def source() -> list[bytes]:
        return [client.relin]

    cold, hot = [], []
    async with Pool(PoolLimits(children=1)) as pool:
        for number in range(max(3, int(seconds * 4))):
            for took in (cold, hot):
                work = Work(
                    "job", "multiply", "ckks-n14", f"key-{number}", (CIPHER, CIPHER), 60, True
                )
                began = time.perf_counter()
                await pool.run(work, [data, data], source)
                took.append((time.perf_counter() - began) * 1e3)
    loaded = Figure(
        "encrypted multiply, ckks-n14, key not loaded and loaded",
        f"{median(cold[1:]):.0f} ms",
        f"{median(hot):.0f} ms",
        median(cold[1:]) / median(hot),
    )
    async with World() as world:
        key_id = await upload_key(world, client)
        new, cached = [], []
        for number in range(max(5, int(seconds * 4))):
            operands = [cipher(client, [1.0]), {"value": number + 1}]
            body = {"key_id": key_id, "operands": operands}
            for took in (new, cached):
                began = time.perf_counter()
                await compute(world, "multiply", body)
                took.append((time.perf_counter() - began) * 1e3)
    reused = Figure(
        "encrypted multiply by a value, ckks-n14, work that is new and work that was done",
        f"{median(new):.0f} ms",
        f"{median(cached):.0f} ms",
        median(new) / median(cached),
    )
    return [loaded, reused]


async def refreshed() -> list[Figure]:
    """Bootstrapping with the true parameters, on one core."""
    program = cached_helper()
    if program is None:
        return []
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        client = await asyncio.to_thread(
            RefreshingClient, program, Path(folder), CKKS_BOOT_N15.params_id
        )
        values = np.random.default_rng(1).uniform(-1, 1, 16)
        data = client.encrypt(list(values), level=2)
        work = Work("job", "bootstrap", CKKS_BOOT_N15.params_id, "key", (CIPHER,), 60, True)
        took, error, resident = [], 0.0, 0
        async with Bootstrapper(program, HelperLimits()) as helper:
            for _ in range(2):
                began = time.perf_counter()
                result = await helper.run(work, [data], client.parts, client.part)
                took.append(time.perf_counter() - began)
                error = float(np.abs(np.array(client.decrypt(result.data)) - values).max())
            assert helper.pid is not None
            resident = psutil.Process(helper.pid).memory_info().rss
    return [
        Figure(
            f"bootstrapping, ckks-boot-n15, key not loaded and loaded (error {error:.1g}, "
            f"{resident / 1e9:.1f} GB)",
            f"{took[0]:.1f} s",
            f"{took[1]:.1f} s",
            took[0] / took[1],
        )
    ]


async def hostile(count: int) -> list[Figure]:
    """So many hostile operands and keys, past the gateway's readers, straight to a child."""
    client, rng = Client(CKKS_N13), random.Random(20261127)
    honest, seen, resident = client.encrypt(np.ones(4)), 0, []
    async with Pool(PoolLimits(children=1, jobs_per_child_max=10 * count)) as pool:
        pids = pool.pids
        for number in range(count):
            is_key = number % 4 == 0
            data = MUTATIONS[number % len(MUTATIONS)](client.relin if is_key else honest, rng)
            try:
                if not is_key:
                    read_ciphertext(data, CKKS_N13)
            except CiphertextInvalid:
                seen += 1

            async def source(parts: bytes = data if is_key else client.relin) -> list[bytes]:
                return [parts]

            name = f"key-{number if is_key else 0}"
            work = Work("job", "multiply", "ckks-n13", name, (CIPHER, CIPHER), 60, True)
            operands = [honest, honest if is_key else data[:2_000_000]]
            with contextlib.suppress(JobRefused):
                await pool.run(work, operands, source)
            if number in (count // 10, count - 1):
                resident.append(psutil.Process(pool.pids[0]).memory_info().rss / 1e6)
        deaths = 0 if pool.pids == pids else 1
    return [
        Figure(
            f"{count:,} hostile operands and keys: deaths; the child's memory early and late",
            f"{resident[0]:.0f} MB",
            f"{deaths} deaths, {resident[1]:.0f} MB",
        )
    ]


def figures(seconds: float) -> list[Figure]:
    """See `bench.__main__.BENCHES`."""
    found = products(seconds)
    found += asyncio.run(keys_and_handles(seconds))
    found += asyncio.run(refreshed())
    return found + asyncio.run(hostile(HOSTILE))


if __name__ == "__main__":
    for line in figures(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0):
        sys.stdout.write(f"{line.name}: {line.bare} | {line.ours} | {line.ratio}\n")

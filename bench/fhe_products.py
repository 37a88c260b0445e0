"""Matrix products, keys and handles: `python -m bench.fhe_products [seconds]`.

A 64 x 64 matrix in the clear times an encrypted vector: raw Pyfhel by the same rotations, each
diagonal encoded when it is used, against ours, which keeps them; and TenSEAL's own product, on one
thread. The first job of a key against the next one, through a child. The answer to work that was
done before, over HTTP and deciders in memory (no broker, no database), against the same work new.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import tenseal
from Pyfhel import PyCtxt

from bench.figure import Figure
from fhe_workers import ckks, keys, linear
from fhe_workers.child_process import PoolLimits
from fhe_workers.messages import CIPHER, Work
from fhe_workers.pool import Pool
from schemas.fhe.parameters import CKKS_N13, CKKS_N14, CkksParameters
from tests.api.fhe.requests import cipher, compute, upload_key
from tests.api.fhe.world import World
from tests.fhe_workers.clients import Client

SIZE, STEP = 64, 8


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
        theirs = tenseal_ms(params, matrix, seconds)
        name = f"the same beside TenSEAL's own product, {params.params_id}"
        found.append(Figure(name, f"{theirs:.0f} ms", f"{ours:.0f} ms", theirs / ours))
    return found


def tenseal_ms(params: CkksParameters, matrix: Any, seconds: float) -> float:
    """Milliseconds of processor time of TenSEAL for a vector times the matrix."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=params.ring_degree,
        coeff_mod_bit_sizes=list(params.prime_bits),
        n_threads=1,
    )
    context.global_scale = params.scale
    context.generate_galois_keys()
    vector = tenseal.ckks_vector(context, list(matrix[0]))
    columns = matrix.T.tolist()
    return cpu_ms(lambda: vector.mm(columns), seconds)


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


def figures(seconds: float) -> list[Figure]:
    """See `bench.__main__.BENCHES`."""
    found = products(seconds)
    found += asyncio.run(keys_and_handles(seconds))
    return found


if __name__ == "__main__":
    for line in figures(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0):
        sys.stdout.write(f"{line.name}: {line.bare} | {line.ours} | {line.ratio}\n")

"""Bootstrapped gates in children against bare tfhe-rs: `python -m bench --only gates`.

The bare side calls the extension on ciphertexts in memory. Ours sends lists of bits through a pool
of one child: checks of every byte, shared memory and pipes included. Processor time is compared,
of both processes together, since a busy machine decides the rest.
"""

import sys
import time
from statistics import median

import uvloop
import weir_tfhe

from bench.fhe import Stopwatch
from bench.figure import Figure
from fhe_workers.child_process import PoolLimits
from fhe_workers.messages import CIPHER, Work
from fhe_workers.pool import Pool
from schemas.fhe.parameters import TFHE_132

ROUNDS = 3
GATE, BITS = "nand", 32


def bare(server: weir_tfhe.Server, bit: bytes, seconds: float) -> float:
    """Seconds of processor time for a gate."""
    count, ends, used = 0, time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < ends:
        server.gate(GATE, bit, bit)
        count += 1
    return (time.process_time() - used) / count


async def pooled(pool: Pool, key: bytes, bits: bytes, seconds: float) -> float:
    """The same through a child, of which the first job loads the key."""
    kinds = (CIPHER, CIPHER)
    work = Work("job", GATE, TFHE_132.params_id, "key", kinds, 600, needs_key=True)

    async def source() -> list[bytes]:
        return [key]

    await pool.run(work, [bits, bits], source)
    count, ends, watch = 0, time.perf_counter() + seconds, Stopwatch(pool)
    while time.perf_counter() < ends:
        await pool.run(work, [bits, bits], source)
        count += BITS
    return watch.rate(count).cpu_seconds


async def bench(seconds: float) -> list[Figure]:
    """Rounds of both, one after the other."""
    client = weir_tfhe.Client(TFHE_132.params_id)
    key, bits = client.server_key(), client.encrypt([True] * BITS)
    server, bit = weir_tfhe.Server(TFHE_132.params_id, key), bits[: len(bits) // BITS]
    rounds = []
    async with Pool(PoolLimits(children=1)) as pool:
        for _ in range(ROUNDS):
            rounds.append((bare(server, bit, seconds), await pooled(pool, key, bits, seconds)))
    figure = Figure(
        name=f"gate {GATE.upper()} of {TFHE_132.params_id}, {BITS} bits a job, processor time",
        bare=f"{median(side for side, _ in rounds) * 1e3:.2f} ms",
        ours=f"{median(side for _, side in rounds) * 1e3:.2f} ms",
        ratio=median(raw / ours for raw, ours in rounds),
        at_least=0.9,
    )
    sys.stdout.write(f"{figure.name}: {figure.bare} bare, {figure.ours} ours\n")
    return [figure]


def figures(seconds: float) -> list[Figure]:
    """Everything this module measures."""
    return uvloop.run(bench(seconds))
